"""Small notebooks that the tests write and run."""

from __future__ import annotations

from pathlib import Path

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
