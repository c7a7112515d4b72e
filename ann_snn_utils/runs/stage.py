"""A notebook at work in a run: what is asked of it, which images it stands on, and the record of what it made."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..checks import RULES, check_settings
from ..files import save_json, sha256
from .folder import (
    ANN_FILE,
    ARTIFACTS,
    QANN_FILE,
    RESULTS_FILE,
    TRIALS,
    default_run_name,
    digest_of,
    latest_run,
    require,
    run_folder,
)
from .manifest import Images, made_otherwise, read_manifest, record_stage
from .parameters import (
    NOTEBOOKS,
    code_cells,
    declared,
    defaults_of,
    parameters_in,
    parameters_of,
    parameters_source,
)
from .provenance import code_digest

# Set in the kernels of a study or a sweep, whose plan has checked already what each stage would replace.
PLANNED = "ANN_SNN_PLANNED"


def request_of(notebook: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked of a stage: every parameter that its notebook takes, save `run`, and its code's digest."""
    settings = defaults_of([notebook]) | declared(parameters, notebook)
    settings.pop("run", None)
    return {"parameters": settings, "code": code_digest(notebook)}


def differing_parameters(
    folder: Path, notebook: Path, settings: Mapping[str, Any], artifact: str = RESULTS_FILE
) -> str:
    """In words, how the parameters that a run's results were made with differ from these of one of its stages.

    Empty where making the stage replaces nothing of another setting: where they do not differ, where the run has
    no results, or no `artifact` that is asked for instead, and where the notebook takes no part in them.
    """
    stage = read_manifest(folder).stages.get(notebook.stem)
    if stage is None or notebook.stem not in ARTIFACTS.values() or not (folder / artifact).is_file():
        return ""
    asked = (stage.request or {}).get("parameters")
    was = defaults_of([notebook]) | (stage.parameters if asked is None else asked)
    # Without its request a record tells only the values that took the place of parameters left open.
    left_out = {} if asked is not None else {name: rule.left_out for name, rule in RULES.items()}
    now = {n: value for n, value in settings.items() if n != "run" and value not in left_out.get(n, ())}
    return made_otherwise({name: was[name] for name in now}, now)


def check_replaced(folder: Path, notebook: Path, settings: Mapping[str, Any]) -> None:
    """Raise ValueError where a stage with these parameters would replace what cannot be made again by the run.

    That is a network which results of other parameters tell of, or one that no notebook made, as of `save_network`.
    """
    trains = notebook.stem in (ARTIFACTS[ANN_FILE], ARTIFACTS[QANN_FILE])
    from_elsewhere = (folder / QANN_FILE).is_file() and not (folder / ANN_FILE).is_file()
    if trains and from_elsewhere and ARTIFACTS[QANN_FILE] not in read_manifest(folder).stages:
        raise ValueError(
            f"run {folder.name!r} holds a network that no notebook made, and {notebook.stem} leads to another one "
            "in its place: name another run, or replace it with `--force` of `ann-snn study`"
        )
    if differing := differing_parameters(folder, notebook, settings):
        raise ValueError(
            f"run {folder.name!r} has results that {notebook.stem} made with {differing}: name another run, or "
            f"replace them with `--force` of `ann-snn study` or `sweep`, or delete {folder / RESULTS_FILE}"
        )


def images_of(folder: Path, parameters: Mapping[str, Any], inputs: Iterable[str]) -> Images | None:
    """The images that a stage stands on: those its parameters name, else those its inputs were made from.

    None where neither says. Raises what `data_identity` raises.
    """
    recorded = [source for name in inputs if (source := _recorded_source(folder / name))]
    if "dataset" not in parameters and not recorded:
        return None
    from ..data.dataset import data_identity, source_of  # which need torch

    source = source_of(parameters) if "dataset" in parameters else recorded[0]
    return Images(source, data_identity(source))


def _recorded_source(path: Path) -> dict[str, Any] | None:
    try:
        with safe_open(path, framework="np") as file:
            source = json.loads((file.metadata() or {}).get("json", "{}")).get("source")
    except (SafetensorError, OSError, ValueError, AttributeError):
        return None
    return source if isinstance(source, dict) and "name" in source else None


