"""A run's pages as a site of plain files: an index, every notebook's page, and all their figures on one page."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ..runs.folder import RESULTS_FILE
from ..runs.parameters import NOTEBOOKS, ordered_notebooks
from ..runs.report import run_card
from ..tables import markdown_table
from .pages import PLOTLY_MIME, read_notebook, write_page

# By which an index is known again.
_OPENING = "The study, notebook by notebook"

_NOT_RUN = "*Text and code only: this notebook was not run here.*"


def check_site(site: Path) -> None:
    """Raise ValueError for the path of a file, and for a folder that holds anything but such a site."""
    if site.exists() and not site.is_dir():
        raise ValueError(f"{site} is a file: give the path of a new folder")
    above = next(path for path in (site, *site.absolute().parents) if path.exists())
    if site.is_symlink() and not site.exists() or not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"{site} cannot be written below {above}: give the path of a new folder")
    index = site / "index.html"
    ours = index.is_file() and _OPENING in index.read_text(encoding="utf-8", errors="replace")
    # What is hidden, such as .git and .nojekyll, stays as it is.
    if site.is_dir() and not ours and any(not path.name.startswith(".") for path in site.iterdir()):
        raise ValueError(f"{site} holds something else than a study's pages: give the path of a new folder")


def write_site(run: Path, site: Path | None = None, folder: str | os.PathLike[str] = NOTEBOOKS) -> Path:
    """Write the pages of the run in a folder, and return the path of their index.

    Every notebook of `folder` has a page, with its outputs where the run has executed it, so that every link leads
    somewhere. The pages need no server and no network. site: where they go, <run>/html unless given.
    """
    site = site or run / "html"
    sources = ordered_notebooks(folder)
    names = {"index": "Index"} | {path.stem: path.stem.replace("_", " ") for path in sources}
    names["gallery"] = "Figures"
    rows, figures = [], list[Any]()
    for source in sources:
        executed = run / "notebooks" / source.name
        there = executed.is_file()
        notebook = read_notebook(executed if there else source)
        if there:
            figures += _figures(notebook, source.stem)
        else:
            notebook.cells.insert(1, new_markdown_cell(_NOT_RUN))
        write_page(notebook, site / f"{source.stem}.html", names)
        rows.append(_row(source, there))
    title = f"# {run.name}\n\n{_OPENING}; [all its figures](gallery.html) on one page."
    index = [new_markdown_cell(text) for text in (title, markdown_table(rows), *_card(run))]
    write_page(new_notebook(cells=index), site / "index.html", names)
    gallery = [new_markdown_cell("# Figures\n\nPoint at a figure for its numbers."), *figures]
    write_page(new_notebook(cells=gallery), site / "gallery.html", names)
    return site / "index.html"


def _row(source: Path, executed: bool) -> dict[str, str]:
    opening = read_notebook(source).cells[0].source
    title, asked = re.search(r"^# (.+)", opening), re.search(r"\*\*Question\.\*\* (.+)", opening)
    page = f"[{title[1] if title else source.stem}]({source.stem}.html){'' if executed else ', not run here'}"
    return {"notebook": page, "question": asked[1] if asked else ""}


def _card(run: Path) -> list[str]:
    if not (run / RESULTS_FILE).is_file():
        return []
    try:
        told = run_card(run)
    except ValueError as error:
        told = str(error)
    return [f"```\n{told}\n```"]


def _figures(executed: Any, stem: str) -> list[Any]:
    """The figures of an executed notebook as cells without code, below a link to its page."""
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    outputs = [output for output in outputs if PLOTLY_MIME in output.get("data", {})]
    heading = f"## [{stem.replace('_', ' ')}]({stem}.html)"
    return [new_markdown_cell(heading), *(new_code_cell(outputs=[one]) for one in outputs)] if outputs else []
