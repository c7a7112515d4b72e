"""The ordered notebooks and their parameters, read from the files without running or importing anything."""

from __future__ import annotations

import ast
import difflib
import functools
import io
import json
import math
import os
import re
import threading
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Not files.ROOT: that module imports torch, which a command's --help can do without.
FOLDER: Path = Path(__file__).resolve().parents[2] / "notebooks"

_NAME = re.compile(r"(\d\d)_[a-z0-9_]+")

_PARSING = threading.Lock()

_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook: its name, the default's value and the comment behind it."""

    name: str
    default: Any
    help: str


def ordered_notebooks(folder: str | os.PathLike[str] = FOLDER) -> list[Path]:
    """Give the notebooks NN_name.ipynb of a folder in their order."""
    return sorted(path for path in Path(folder).glob("*.ipynb") if _NAME.fullmatch(path.stem))


def select_notebooks(selection: str, folder: str | os.PathLike[str] = FOLDER) -> list[Path]:
    """Give the notebooks that a selection such as "00-04,06" or "02_quantize" names, in order.

    A range takes whatever lies in it. Raises ValueError for a part that names no notebook.
    """
    available = {path.stem: path for path in ordered_notebooks(folder)}
    chosen = set()
    for part in (part.strip() for part in selection.split(",")):
        first, dash, last = part.partition("-")
        low, high = first[:2], (last if dash else first)[:2]
        exact = {part} if part in available else set()
        numeric = re.fullmatch(r"\d\d(-\d\d)?", part)
        found = exact or {stem for stem in available if numeric and low <= stem[:2] <= high}
        if not found:
            listed = ", ".join(available) or f"none in {folder}"
            raise ValueError(
                f"notebooks={selection!r:.200}: {part!r:.100} names no notebook; give numbers, ranges or "
                f"names such as '00-04,06' from: {listed}"
            )
        chosen |= found
    return [path for stem, path in available.items() if stem in chosen]


def parameters_of(notebook: str | os.PathLike[str]) -> dict[str, Parameter]:
    """Give the parameters of a notebook by name, from the cell that is tagged `parameters`.

    The cell may hold comments and `name = literal` lines only: whatever is computed there would keep its
    value when papermill sets other ones below it. Raises ValueError naming the notebook and the line.
    """
    path = Path(notebook)
    return dict(_parameters(path.name, parameters_source(path)))


# A sweep of thousands of runs asks for the same ones again and again.
@functools.lru_cache(maxsize=256)
def _parameters(notebook: str, source: str) -> Mapping[str, Parameter]:
    try:
        body = parsed(source).body
        comments = _comments(source)
    except (SyntaxError, tokenize.TokenError) as error:
        raise ValueError(f"{notebook}: the parameters cell is not Python: {error}") from None
    found = {}
    for node in body:
        line = source.splitlines()[node.lineno - 1]
        names = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        try:
            (name,) = (name.id for name in names)
            default = ast.literal_eval(node.value)
        except (AttributeError, ValueError, TypeError):
            raise ValueError(
                f"{notebook}: {line.strip()!r} in the parameters cell: write `name = literal` lines only"
            ) from None
        found[name] = Parameter(name, default, comments.get(node.end_lineno, ""))
    return found


@functools.lru_cache(maxsize=1024)
def parsed(source: str) -> ast.Module:
    """Give the syntax tree of Python source, shared: do not change it. Raises SyntaxError."""
    # Python 3.11 can raise SystemError where two threads make trees at a time.
    with _PARSING:
        return ast.parse(source)


def parameters_source(path: Path) -> str:
    """Give the source of a notebook's `parameters` cell. Raises ValueError where there is not exactly one."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a notebook ({error}): restore it from the repository") from None
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{path.name} has {len(tagged)} cells tagged `parameters`: tag exactly one")
    return "".join(tagged[0]["source"])


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def check_parameters(parameters: Mapping[str, Any], notebooks: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """Give the parameters with their values in the type of the notebooks' defaults.

    Text, as from a command line, is read as that type; an int is taken for a float. Raises ValueError for a
    name that no notebook takes, with the nearest ones, and for a value of another type.
    """
    takers: dict[str, list[tuple[str, Parameter]]] = {}
    for notebook in notebooks:
        for name, parameter in parameters_of(notebook).items():
            takers.setdefault(name, []).append((Path(notebook).stem, parameter))
    checked = {}
    for name, value in parameters.items():
        if name not in takers:
            raise ValueError(_unknown(name, takers))
        for stem, parameter in takers[name]:
            checked[name] = typed(name, value, parameter.default, stem)
    return checked


def _unknown(name: str, takers: Mapping[str, list[tuple[str, Parameter]]]) -> str:
    def named(names: Iterable[str]) -> str:
        return ", ".join(f"{n} ({', '.join(stem for stem, _ in takers[n])})" for n in names)

    near = difflib.get_close_matches(name.lower(), takers, n=3, cutoff=0.5)
    if near:
        return f"no notebook takes a parameter {name!r:.100}: did you mean {named(near)}?"
    return f"no notebook takes a parameter {name!r:.100}: choose from {named(sorted(takers))}"


def typed(name: str, value: Any, default: Any, stem: str) -> Any:
    """Give `value` in the type of `default`. Raises ValueError that names the parameter and its notebook."""
    kind = type(default)
    with_text = isinstance(value, str) and kind is not str
    result = value
    try:
        if with_text and kind is bool:
            result = _WORDS[value.strip().lower()]
        elif with_text and kind in (int, float):
            result = kind(value)
        elif with_text:
            result = ast.literal_eval(value)
        if kind is float and type(result) is int:
            result = float(result)
        if type(result) is not kind or (kind is float and not math.isfinite(result)):
            raise ValueError
        if kind is int and not -(2**63) <= result < 2**63:
            raise ValueError
        if kind is str:
            # Text that no file can hold, such as half a surrogate pair.
            result.encode()
    except (ValueError, KeyError, SyntaxError, OverflowError):
        long = " of at most 64 bits" if type(result) is int else ""
        words = {bool: "true or false", int: f"an integer{long}", float: "a number", str: "text"}
        wanted = words.get(kind, f"a {kind.__name__}")
        raise ValueError(
            f"{name}={value!r:.200}: {stem} takes {wanted}, and {default!r} where it is left out"
        ) from None
    return result


def declared(parameters: Mapping[str, Any], notebook: str | os.PathLike[str]) -> dict[str, Any]:
    """Give those of the parameters that a notebook takes."""
    names = parameters_of(notebook)
    return {name: value for name, value in parameters.items() if name in names}


def defaults_of(notebooks: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """Give the default of every parameter of the notebooks; the first notebook that takes it decides."""
    found: dict[str, Any] = {}
    for notebook in notebooks:
        for name, parameter in parameters_of(notebook).items():
            found.setdefault(name, parameter.default)
    return found
