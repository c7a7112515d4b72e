"""Running one notebook with papermill: strict parameters, a fresh kernel of this Python, output kept on failure."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from ..files import ROOT, atomic
from ..runs.parameters import check_parameters

# It would say on the terminal that a kernel died, beside the error that says so.
logging.getLogger("papermill").addHandler(logging.NullHandler())

# No history file, which parallel kernels would lock; and no warnings of the kernel's own on the terminal.
_QUIET = ["--HistoryManager.hist_file=:memory:", "--log-level=ERROR"]

# The environment of every kernel: figures are stored as plotly's JSON, and nobody watches.
_BATCH = {"PLOTLY_RENDERER": "plotly_mimetype", "ANN_SNN_BATCH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"

# Kernels at work in this process, each with its owner, and the owners whose kernels were stopped.
_kernels: list[tuple[str, AsyncKernelManager]] = []
_stopped: set[str] = set()


class NotebookFailed(RuntimeError):
    """A notebook that stopped at an error.

    notebook: its name; cell: index of the failing cell in it, None where the kernel failed between cells;
    source: that cell's code; ename, evalue: the error's type and text; path: the executed notebook.
    """

    def __init__(self, notebook: str, cell: int | None, source: str, ename: str, evalue: str, path: Path):
        super().__init__(notebook, cell, source, ename, evalue, path)  # what is pickled, on its way from a worker
        self.notebook, self.cell, self.source = notebook, cell, source
        self.ename, self.evalue, self.path = ename, evalue, path

    def __str__(self) -> str:
        place = "" if self.cell is None else f" in cell {self.cell}"
        lines = [line for line in self.source.splitlines() if line.strip()]
        excerpt = "".join(f"\n    {line}" for line in lines[:6]) + ("\n    …" if len(lines) > 6 else "")
        said = f"{self.notebook} failed{place}: {self.ename}: {self.evalue}{excerpt}"
        return f"{said}\n  executed notebook, with the error: {self.path}"


@dataclass
class Lines:
    """A stream that tells the complete lines written to it; of a bar that redraws itself, the last state."""

    tell: Callable[[str], object]
    pending: str = ""

    def write(self, text: str) -> int:
        """Take some text, and tell the lines that are complete now, without colours and empty ones."""
        *lines, self.pending = (self.pending + text).split("\n")
        for line in lines:
            if shown := re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line.rstrip("\r").rpartition("\r")[2]).rstrip():
                self.tell(shown)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


class _KernelEngine(Engine):
    """papermill's engine with a kernel of this very Python, whatever kernels are installed, and its environment."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, environment, output, owner, **_):  # type: ignore[no-untyped-def]
        specs = KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)
        manager = AsyncKernelManager(kernel_name=kernel_name, kernel_spec_manager=specs)

        def kill_if_stopped(notebook: object) -> None:
            # Its owner may be stopped while it starts, when there is no process yet to kill.
            if owner in _stopped:
                _kill(manager)

        client = PapermillNotebookClient(
            nb_man,
            km=manager,
            timeout=None,
            startup_timeout=120,
            shutdown_kernel="immediate",
            store_widget_state=False,
            extra_arguments=[*_QUIET, *_ends_with(os.getpid())],
            on_notebook_start=kill_if_stopped,
            stdout_file=output,
            stderr_file=output,
        )
        _kernels.append((owner, manager))
        try:
            client.execute(env=os.environ | environment, cwd=str(ROOT), cleanup_kc=True)
        finally:
            _kernels.remove((owner, manager))


def _ends_with(parent: int) -> list[str]:
    """Arguments of a kernel that ends as it starts, where the process that started it is gone by then.

    A started kernel looks for another parent itself; before, it knows an orphan only by init as its parent.
    """
    if os.name == "nt":  # where a launcher stands between the two
        return []
    return [f"--IPKernelApp.exec_lines=if __import__('os').getppid() != {parent}: __import__('os')._exit(1)"]


papermill_engines.register("ann-snn", _KernelEngine)


def stop_kernels(owner: str) -> None:
    """Kill this owner's kernels in this process: their `execute`, and any later one, raises KeyboardInterrupt."""
    _stopped.add(owner)
    for its, manager in list(_kernels):
        if its == owner and manager.has_kernel:
            _kill(manager)


def is_stopped(owner: str) -> bool:
    """Whether this owner's kernels were stopped in this process."""
    return owner in _stopped


