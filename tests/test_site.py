"""A run's site: every notebook has a page, every link leads to a file of the site, and nothing is fetched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lab
import nbformat
import pytest
from bs4 import BeautifulSoup
from toy_notebooks import write_notebook

from ann_snn_utils.batch.pages import PLOTLY_JS, PLOTLY_MIME, _exporter, check_site, write_page, write_site

FIGURE = {"data": [{"y": [1, 2]}], "layout": {"title": {"text": "Two points"}}}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    sources, run = tmp_path / "notebooks", tmp_path / "run"
    text = "# {} · {}\n\n[01](01_a.ipynb) [02](02_b.ipynb) [09](09_z.ipynb)\n\n**Question.** Why {}?"
    for number, name in (("01", "a"), ("02", "b")):
        opening = text.format(number, name.upper(), name)
        write_notebook(sources / f"{number}_{name}.ipynb", "n = 1", "show()", text=opening)
    executed = nbformat.read(sources / "01_a.ipynb", as_version=4)
    executed.cells[-1].outputs = [nbformat.v4.new_output("display_data", data={PLOTLY_MIME: FIGURE})]
    (run / "notebooks").mkdir(parents=True)
    nbformat.write(executed, run / "notebooks" / "01_a.ipynb")
    return write_site(run, tmp_path / "site", sources).parent


def links(page: Path) -> set[str]:
    found = re.findall(r'(?:href|src)="([^"]+)"', page.read_text(encoding="utf-8"))
    return {link.partition("#")[0] for link in found if not link.startswith(("#", "data:"))}


def test_every_link_of_every_page_leads_to_a_file_of_the_site(site: Path) -> None:
    pages = {path.name for path in site.iterdir()}
    assert pages == {"01_a.html", "02_b.html", "index.html", "gallery.html", PLOTLY_JS}
    for page in pages - {PLOTLY_JS}:
        assert links(site / page) == pages


def test_the_index_tells_each_notebooks_question_and_which_was_not_run(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    assert re.search(r'<a href="01_a.html">01 · A</a></td>\s*<td>Why a\?', index)
    assert re.search(r'<a href="02_b.html">02 · B</a>, not run here</td>\s*<td>Why b\?', index)
    assert "was not run here" in (site / "02_b.html").read_text(encoding="utf-8")


def test_the_gallery_holds_the_figures_of_the_notebooks_that_were_run(site: Path) -> None:
    gallery = (site / "gallery.html").read_text(encoding="utf-8")
    assert gallery.count("Plotly.newPlot") == 1 and "Two points" in gallery and "In&nbsp;[" not in gallery
    assert gallery.count("<h2") == 1


def test_a_page_is_what_nbconvert_makes_of_its_cells_down_to_the_keyboard_and_the_screen_reader(
    tmp_path: Path,
) -> None:
    data: list[dict[str, Any]] = [
        {"image/png": "AAAA"},
        {"text/html": '<img src="x.png" alt="x">'},
        {"text/plain": "1"},
    ]
    cell = nbformat.v4.new_code_cell(
        "show()", outputs=[nbformat.v4.new_output("display_data", one) for one in data]
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 00"), cell])
    page = write_page(notebook, tmp_path / "page.html").read_text(encoding="utf-8")
    about = {"metadata": {"name": "page"}, "pages": {}}
    theirs, _ = _exporter().from_notebook_node(notebook, about)
    assert str(BeautifulSoup(page, "html.parser")) == theirs
    assert page.count(' tabindex="0"') == 5 and page.count(" alt=") == 2


def test_other_pages_and_files_are_not_replaced_by_a_site_and_a_site_is(tmp_path: Path, site: Path) -> None:
    (tmp_path / "mine").mkdir()
    index = tmp_path / "mine" / "index.html"
    index.write_text("of my own")
    for place, said in ((index.parent, "holds something else"), (index, "is a file")):
        with pytest.raises(ValueError, match=f"{place} {said}"):
            check_site(place)
    # Two pages of another site, and a single file.
    for name in ("gallery.html", "01_a.html"):
        (tmp_path / "mine" / name).write_text("of my own")
        with pytest.raises(ValueError, match="holds something else"):
            check_site(index.parent)
        index.unlink(missing_ok=True)
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere" / "else")
    for place in (tmp_path / "mine" / "gallery.html" / "site", tmp_path / "lost"):
        with pytest.raises(ValueError, match=f"{place} cannot be written below"):
            check_site(place)
    (tmp_path / "hidden" / ".git").mkdir(parents=True)
    for place in (site, tmp_path / "new", tmp_path / "hidden"):
        check_site(place)


@pytest.mark.slow
def test_figures_are_drawn_when_they_come_near_and_all_of_them_before_printing(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="it needs `pip install playwright`")
    if lab.find_browser() is None:
        pytest.skip("no Chromium here")
    outputs = [nbformat.v4.new_output("display_data", data={PLOTLY_MIME: FIGURE}) for _ in range(20)]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=outputs)])
    path = write_page(notebook, tmp_path / "page.html")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=lab.find_browser(), args=lab.FLAGS)
        page = browser.new_page(viewport={"width": 800, "height": 600})
        page.set_default_timeout(1000 * lab.PATIENCE)
        page.goto(path.as_uri())
        drawn = page.locator(".js-plotly-plot")
        drawn.first.wait_for()
        assert drawn.count() < 20
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.wait_for_function("() => document.querySelectorAll('.js-plotly-plot').length == 20")
        browser.close()
