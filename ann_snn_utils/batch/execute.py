"""Running one notebook with papermill: strict parameters, this very Python, output that is kept on failure."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TextIO

from ..files import atomic
from ..runs.parameters import check_parameters
from .kernels import fresh_kernel
from .pages import without_widgets

# It would say on the terminal that a kernel died, beside the error that says so.
logging.getLogger("papermill").addHandler(logging.NullHandler())


class NotebookFailed(RuntimeError):
    """A notebook that stopped at an error.

    notebook: its name; cell: index of the failing cell in it, None where the kernel failed between cells;
    source: that cell's code; ename, evalue: the error's type and text; path: the executed notebook.
    """

    def __init__(self, notebook: str, cell: int | None, source: str, ename: str, evalue: str, path: Path):
        self.notebook, self.cell, self.source = notebook, cell, source
        self.ename, self.evalue, self.path = ename, evalue, path
        place = "" if cell is None else f" in cell {cell}"
        lines = [line for line in source.splitlines() if line.strip()]
        excerpt = "".join(f"\n    {line}" for line in lines[:6]) + ("\n    …" if len(lines) > 6 else "")
        super().__init__(
            f"{notebook} failed{place}: {ename}: {evalue}{excerpt}\n  executed notebook, with the error: {path}"
        )


def execute(
    notebook: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    parameters: Mapping[str, Any],
    output: TextIO | None = None,
    kernel: Callable[[], AbstractContextManager[Any]] = fresh_kernel,
) -> Path:
    """Run a notebook from the repository root and give the path of the executed one, folder/notebooks/<name>.

    output: what the notebook prints is written there as it comes. kernel: gives a kernel's manager for the time
    of the notebook. PLOTLY_RENDERER is set so that figures are stored as plotly's JSON, and ANN_SNN_BATCH=1
    tells the notebook that nobody watches. Raises ValueError for a parameter that the notebook does not take,
    NotebookFailed for an error in it: its output is kept too.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    notebook = Path(notebook)
    parameters = check_parameters(parameters, [notebook])
    target = Path(folder) / "notebooks" / notebook.name
    failure: tuple[str, str] | None = None
    with tempfile.TemporaryDirectory(prefix="ann-snn-") as scratch:
        work = Path(scratch) / notebook.name
        for attempt in (1, 2):
            try:
                with kernel() as manager:
                    papermill.execute_notebook(
                        notebook,
                        work,
                        dict(parameters),
                        kernel_name="python3",
                        language="python",
                        km=manager,
                        progress_bar=False,
                        autosave_cell_every=0,
                        start_timeout=120,
                        store_widget_state=False,
                        stdout_file=output,
                        stderr_file=output,
                    )
            except PapermillExecutionError as error:
                failure = error.ename, error.evalue
            except DeadKernelError:
                failure = "DeadKernelError", "the kernel died: it may have run out of memory"
            except RuntimeError as error:
                # A kernel that lost its port to another program before it could answer.
                if attempt == 1 and "Kernel died before" in str(error):
                    continue
                failure = type(error).__name__, str(error)
            break
        executed = _tidied(nbformat.read(work, as_version=4), notebook)
    with atomic(target) as temporary:
        temporary.write_text(nbformat.writes(executed) + "\n", encoding="utf-8")
    if failure:
        raise NotebookFailed(notebook.stem, *_failing_cell(executed, notebook), *failure, target)
    return target


def _tidied(executed: Any, notebook: Path) -> Any:
    executed = without_widgets(executed)
    # Paths of this machine say nothing about the run.
    executed.metadata.papermill.update(input_path=notebook.name, output_path=notebook.name)
    return executed


def _failing_cell(executed: Any, notebook: Path) -> tuple[int | None, str]:
    import nbformat

    order = [cell.get("id") for cell in nbformat.read(notebook, as_version=4).cells]
    states = [(cell, cell.metadata.get("papermill", {})) for cell in executed.cells]
    raised = [cell for cell, state in states if state.get("exception")]
    # Where the kernel died no cell is marked: it is the last one that was begun.
    failing = raised or [cell for cell, state in states if state.get("start_time")][-1:]
    if not failing:
        return None, ""
    cell = failing[0]
    return (order.index(cell.id) if cell.get("id") in order else None), cell.source
