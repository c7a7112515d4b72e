"""Parameters, images and network of every run tried in seconds, before any run starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checks import check_settings
from ..data.dataset import Dataset, load_splits, source_of
from ..runs.parameters import defaults_of
from ..snn.conversion import check_network


def rehearse(runs: Mapping[str, Mapping[str, Any]], notebooks: Sequence[Path]) -> None:
    """Find what is wrong with any of the runs, as far as that takes no training.

    Every parameter is checked, the data set is read, and the network is specified for its images; runs that differ
    in their seed alone are tried once. Raises ValueError, or FileNotFoundError for missing data, that names the
    run, the parameter and the remedy.
    """
    data: dict[tuple[Any, ...], tuple[Dataset, Dataset]] = {}
    tried: set[str] = set()
    hardware = any(path.stem == "08_hardware" for path in notebooks)
    for run, given in runs.items():
        settings = defaults_of(notebooks) | dict(given)
        if (text := repr(settings | {"seed": 0})) in tried:
            continue
        tried.add(text)
        try:
            check_settings(settings)
            if given.get("fault") and "fault_rate" not in given:
                raise ValueError(
                    f"fault={given['fault']!r} without a fault_rate: give the share of spikes it strikes"
                )
            # A notebook that only compares runs takes a data set too, and may leave it open.
            if "dataset" in settings and "network" in settings:
                source = source_of(settings)
                if (key := tuple(source.values())) not in data:
                    data[key] = load_splits(**source)
                training, test = data[key]
                if settings.get("samples", 0) > len(test):
                    raise ValueError(
                        f"samples={settings['samples']}: {test.name} has {len(test)} test images; "
                        "give fewer, or 0 for all"
                    )
                check_network(settings, test.in_shape, len(test.classes), len(training), hardware)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"run {run} cannot be made: {error}") from None
