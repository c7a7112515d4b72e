"""What must hold for every module and every notebook of the project."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import nbformat
import pytest

from ann_snn_utils.batch.pages import mathml
from ann_snn_utils.runs.parameters import parameters_of

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ann_snn_utils"
MODULES = sorted(PACKAGE.rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

NOTEBOOK_KEYS = {"kernelspec", "language_info"}
CELL_KEYS = {"tags", "editable", "slideshow", "jupyter"}
HEAVY = ("torch", "numpy", "pandas", "plotly", "ipywidgets", "papermill", "sklearn", "numba", "distributed", "rich")


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def calls(path: Path) -> list[ast.Call]:
    return [node for node in nodes(path) if isinstance(node, ast.Call)]


def test_a_room_says_what_it_holds_and_imports_nothing() -> None:
    for charter in PACKAGE.rglob("__init__.py"):
        tree = ast.parse(charter.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), charter
        if charter.parent.name not in ("figures", "explore", PACKAGE.name):
            assert len(tree.body) == 1, f"{charter}: a room's charter imports nothing, so that --help stays quick"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_holds_one_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 430, "split it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_read_from_a_file_is_ever_executed(path: Path) -> None:
    for call in calls(path):
        text = ast.unparse(call.func)
        words = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert text not in ("eval", "exec", "compile", "os.system", "joblib.load", "yaml.load"), text
        # data/published.py knows the digest of every byte that it unpickles: see test_torchvision_sets.py.
        unpickles = re.fullmatch(r"(\w*pickle|dill|marshal)\.(loads?|Unpickler)", text)
        assert not unpickles or name_of(path) == "data/published.py", text
        assert text != "torch.load" or words.get("weights_only") == "True", "torch.load needs weights_only=True"
        assert words.get("allow_pickle", "False") == "False", f"{text}(allow_pickle=…)"
        assert words.get("shell", "False") == "False", f"{text}(shell=…)"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_listens_on_a_network_port_or_reads_pickles_but_through_the_guarded_reader(path: Path) -> None:
    names = {
        alias.name.split(".")[0] for node in nodes(path) if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {
        str(node.module).split(".")[0]
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and not node.level
    }
    assert not names & {"dill", "marshal", "shelve", "http", "socketserver", "xmlrpc", "flask", "tornado"}
    # tensorlayer.py replaces everything that a pickle may name; data/published.py knows the digest of all that it
    # reads, and sets a time limit, nothing else.
    assert "pickle" not in names or name_of(path) in ("ann/tensorlayer.py", "data/published.py")
    assert "socket" not in names or path.name == "published.py"
    for call in calls(path):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        assert name not in ("bind", "listen", "create_server", "start_server", "serve_forever"), name


def test_jupyterlab_keeps_its_own_address_and_token() -> None:
    started = [path for path in (ROOT / "Makefile", ROOT / "README.md", ROOT / ".ci" / "run") if path.is_file()]
    for path in started:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"--ip|0\.0\.0\.0|token *= *['\"]?['\"]|--allow-root|disable_check_xsrf", text), path
    assert not list(ROOT.glob("jupyter*config*")), "a configuration here would change what `make lab` opens"


def test_importing_the_package_costs_nothing() -> None:
    code = f"import sys, ann_snn_utils, ann_snn_utils.cli\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_networks_are_simulated_and_trained_without_what_takes_seconds_to_import() -> None:
    code = """if True:
        import sys
        from ann_snn_utils import build_ann, convert, load_dataset, load_pretrained, simulate, train
        ann, test = load_pretrained("bundled:digits-lenet-k0"), load_dataset("digits", limit=2)
        simulate(convert(ann), test)
        for optimizer in ("adamw", "muon"):
            train(build_ann("2C3-4", (1, 28, 28), 10), test, epochs=1, optimizer=optimizer, progress=False)
        print([name for name in ("torch._dynamo", "sklearn", "rfc3987_syntax", "plotly") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_names_that_the_package_offers_exist() -> None:
    import ann_snn_utils

    for name in ann_snn_utils.__all__:
        assert getattr(ann_snn_utils, name).__doc__, name


def test_there_are_notebooks() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == sorted({path.stem[:2] for path in NOTEBOOKS})
    assert {"00", "01", "02", "03", "04", "05", "06"} <= {path.stem[:2] for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_clean(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # missing and repeated cell ids are no more than warnings there
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    kernel = notebook.metadata.kernelspec
    assert (kernel.name, kernel.language) == ("python3", "python")
    assert set(notebook.metadata) <= NOTEBOOK_KEYS
    ids = [cell.id for cell in notebook.cells]
    assert len(ids) == len(set(ids))
    for index, cell in enumerate(notebook.cells):
        assert set(cell.metadata) <= CELL_KEYS, f"cell {index} carries {set(cell.metadata) - CELL_KEYS}"
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None, f"run `make clean-notebooks`: cell {index}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_has_one_cell_of_literal_parameters(path: Path) -> None:
    parameters = parameters_of(path)
    assert parameters["run"].default == "", "every notebook takes the run it works in"
    assert all(isinstance(parameter.default, bool | int | float | str) for parameter in parameters.values())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_parameters_are_read_as_papermill_reads_them(path: Path) -> None:
    from papermill import inspect_notebook

    theirs = {
        name: (ast.literal_eval(found["default"]), found["help"]) for name, found in inspect_notebook(path).items()
    }
    assert {name: (found.default, found.help) for name, found in parameters_of(path).items()} == theirs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_equations_of_a_notebook_can_be_shown_without_a_script(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"`[^`]*`", "", cell.source)
            for display, inline in re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", text, re.DOTALL):
                assert mathml(display or inline, display=bool(display)).startswith("<math")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_leaves_the_choice_of_the_renderer_to_where_it_runs(path: Path) -> None:
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert not any("renderers.default" in source for source in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_imports_of_the_package_is_there(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        for node in ast.walk(ast.parse(cell.source if cell.cell_type == "code" else "")):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ann_snn_utils"):
                exec(compile(ast.Module([node], []), path.name, "exec"), {})
