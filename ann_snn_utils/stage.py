"""A notebook's place in a run: where it reads and writes, and the record of how it made its artifacts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .artifacts import save_json
from .notebooks import FOLDER, parameters_of
from .runs import default_run_name, latest_run, record_stage, require, run_folder


@dataclass(frozen=True)
class Stage:
    """One notebook at work in the run folder `folder`, with its parameters and input artifacts."""

    notebook: str
    folder: Path
    parameters: Mapping[str, Any]
    inputs: tuple[str, ...]
    started: float

    def finish(
        self,
        artifacts: Iterable[str] = (),
        metrics: Mapping[str, Any] | None = None,
        results: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the stage in the run's manifest; `results` are written to results.json first.

        parameters: what took the place of parameters that were left open.
        """
        artifacts = list(artifacts)
        if results is not None:
            save_json(self.folder / "results.json", {"run": self.folder.name, **results})
            artifacts.append("results.json")
        record_stage(
            self.folder,
            self.notebook,
            parameters={**self.parameters, **(parameters or {})},
            inputs=self.inputs,
            artifacts=artifacts,
            metrics=metrics,
            seconds=round(time.time() - self.started, 1),
        )


def open_stage(notebook: str, names: Mapping[str, Any], inputs: Iterable[str] = ()) -> Stage:
    """Give the stage of a notebook whose variables are `names` (its globals), from which parameters are read.

    An empty `run` is the latest run that holds the inputs, or, for a notebook without inputs, a new one named
    after its parameters. Raises FileNotFoundError that names the notebook which makes a missing input.
    """
    parameters = {name: names[name] for name in parameters_of(FOLDER / f"{notebook}.ipynb")}
    inputs = tuple(inputs)
    run = parameters["run"] or (latest_run(inputs[0]) if inputs else default_run_name(parameters))
    folder = run_folder(run, create=not inputs)
    for name in inputs:
        require(folder, name)
    return Stage(notebook, folder, parameters, inputs, time.time())
