"""Notebooks in batch: parameters are checked first, stages run once, failures keep their output."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from toy_notebooks import write_notebook

from ann_snn_utils.batch import study as batch
from ann_snn_utils.batch.execute import WIDGET_MIME, Lines, NotebookFailed, execute
from ann_snn_utils.batch.pages import (
    PLOTLY_JS,
    PLOTLY_MIME,
    figure_html,
    mathml,
    read_notebook,
    readable,
    write_page,
)
from ann_snn_utils.runs.manifest import read_manifest
from ann_snn_utils.runs.parameters import check_parameters, ordered_notebooks, parameters_of, select_notebooks

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("runs")]
MAKE = """
import os
from ann_snn_utils.runs.folder import run_folder
from ann_snn_utils.runs.manifest import record_stage
folder = run_folder(run, create=True)
(folder / "ann.safetensors").write_text(f"{dataset} {epochs}")
print(f"epoch {epochs}/{epochs}")
record_stage(folder, "01_train_ann", parameters={"dataset": dataset}, artifacts=["ann.safetensors"])
"""
USE = """
from ann_snn_utils.runs.folder import require, run_folder
from ann_snn_utils.runs.manifest import record_stage
folder = run_folder(run)
text = require(folder, "ann.safetensors").read_text()
(folder / "qann.safetensors").write_text(f"{text} {k}")
record_stage(folder, "02_quantize", parameters={"k": k}, inputs=["ann.safetensors"], artifacts=["qann.safetensors"])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two stages that depend on each other, and a notebook without artifacts."""
    folder = tmp_path / "notebooks"
    first = 'run = ""\ndataset = "digits"  # a name\nepochs = 2\nrate = 0.5\nquick = False'
    write_notebook(folder / "01_train_ann.ipynb", first, MAKE)
    write_notebook(folder / "02_quantize.ipynb", 'run = ""\nk = 0\nternary = True', USE)
    write_notebook(folder / "06_compare_runs.ipynb", 'run = ""', "run")
    write_notebook(folder / "scratch.ipynb", "a = 1")
    return folder


def test_notebooks_are_ordered_by_their_number_and_others_are_left_out(folder: Path) -> None:
    assert [path.stem for path in ordered_notebooks(folder)] == ["01_train_ann", "02_quantize", "06_compare_runs"]


@pytest.mark.parametrize(
    "selection, numbers", [("00-04,06", "01 02 06"), ("02", "02"), ("06,01", "01 06"), ("02_quantize", "02")]
)
def test_a_selection_names_numbers_ranges_or_names(folder: Path, selection: str, numbers: str) -> None:
    assert [path.stem[:2] for path in select_notebooks(selection, folder)] == numbers.split()


@pytest.mark.parametrize("selection", ["07", "", "00", "quantize", "04-02", "1"])
def test_a_selection_that_names_no_notebook_is_refused_with_those_there_are(folder: Path, selection: str) -> None:
    with pytest.raises(ValueError, match="names no notebook.*01_train_ann, 02_quantize"):
        select_notebooks(selection, folder)


def test_parameters_are_read_with_their_defaults_and_comments(folder: Path) -> None:
    parameters = parameters_of(folder / "01_train_ann.ipynb")
    assert {name: p.default for name, p in parameters.items()} == {
        "run": "",
        "dataset": "digits",
        "epochs": 2,
        "rate": 0.5,
        "quick": False,
    }
    assert parameters["dataset"].help == "a name"


@pytest.mark.parametrize("line", ["k = n + 1", "import os", "a = b = 1", "f(2)", "x[0] = 1", "k: int"])
def test_a_parameter_that_is_no_literal_is_refused(tmp_path: Path, line: str) -> None:
    notebook = write_notebook(tmp_path / "01_x.ipynb", f"n = 1\n{line}")
    with pytest.raises(ValueError, match=f"01_x.ipynb: {re.escape(repr(line))}"):
        parameters_of(notebook)


def test_a_negative_and_an_annotated_literal_are_parameters(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "01_x.ipynb", "n = -1\nm: float = 2.5  # metres")
    assert {name: p.default for name, p in parameters_of(notebook).items()} == {"n": -1, "m": 2.5}


def test_an_unknown_parameter_is_refused_with_the_nearest_names_and_their_notebooks(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"'epoch'.*did you mean epochs \(01_train_ann\)\?"):
        check_parameters({"epoch": 1}, ordered_notebooks(folder))
    with pytest.raises(ValueError, match=r"'zzz'.*choose from dataset \(01_train_ann\), epochs"):
        check_parameters({"zzz": 1}, ordered_notebooks(folder))


@pytest.mark.parametrize(
    "name, given, wanted",
    [
        ("k", "2", 2),
        ("k", "-1", -1),
        ("rate", "1", 1.0),
        ("rate", 2, 2.0),
        ("ternary", "false", False),
        ("ternary", "Yes", True),
        ("dataset", "7", "7"),
        ("rate", "1e-3", 0.001),
        ("quick", True, True),
    ],
)
def test_values_take_the_type_of_the_default(folder: Path, name: str, given: object, wanted: object) -> None:
    value = check_parameters({name: given}, ordered_notebooks(folder))[name]
    assert value == wanted and type(value) is type(wanted)


@pytest.mark.parametrize(
    "name, value",
    [
        ("k", "two"),
        ("k", 1.5),
        ("k", True),
        ("k", "1.0"),
        ("rate", "fast"),
        ("rate", "nan"),
        ("rate", True),
        ("ternary", "maybe"),
        ("ternary", 1),
        ("dataset", 3),
        ("dataset", None),
    ],
)
def test_a_value_of_another_type_is_refused_with_the_notebook_that_takes_it(
    folder: Path, name: str, value: object
) -> None:
    with pytest.raises(ValueError, match=f"{name}={re.escape(repr(value))}: 0[12]_.* takes"):
        check_parameters({name: value}, ordered_notebooks(folder))


def test_nothing_runs_where_a_parameter_is_wrong(folder: Path, runs: Path) -> None:
    for parameters in ({"kk": 1}, {"k": "two"}):
        with pytest.raises(ValueError):
            batch.study(parameters, folder=folder, progress=False)
    with pytest.raises(ValueError, match="two names"):
        batch.study({"run": "a"}, run="b", folder=folder, progress=False)
    assert not runs.exists()


@pytest.mark.parametrize("given, said", [({"dataset": "mnits"}, "'mnits'"), ({"batch_size": -1}, "batch_size=-1")])
def test_a_study_of_what_cannot_be_made_leaves_no_run_folder(given: dict, said: str, runs: Path) -> None:
    with pytest.raises(ValueError, match=f"cannot be made: .*{said}"):
        batch.study(given, progress=False)
    assert not runs.exists()


def test_a_study_of_a_bundled_network_writes_nothing_where_a_parameter_is_wrong(runs: Path) -> None:
    with pytest.raises(ValueError, match="run bundled:digits-lenet-k0 cannot be made: time_steps=0"):
        batch.study({"time_steps": 0}, run="bundled:digits-lenet-k0", notebooks="04", progress=False)
    assert not runs.exists()


def test_a_study_of_notebooks_whose_inputs_nothing_makes_leaves_no_run_folder(folder: Path, runs: Path) -> None:
    with pytest.raises(FileNotFoundError, match="ann.safetensors is missing: notebook 01_train_ann makes it"):
        batch.study({}, run="new", folder=folder, notebooks="02", progress=False)
    assert not runs.exists()


def test_two_folders_of_images_of_one_name_are_two_runs(tmp_path: Path, folder: Path, monkeypatch) -> None:
    named: list[str] = []

    def rehearse(runs, notebooks):
        named.extend(runs)
        raise ValueError("enough")

    monkeypatch.setattr(batch, "rehearse", rehearse)
    for place in ("a", "b", "a"):
        (tmp_path / place / "images").mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(tmp_path / place)
        with pytest.raises(ValueError, match="enough"):
            batch.study({"dataset": "images"}, folder=folder, progress=False)
    assert named[0] == named[2] != named[1]


def test_a_data_set_beside_the_caller_is_that_one_in_a_kernel_elsewhere_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(batch, "rehearse", lambda runs, notebooks: asked.append(runs["x"]["dataset"]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        batch.study({"dataset": "pictures"}, run="x", folder=folder, progress=False)
    assert asked == [str(tmp_path / "pictures")]


def test_a_study_runs_each_stage_once_and_again_only_where_something_changed(
    folder: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def kept() -> dict[str, bool]:
        lines = capsys.readouterr().err.splitlines()
        names = ("01_train_ann", "02_quantize", "06_compare_runs")
        return {name[:2]: any(name in line and "kept" in line for line in lines) for name in names}

    target = batch.study({"epochs": "3"}, folder=folder)
    lines = capsys.readouterr().err.splitlines()
    assert any(re.match(r"\[1/3\] 01_train_ann +\d+\.\d s  epoch 3/3$", line) for line in lines), lines
    assert target.parent == runs and (target / "qann.safetensors").read_text() == "digits 3 0"
    assert sorted(path.name for path in (target / "html").iterdir()) == [
        "01_train_ann.html",
        "02_quantize.html",
        "06_compare_runs.html",
        "gallery.html",
        "index.html",
        PLOTLY_JS,
    ]
    executed = nbformat.read(target / "notebooks" / "06_compare_runs.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].data["text/plain"] == repr(target.name)
    assert str(target) not in json.dumps(executed.metadata)
    request = read_manifest(target).stages["01_train_ann"].request
    assert request["parameters"] == {"dataset": "digits", "epochs": 3, "rate": 0.5, "quick": False}

    batch.study({"epochs": 3}, folder=folder, notebooks="01-02")
    assert kept() == {"01": True, "02": True, "06": False}
    batch.study({"epochs": 3, "k": 1}, run=target.name, folder=folder, notebooks="01-02")
    told = capsys.readouterr().err
    assert re.search(r"01_train_ann .* kept", told) and not re.search(r"02_quantize .* kept", told)
    assert re.search(r"02_quantize .* s  replaces qann.safetensors, which was made with k=0, not 1\n", told)
    assert (target / "qann.safetensors").read_text() == "digits 3 1"
    (target / "ann.safetensors").write_text("changed by hand")
    batch.study({"epochs": 3}, run=target.name, folder=folder, notebooks="01")
    assert kept() == {"01": False, "02": False, "06": False}
    assert (target / "ann.safetensors").read_text() == "digits 3"


def test_a_failing_notebook_keeps_its_output_and_names_the_cell(tmp_path: Path) -> None:
    code = "def f():\n    raise KeyError('lost')\n\nprint('before')\nf()"
    notebook = write_notebook(tmp_path / "in" / "02_quantize.ipynb", 'run = ""', "1 + 1", code, "print('never')")
    with pytest.raises(NotebookFailed) as failed:
        execute(notebook, tmp_path / "out", {"run": "x"})
    error = failed.value
    assert (error.notebook, error.cell, error.ename, error.evalue) == ("02_quantize", 3, "KeyError", "'lost'")
    assert error.source == code and error.path == tmp_path / "out" / "notebooks" / "02_quantize.ipynb"
    assert "02_quantize failed in cell 3: KeyError: 'lost'" in str(error) and str(error.path) in str(error)
    text = error.path.read_text()
    assert "before" in text and "KeyError" in text
    assert [path.name for path in error.path.parent.iterdir()] == [error.path.name]


def test_a_kernel_that_dies_is_reported_with_the_cell_that_ran(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "01_x.ipynb", 'run = ""', "print('alive')", "import os\nos._exit(9)")
    with pytest.raises(NotebookFailed, match="the kernel died") as failed:
        execute(notebook, tmp_path, {})
    assert failed.value.cell == 3 and "alive" in failed.value.path.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="orphans have one parent, init, here")
def test_a_kernel_whose_sweep_is_killed_while_it_starts_ends_where_init_is_not_the_parent_of_orphans(
    tmp_path: Path,
):
    notebook = write_notebook(tmp_path / "01_a.ipynb", 'run = ""', "pass")
    code = "import sys; from ann_snn_utils.batch.execute import execute; execute(sys.argv[1], sys.argv[2], {})"
    become_subreaper, prctl = 36, ctypes.CDLL(None).prctl
    kernels: list[psutil.Process] = []
    prctl(become_subreaper, 1)
    try:
        process = subprocess.Popen([sys.executable, "-c", code, str(notebook), str(tmp_path)])
        while not (kernels := [c for c in psutil.Process(process.pid).children() if "-f" in c.cmdline()]):
            assert process.poll() is None
        # So that it cannot look at its parent before that is gone.
        kernels[0].suspend()
        process.kill()
        process.wait()
        kernels[0].resume()
        assert kernels[0].ppid() == os.getpid()
        kernels[0].wait(60)
    finally:
        prctl(become_subreaper, 0)
        for left in kernels:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()


def test_a_notebook_runs_with_this_python_from_the_repository_root_and_shows_it_is_a_batch(tmp_path: Path) -> None:
    code = (
        "import os, sys\nprint(sys.executable)\nprint(os.getcwd())\n"
        "print(os.environ['PLOTLY_RENDERER'], os.environ['ANN_SNN_BATCH'])\nprint(n, file=sys.stderr)"
    )
    notebook = write_notebook(tmp_path / "00_x.ipynb", "n = 1", code)
    lines: list[str] = []
    execute(notebook, tmp_path, {"n": "5"}, tell=lines.append)
    assert lines == [sys.executable, str(Path(batch.__file__).parents[2]), "plotly_mimetype 1", "5"]


def test_only_complete_lines_of_progress_are_shown() -> None:
    stream = io.StringIO()
    shown = Lines(lambda line: print(line, file=stream))
    for text in ("epo", "ch 1\nbar  10%\rbar  90%", "\rbar 100%\n", "\n\x1b[32mgreen\x1b[0m\n", "rest"):
        shown.write(text)
    assert stream.getvalue().splitlines() == ["epoch 1", "bar 100%", "green"]


def executed_notebook(path: Path, text: str, *outputs: dict) -> nbformat.NotebookNode:
    notebook = nbformat.read(write_notebook(path, 'run = ""', "show()", text=text), as_version=4)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("display_data", data=data) for data in outputs]
    return notebook


def test_a_page_needs_nothing_from_the_network_and_shows_figures_and_equations(tmp_path: Path) -> None:
    figure = {"data": [{"name": "</script>", "y": [1, 2]}], "layout": {"height": 321}}
    notebook = executed_notebook(
        tmp_path / "03_x.ipynb",
        "With $U \\ge \\theta_j$ and\n\n$$\\frac{\\sigma}{\\gamma}$$\n\n`a $b$`",
        {PLOTLY_MIME: figure, "text/plain": "Figure()"},
        {"text/latex": "$$x^2$$", "text/plain": "x"},
        {WIDGET_MIME: {"model_id": "1"}, "text/plain": "0%|  | 0/3"},
    )
    page = write_page(notebook, tmp_path / "html" / "03_x.html")
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(?:https?:)?//", text)
    assert not re.findall(r"(?:import|@import|url)\s*\(?[\"']?https?://", text)
    assert text.count("<math") == 3 and "<mfrac>" in text and "<code>a $b$</code>" in text
    assert re.search(r'Plotly\.newPlot\(\s*"[\w-]+",\s*\[\{"name":"\\u003c\\u002fscript\\u003e","y":\[1,2\]', text)
    assert "height:321px" in text and f'src="{PLOTLY_JS}"' in text and "0/3" not in text
    assert (page.parent / PLOTLY_JS).stat().st_size > 1e6 and len(text) < 1e6


def test_an_output_that_is_more_than_a_widget_is_kept(tmp_path: Path) -> None:
    shown = {WIDGET_MIME: {"model_id": "1"}, "text/html": "<b>still</b>", "text/plain": ""}
    notebook = executed_notebook(tmp_path / "03_x.ipynb", "x", shown)
    assert "<b>still</b>" in write_page(notebook, tmp_path / "03_x.html").read_text(encoding="utf-8")


def test_code_and_raw_cells_are_text_on_a_page(tmp_path: Path) -> None:
    cells = [
        nbformat.v4.new_code_cell("a < b  # <script>1</script>"),
        nbformat.v4.new_raw_cell("<script>2</script>"),
    ]
    cells[1].metadata["raw_mimetype"] = "text/html"
    text = write_page(nbformat.v4.new_notebook(cells=cells), tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<script>1" not in text and "<script>2" not in text and "&lt;script&gt;" in text


def test_a_cell_that_jupyterlab_folds_is_folded_on_its_page(tmp_path: Path) -> None:
    cells = [
        nbformat.v4.new_code_cell("seen = 1"),
        nbformat.v4.new_code_cell("folded = 2", metadata={"jupyter": {"source_hidden": True}}),
    ]
    text = write_page(nbformat.v4.new_notebook(cells=cells), tmp_path / "03_x.html").read_text(encoding="utf-8")
    before, inside = text.split('<details class="code">')
    assert "seen" in before and "folded" not in before and "folded" in inside[: inside.index("</details>")]


def test_the_frames_of_a_figure_come_along_and_wait_for_the_reader(tmp_path: Path) -> None:
    figure = {"data": [{"y": [1]}], "layout": {}, "frames": [{"name": "2", "data": [{"y": [5]}]}]}
    notebook = executed_notebook(tmp_path / "03_x.ipynb", "x", {PLOTLY_MIME: figure, "text/plain": "Figure()"})
    text = write_page(notebook, tmp_path / "03_x.html").read_text(encoding="utf-8")
    assert re.search(r"Plotly\.addFrames\(.*5", text) and "Plotly.animate" not in text


def test_a_link_to_a_notebook_leads_to_its_page_where_there_is_one(tmp_path: Path) -> None:
    notebook = executed_notebook(
        tmp_path / "03_x.ipynb", "[one](01_a.ipynb), [two](02_b.ipynb#c), [three](09_z.ipynb)"
    )
    text = write_page(notebook, tmp_path / "03_x.html", {"01_a": "a", "02_b": "b"}).read_text(encoding="utf-8")
    assert '<a href="01_a.html">one</a>, <a href="02_b.html#c">two</a>, three' in text


def test_a_file_that_is_no_notebook_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.ipynb").write_text("hello")
    with pytest.raises(ValueError, match="x.ipynb cannot be read as a notebook"):
        read_notebook(tmp_path / "x.ipynb")


def test_figures_of_one_page_have_names_of_their_own() -> None:
    names = {re.search(r'id="(\S+)"', figure_html({"data": []}))[1] for _ in range(20)}
    assert len(names) == 20


@pytest.mark.parametrize(
    "latex",
    [
        r"\begin{aligned} a &= b \\ c &= d\end{aligned}",
        r"\begin{cases} 1 & x>0\\[2pt] 0 & x\le0 \end{cases}",
        r"\hat y = \arg\max_c x_c",
        r"\lceil\theta_j\rceil",
    ],
)
def test_equations_become_mathml(latex: str) -> None:
    element = mathml(latex)
    assert element.startswith("<math") and "\\" not in element and "2pt" not in element


@pytest.mark.parametrize("latex", [r"\frac{", r"\nonsense x", "a & b"])
def test_an_equation_that_cannot_be_converted_is_quoted_and_shown_as_its_source(latex: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(latex))):
        mathml(latex)
    assert readable(latex).startswith("<code>")