@dataclass(frozen=True)
class Stage:
    """One notebook at work in the run folder `folder`, with its parameters and input artifacts.

    request, images: what `request_of` and `images_of` said when it began; recorded, so that it is known later
    whether the stage is current.
    """

    notebook: str
    folder: Path
    parameters: Mapping[str, Any]
    inputs: tuple[str, ...]
    started: float
    path: Path
    request: Mapping[str, Any]
    images: Images | None

    def finish(
        self,
        artifacts: Iterable[str] = (),
        metrics: Mapping[str, Any] | None = None,
        results: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the stage in the run's manifest; `results` are written to results.json first.

        Outside of a study or a sweep, results of a disturbed network, or of other parameters than those of the
        results that are there, are a trial: they are written to trials/, and the run stays as it is.

        parameters: what took the place of parameters that were left open.
        """
        artifacts = list(artifacts)
        if results is not None:
            results = {"run": self.folder.name, **results}
            if self._is_trial(results):
                self._save_trial(results)
                return
            save_json(self.folder / RESULTS_FILE, results)
            artifacts.append(RESULTS_FILE)
        record_stage(
            self.folder,
            self.notebook,
            parameters={**self.parameters, **(parameters or {})},
            inputs=self.inputs,
            artifacts=artifacts,
            metrics=dict(metrics or {}),
            seconds=round(time.time() - self.started, 1),
            request=dict(self.request) if _runs_as_saved(self.path) else None,
            images=self.images,
        )

    def _is_trial(self, results: Mapping[str, Any]) -> bool:
        if os.environ.get(PLANNED):
            return False
        disturbed = not results.get("undisturbed", True)
        return disturbed or bool(differing_parameters(self.folder, self.path, self.parameters))

    def _save_trial(self, results: Mapping[str, Any]) -> None:
        settings = {name: value for name, value in self.parameters.items() if name != "run"}
        name = f"{TRIALS}/{digest_of(settings)[:8]}.json"
        inputs = {name: sha256(self.folder / name) for name in self.inputs}
        save_json(self.folder / name, {**results, "parameters": settings, "inputs": inputs})
        print(f"a trial, written to {self.folder / name}; the run's own {RESULTS_FILE} is as it was")


def open_stage(notebook: str, names: Mapping[str, Any], inputs: Iterable[str] = ()) -> Stage:
    """The stage of a notebook whose variables are `names` (its globals), from which parameters are read.

    An empty `run` is the latest run that holds the inputs, or, for a notebook without inputs, a new one named
    after its parameters; "bundled:…" is a bundled network's, for a notebook with inputs. Raises ValueError for a
    parameter that is wrong, and where networks of a run that has results would be replaced by those of other
    parameters; FileNotFoundError that names the notebook which makes a missing input.
    """
    path = Path(os.environ.get("ANN_SNN_NOTEBOOK") or NOTEBOOKS / f"{notebook}.ipynb")
    parameters = {name: names[name] for name in parameters_of(path)}
    # papermill's -p makes a number of a name that looks like one.
    parameters |= {name: str(parameters[name]) for name in ("run", "dataset") if type(parameters.get(name)) is int}
    check_settings(parameters)
    inputs = tuple(inputs)
    run = parameters["run"]
    if inputs:
        from .gallery import run_named  # which needs torch

        run = run_named(run)
    if not run:
        run = latest_run(inputs[0]) if inputs else default_run_name(parameters)
    folder = run_folder(run, create=not inputs)
    for name in inputs:
        require(folder, name)
    if notebook != ARTIFACTS[RESULTS_FILE] and not os.environ.get(PLANNED):
        check_replaced(folder, path, parameters)
    request, images = request_of(path, parameters), images_of(folder, parameters, inputs)
    return Stage(notebook, folder, parameters, inputs, time.time(), path, request, images)


def _runs_as_saved(notebook: Path) -> bool:
    """Whether this kernel has run the saved notebook's cells once each, in order, up to the one that runs now.

    The parameters may have been edited: their values are recorded. Anything else, such as a cell that was changed
    and not saved, or run twice, makes a stage that the saved notebook would not make.
    """
    if os.environ.get("ANN_SNN_BATCH"):
        return True
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return False
    ran = [text.strip() for text in shell.history_manager.input_hist_raw if text.strip()]
    saved = [text.strip() for text in code_cells(notebook) if text.strip()]
    place = saved.index(parameters_source(notebook).strip())
    same = ran[:place] + ran[place + 1 :] == saved[:place] + saved[place + 1 : len(ran)]
    if not same or len(ran) <= place:
        return False
    try:
        return parameters_in(ran[place], notebook.name).keys() <= parameters_of(notebook).keys()
    except ValueError:  # a line that sets no parameter
        return False
