"""Small notebooks that the tests write and run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat


def write_notebook(path: Path, parameters: str, *code: str, text: str = "# Toy") -> Path:
    """Write a notebook with a `parameters` cell after a text cell, and one cell for each piece of code."""
    cell = nbformat.v4.new_code_cell(parameters)
    cell.metadata["tags"] = ["parameters"]
    cells = [nbformat.v4.new_markdown_cell(text), cell, *map(nbformat.v4.new_code_cell, code)]
    for index, cell in enumerate(cells):
        cell.id = f"cell-{index}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def run_here(
    notebook: Path,
    folder: Path,
    parameters: Mapping[str, Any],
    tell: Callable[[str], object] = lambda line: None,
    environment: object = None,
    owner: str = "",
) -> Path:
    """What `batch.execute.execute` does in a kernel, in this thread: its cells in order, and no outputs kept.

    For tests of what is made when, and from what: a kernel takes a second to start and adds nothing to them.
    """
    from ann_snn_utils.batch.execute import NotebookFailed

    target = folder / "notebooks" / notebook.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(notebook, target)
    names: dict[str, Any] = {"print": lambda *words, **_: tell(" ".join(map(str, words)))}
    for number, cell in enumerate(nbformat.read(notebook, as_version=4).cells):
        if cell.cell_type == "code":
            try:
                exec(cell.source, names)
            except Exception as error:
                said = type(error).__name__, str(error)
                raise NotebookFailed(notebook.stem, number, cell.source, *said, target) from None
        if "parameters" in cell.metadata.get("tags", []):
            names |= parameters
    return target
