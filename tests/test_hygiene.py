"""What must hold for every module and every notebook of the project."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from ann_snn_utils.equations import mathml
from ann_snn_utils.notebooks import parameters_of

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ann_snn_utils"
MODULES = sorted(PACKAGE.rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Data flows one way: a module imports from those before it. A package in the list counts as one module.
ORDER = """
    artifacts image_file image_folder torchvision_sets data seeds augment notation spec source recipes quantize
    convolution compiled norm_loops norm_act models initialise prediction optimizers checkpoint train
    layer_checks thresholds snn convert rescale certificate hardware pretrained neuron synapse disturb record
    bounds layout lanes row_sums firing presentation delivery event_faults events event_driven dense simulate
    golden memory_files activity energy equivalence logs metrics npz interop notebooks provenance locks manifest
    runs unfinished run_table sweep_file summary outcome collection compare ablation pareto published_table cost
    cost_table bundle stage gallery forms trial timing baseline peers workload contenders peak_memory limits
    training_speed benchmark figures explore latency report evaluation equations export kernels execute
    stage_run batch commands speed_table bench_command bundle_command results_command rehearsal sweep_yaml
    sweep_cells sweep_plan sweep_results sweep_view workers sweep sweep_command cli __main__ readers
""".split()

NOTEBOOK_KEYS = {"kernelspec", "language_info"}
CELL_KEYS = {"tags", "editable", "slideshow"}
HEAVY = ("torch", "plotly", "ipywidgets", "papermill", "sklearn", "numba", "joblib")


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def calls(path: Path) -> Iterator[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def imported_modules(path: Path) -> set[str]:
    """First component, below the package, of every import of the package in a file."""
    parents = path.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = list(parents[: len(parents) - node.level + 1]) if node.level else []
            dotted = [base + (node.module or "").split(".") + [alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            dotted = [alias.name.split(".") for alias in node.names]
        else:
            continue
        for parts in ([part for part in parts if part] for parts in dotted):
            if parts[0] == PACKAGE.name and len(parts) > 1 and parts[1] in ORDER:
                found.add(parts[1])
    return found


def test_every_module_has_its_place_in_the_order() -> None:
    places = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES} - {"__init__"}
    assert places <= set(ORDER), f"list {places - set(ORDER)} in ORDER, after all that they import"
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_those_before_it(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        own = "artifacts"
    assert own in ORDER
    later = {name for name in imported_modules(path) if ORDER.index(name) > ORDER.index(own)}
    assert not later, f"{own} imports {later}, which come after it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_holds_one_idea(path: Path) -> None:
    # A reader of bundles is a program in one file, which is copied.
    most = 300 if path.parent.name == "readers" else 260
    assert len(path.read_text(encoding="utf-8").splitlines()) < most, "split it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_read_from_a_file_is_ever_executed(path: Path) -> None:
    for call in calls(path):
        text = ast.unparse(call.func)
        words = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert text not in ("eval", "exec", "compile", "os.system", "joblib.load", "yaml.load"), text
        assert not re.fullmatch(r"(\w*pickle|dill|marshal)\.(loads?|Unpickler)", text), text
        assert text != "torch.load" or words.get("weights_only") == "True", "torch.load needs weights_only=True"
        assert words.get("allow_pickle", "False") == "False", f"{text}(allow_pickle=…)"
        assert words.get("shell", "False") == "False", f"{text}(shell=…)"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_listens_on_a_network_port_or_reads_pickles_but_through_the_guarded_reader(path: Path) -> None:
    names = {alias.name.split(".")[0] for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Import) for alias in node.names}  # fmt: skip
    names |= {str(node.module).split(".")[0] for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
              if isinstance(node, ast.ImportFrom) and not node.level}  # fmt: skip
    assert not names & {"dill", "marshal", "shelve", "http", "socketserver", "xmlrpc", "flask", "tornado"}
    # npz.py replaces everything that a pickle may name; torchvision_sets.py sets a time limit, nothing else.
    assert "pickle" not in names or path.name == "npz.py"
    assert "socket" not in names or path.name == "torchvision_sets.py"
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
    code = (
        "import sys, ann_snn_utils, ann_snn_utils.cli\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_names_that_the_package_offers_exist() -> None:
    import ann_snn_utils

    for name in ann_snn_utils.__all__:
        assert getattr(ann_snn_utils, name).__doc__, name


def test_the_code_is_clean() -> None:
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


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