def _kill(manager: AsyncKernelManager) -> None:
    cast(Any, manager.provisioner).process.kill()


def execute(
    notebook: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    parameters: Mapping[str, Any],
    tell: Callable[[str], object] = lambda line: None,
    environment: Mapping[str, str] | None = None,
    owner: str = "",
) -> Path:
    """Run a notebook in a fresh kernel, from the repository root, into folder/notebooks/<name>; that path.

    - tell: called with each line that the notebook prints
    - environment: added to that of the kernel
    - owner: by which `stop_kernels` finds it

    Raises ValueError for a parameter that the notebook does not take, NotebookFailed for an error in it, whose
    output is kept too, and KeyboardInterrupt once the owner's kernels were stopped.
    """
    notebook = Path(notebook)
    checked = check_parameters(parameters, [notebook])
    target = Path(folder) / "notebooks" / notebook.name
    settings = _BATCH | {"ANN_SNN_NOTEBOOK": str(notebook.resolve())} | dict(environment or {})
    with tempfile.TemporaryDirectory(prefix="ann-snn-") as scratch:
        work = Path(scratch) / notebook.name
        failure = _run(notebook, work, checked, environment=settings, output=Lines(tell), owner=owner)
        executed = _without_widgets(nbformat.read(work, as_version=4))
    # Paths of this machine say nothing about the run.
    executed.metadata.papermill.update(input_path=notebook.name, output_path=notebook.name)
    with atomic(target) as temporary:
        temporary.write_text(nbformat.writes(executed) + "\n", encoding="utf-8")
    if failure:
        raise NotebookFailed(notebook.stem, *_failing_cell(executed, notebook), *failure, target)
    return target


def _run(
    notebook: Path, work: Path, parameters: dict[str, Any], *, owner: str, **options: Any
) -> tuple[str, str] | None:
    """Execute a notebook into the file `work`; the type and text of the error that it stopped at, if any.

    options: environment and output, for `_KernelEngine`.
    """
    for attempt in (1, 2):
        if owner in _stopped:
            raise KeyboardInterrupt
        try:
            # In a context of its own: there jupyter_core keeps its event loop, which two threads cannot share.
            contextvars.Context().run(_execute_and_close, notebook, work, parameters, owner=owner, **options)
            return None
        except PapermillExecutionError as error:
            return error.ename, error.evalue
        except RuntimeError as error:
            if owner in _stopped:
                raise KeyboardInterrupt from None
            if isinstance(error, DeadKernelError):
                return "DeadKernelError", "the kernel died: it may have run out of memory"
            # A kernel that lost its port to another program before it could answer.
            if attempt == 2 or "Kernel died before" not in str(error):
                return type(error).__name__, str(error)
    return None


def _execute_and_close(*arguments: Any, **options: Any) -> None:
    try:
        quiet: dict[str, Any] = {"progress_bar": False, "autosave_cell_every": 0}
        kernel = {"engine_name": "ann-snn", "kernel_name": "python3", "language": "python"}
        papermill.execute_notebook(*arguments, **kernel, **quiet, **options)
    finally:
        # The loop's files would stay open until garbage is collected, which hundreds of notebooks later is seldom.
        loop = ensure_event_loop()
        if not loop.is_running():
            asyncio.set_event_loop(None)
            loop.close()


def _without_widgets(notebook: Any) -> Any:
    """Drop the outputs that are only the shell of a widget, such as a progress bar's: their kernel is gone."""
    for cell in notebook.cells:
        if "outputs" in cell:
            kinds = [set(output.get("data", {})) for output in cell.outputs]
            kept = [WIDGET_MIME not in kind or bool(kind - {WIDGET_MIME, "text/plain"}) for kind in kinds]
            cell.outputs = [output for output, keep in zip(cell.outputs, kept, strict=True) if keep]
    notebook.metadata.pop("widgets", None)
    return notebook


def _failing_cell(executed: Any, notebook: Path) -> tuple[int | None, str]:
    order = [cell.get("id") for cell in nbformat.read(notebook, as_version=4).cells]
    states = [(cell, cell.metadata.get("papermill", {})) for cell in executed.cells]
    raised = [cell for cell, state in states if state.get("exception")]
    # Where the kernel died no cell is marked: it is the last one that was begun.
    failing = raised or [cell for cell, state in states if state.get("start_time")][-1:]
    if not failing:
        return None, ""
    cell = failing[0]
    return (order.index(cell.id) if cell.get("id") in order else None), cell.source
