"""The ordered notebooks and their parameters, read from the files without running or importing anything.

`papermill.inspect_notebook` finds the same (a test compares them), but every `--help` would wait for its import,
1.8 s of computing, and it passes over a line that it cannot read, where a study must refuse.
"""

from __future__ import annotations

import ast
import difflib
import functools
import json
import math
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import ROOT

NOTEBOOKS: Path = ROOT / "notebooks"

_NAME = re.compile(r"(\d\d)_[a-z0-9_]+")
_PARSING = threading.Lock()
_WORDS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
_KINDS = {bool: "true or false", int: "an integer of at most 64 bits", float: "a number", str: "text"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook: its default, and the comment behind it."""

    default: Any
    help: str


def ordered_notebooks(folder: str | os.PathLike[str] = NOTEBOOKS) -> list[Path]:
    """The notebooks NN_name.ipynb of a folder, in their order."""
    return sorted(path for path in Path(folder).glob("*.ipynb") if _NAME.fullmatch(path.stem))


def select_notebooks(selection: str, folder: str | os.PathLike[str] = NOTEBOOKS) -> list[Path]:
    """The notebooks that a selection such as "00-04,06" or "02_quantize" names, in order.

    A range takes whatever lies in it. Raises ValueError for a part that names no notebook, or where none are there.
    """
    available = {path.stem: path for path in ordered_notebooks(folder)}
    if not available:
        raise ValueError(f"there are no notebooks in {folder}: the package lies away from them; work in a checkout")
    chosen: set[str] = set()
    for part in (part.strip() for part in selection.split(",")):
        low, _, high = part.partition("-")
        found = {part} & available.keys()
        if re.fullmatch(r"\d\d(-\d\d)?", part):
            found = {stem for stem in available if low <= stem[:2] <= (high or low)}
        if not found:
            raise ValueError(
                f"notebooks={selection!r:.200}: {part!r:.100} names no notebook; give numbers, ranges or names "
                f"such as '00-04,06' from: {', '.join(available)}"
            )
        chosen |= found
    return [path for stem, path in available.items() if stem in chosen]


def parameters_of(notebook: str | os.PathLike[str]) -> dict[str, Parameter]:
    """The parameters of a notebook by name, from the one cell that is tagged `parameters`.

    The cell may hold comments and `name = literal` lines only: whatever is computed there would keep its
    default's value when papermill sets a parameter. Raises ValueError for any other line.
    """
    path = Path(notebook)
    return dict(parameters_in(parameters_source(path), path.name))


# A sweep of thousands of runs asks for the same ones again and again.
@functools.lru_cache(maxsize=256)
def parameters_in(source: str, notebook: str) -> Mapping[str, Parameter]:
    """The parameters by name that the source of a cell sets. Raises ValueError for any other line in it."""
    try:
        body = parsed(source).body
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{notebook}: the parameters cell is not Python ({error}): correct it") from None
    lines, found = re.split("\r\n?|\n", source), {}
    for node in body:
        try:
            name, default = _assignment(node)
        except (ValueError, TypeError):
            wrong = f"{lines[node.lineno - 1].strip()!r} in the parameters cell"
            raise ValueError(f"{notebook}: {wrong}: write `name = literal` lines only") from None
        # Columns of a syntax tree count bytes.
        _, _, comment = lines[(node.end_lineno or 0) - 1].encode()[node.end_col_offset :].decode().partition("#")
        found[name] = Parameter(default, comment.strip("# "))
    return found


def _assignment(node: ast.stmt) -> tuple[str, Any]:
    match node:
        case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, ast.expr() as value):
            return name, ast.literal_eval(value)
    raise ValueError


@functools.lru_cache(maxsize=1024)
def parsed(source: str) -> ast.Module:
    """The syntax tree of Python source, shared: do not change it. Raises SyntaxError."""
    # Python 3.11 can raise SystemError where two threads make trees at a time.
    with _PARSING:
        return ast.parse(source)


def parameters_source(path: Path) -> str:
    """The source of a notebook's `parameters` cell. Raises ValueError where there is not exactly one."""
    tagged = [cell for cell in _cells(path) if _has_tag(cell, "parameters")]
    if len(tagged) != 1:
        raise ValueError(f"{path.name} has {len(tagged)} cells tagged `parameters`: tag exactly one")
    return "".join(tagged[0]["source"])


def code_cells(notebook: str | os.PathLike[str], without: str = "") -> list[str]:
    """The source of a notebook's code cells, in order; `without` those that have this tag."""
    code = (cell for cell in _cells(Path(notebook)) if cell["cell_type"] == "code")
    return ["".join(cell["source"]) for cell in code if not _has_tag(cell, without)]


def _cells(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a notebook ({error}): restore it from the repository") from None


def _has_tag(cell: Mapping[str, Any], tag: str) -> bool:
    return tag in cell.get("metadata", {}).get("tags", [])


def python(cells: Iterable[str]) -> str:
    """The Python of code cells, without IPython's magic lines."""
    lines = "\n".join(cells).splitlines()
    return "\n".join(line for line in lines if not line.startswith(("%", "!")))


def takers_of(notebooks: Sequence[str | os.PathLike[str]]) -> dict[str, dict[str, Parameter]]:
    """Every parameter's name → the stems of the notebooks that take it, in order, each with its own default."""
    takers: dict[str, dict[str, Parameter]] = {}
    for notebook in notebooks:
        for name, parameter in parameters_of(notebook).items():
            takers.setdefault(name, {})[Path(notebook).stem] = parameter
    return takers


def check_parameters(parameters: Mapping[str, Any], notebooks: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """The parameters with their values in the type of the notebooks' defaults.

    Text, as from a command line, is read as that type; an int is taken for a float. Raises ValueError for a
    name that no notebook takes, with the nearest ones, and for a value of another type.
    """
    takers, checked = takers_of(notebooks), {}
    for name, value in parameters.items():
        if name not in takers:
            if elsewhere := takers_of(ordered_notebooks()).get(name):
                raise ValueError(
                    f"none of the chosen notebooks takes {name!r}: choose {' or '.join(elsewhere)} too, which does"
                )
            near = difflib.get_close_matches(name.lower(), takers, n=3, cutoff=0.5)
            listed = ", ".join(f"{found} ({', '.join(takers[found])})" for found in near or sorted(takers))
            advice = f"did you mean {listed}?" if near else f"choose from {listed}"
            raise ValueError(f"no notebook takes a parameter {name!r:.100}: {advice}")
        for stem, parameter in takers[name].items():
            checked[name] = typed(name, value, parameter.default, stem)
    return checked


def typed(name: str, value: Any, default: Any, stem: str) -> Any:
    """`value` in the type of `default`. Raises ValueError that names the parameter and its notebook."""
    kind = type(default)
    try:
        result = _read(value, kind) if isinstance(value, str) else value
        if kind is float and type(result) is int:
            result = float(result)
        fits = type(result) is kind
        if fits and kind is float:
            fits = math.isfinite(result)
        if fits and kind is int:
            fits = -(2**63) <= result < 2**63
        if fits and kind is str:
            # Raises UnicodeError for text that no file can hold, such as half a surrogate pair.
            result.encode()
    except (ValueError, KeyError, SyntaxError, OverflowError):
        fits = False
    if not fits:
        wanted = _KINDS.get(kind, f"a {kind.__name__}")
        raise ValueError(f"{name}={value!r:.200}: {stem} takes {wanted}, and {default!r} where it is left out")
    return result


def _read(text: str, kind: type) -> Any:
    if kind is bool:
        return _WORDS[text.strip().lower()]
    if kind in (int, float, str):
        return kind(text)
    return ast.literal_eval(text)


def declared(parameters: Mapping[str, Any], notebook: str | os.PathLike[str]) -> dict[str, Any]:
    """Those of the parameters that a notebook takes."""
    names = parameters_of(notebook)
    return {name: value for name, value in parameters.items() if name in names}


def defaults_of(notebooks: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """The default of every parameter of the notebooks; the first notebook that takes it decides."""
    return {name: next(iter(found.values())).default for name, found in takers_of(notebooks).items()}
