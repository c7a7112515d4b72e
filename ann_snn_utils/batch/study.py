"""The whole study in one call: the notebooks in order, each stage once, pages for all of them."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TextIO

from ..runs.folder import default_run_name, run_folder
from ..runs.parameters import FOLDER, check_parameters, ordered_notebooks, select_notebooks
from .execute import NotebookFailed
from .kernels import close_kernels, warm_kernel
from .pages import export_html
from .progress import Progress
from .stage import make_stage, request_of

STUDY = "00-06"


def study(
    parameters: Mapping[str, Any],
    notebooks: str = STUDY,
    run: str | None = None,
    progress: bool = True,
    force: bool = False,
    folder: str | os.PathLike[str] = FOLDER,
) -> Path:
    """Run the notebooks in order with these parameters and give the run's folder.

    notebooks: a selection such as "00-04,06". run: the run's name, otherwise named after the parameters. Each
    notebook is given those parameters that it takes, and the run. A stage that this run has already, made
    with the same parameters, inputs and code, is kept unless `force`. Executed notebooks lie in <run>/notebooks
    and their pages in <run>/html. progress: show stages and what they print on standard error.
    Of two processes that make stages of one run, one waits for the other. Raises ValueError, before anything
    runs, for an unknown parameter or a wrong value; NotebookFailed.
    """
    chosen = select_notebooks(notebooks, folder)
    given = check_parameters(dict(parameters), chosen)
    named = given.pop("run", "")
    if run and named and run != named:
        raise ValueError(f"two names for the run, {run!r} and {named!r}: give one")
    run = run or named or default_run_name(given, ordered_notebooks(folder))
    target = run_folder(run, create=True)
    stream = sys.stderr if progress else open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    settings = {"ANN_SNN_STUDY": uuid.uuid4().hex}
    try:
        _run_stages(chosen, given, target, stream, force, lambda: warm_kernel(settings))
    finally:
        close_kernels(settings)
        if not progress:
            stream.close()
    return target


def _run_stages(
    chosen: list[Path],
    given: dict[str, Any],
    target: Path,
    stream: TextIO,
    force: bool,
    kernel: Callable[[], AbstractContextManager[Any]],
) -> None:
    width = max(len(notebook.stem) for notebook in chosen)
    finished: list[str] = []
    for number, notebook in enumerate(chosen, 1):
        shown = Progress(f"[{number}/{len(chosen)}] {notebook.stem:{width}}", stream)
        page = target / "html" / f"{notebook.stem}.html"
        try:
            request = request_of(notebook, given)
            how = make_stage(notebook, target, given, request, output=shown, kernel=kernel, force=force)
        except NotebookFailed as error:
            export_html(error.path, page)
            raise
        except KeyboardInterrupt as interrupt:
            done = ", ".join(finished) or "none"
            interrupt.add_note(f"stopped in {notebook.stem}; finished stages: {done}; the same command goes on")
            raise
        shown.line("kept: already made with these parameters" if how == "kept" else "done")
        if how != "kept" or not page.is_file():
            export_html(target / "notebooks" / notebook.name, page)
        finished.append(notebook.stem)
