"""The YAML file of a sweep, read with suspicion: plain values, each key once, nothing that could grow."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

_KEYS = {
    "name": "text",
    "notebooks": "a selection such as 01-04",
    "set": "parameters, each with a value or a list",
    "zip": "parameters with lists of one length, taken side by side",
}

_MOST_BYTES, _MOST_CHARACTERS, _DEEPEST = 250_000, 1_000, 8


def read_sweep(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a YAML file of a sweep: name, notebooks, set and zip, each of them optional.

    Raises ValueError naming the file and what is wrong in it: not YAML, a key twice, an unknown key, or what a
    sweep has no use for, such as aliases and tags.
    """
    path = Path(path)
    text = _text(path)
    try:
        wrong = _elaborate(yaml.parse(text, Loader=yaml.SafeLoader))
        wrong = wrong or _twice(yaml.compose(text, Loader=yaml.SafeLoader))
        content = None if wrong else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split()):.300}: correct it") from None
    if wrong:
        raise ValueError(f"{path}: {wrong}")
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds no sweep: write `set:` and below it parameters with lists of values")
    for key, value in content.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            others = f"choose from {', '.join(_KEYS)}; parameters go below `set:`"
            hint = f"did you mean {near[0]}?" if near else others
            raise ValueError(f"{path}: unknown key {key!r:.100}: {hint}")
        kind = dict if key in ("set", "zip") else str
        if not isinstance(value, kind):
            quoted = "; put it in quotes" if kind is str else ""
            raise ValueError(f"{path}: {key}={value!r:.200}: give {_KEYS[key]}{quoted}")
    return content


def _text(path: Path) -> str:
    remedy = "give the path of a sweep's YAML file"
    if not path.exists():
        raise ValueError(f"there is no file {path}: {remedy}")
    # A device or a pipe may never end.
    if not path.is_file():
        raise ValueError(f"{path} is not a text file: {remedy}")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path} has over {_MOST_BYTES:,} bytes: write ranges such as 0..99, or split the sweep")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file: {remedy}") from None


def _elaborate(events: Iterable[Any]) -> str | None:
    # A few aliases can stand for more values than there is memory, and a tag can name any type.
    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        value, line = getattr(event, "value", ""), event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            return f"line {line} holds the alias *{event.anchor:.50}: write its values out"
        if getattr(event, "tag", None):
            return f"line {line} holds the tag {event.tag:.50}: write plain values"
        if depth > _DEEPEST:
            return f"line {line} holds a list in {_DEEPEST} others: write `set:`, parameters, and lists of values"
        if len(value) > _MOST_CHARACTERS:
            return f"line {line} holds a value of {len(value):,} characters: write at most {_MOST_CHARACTERS:,}"
    return None


def _twice(node: Any) -> str | None:
    # A YAML reader keeps the last of two equal keys, and says nothing.
    if node is None or isinstance(node.value, str):
        return None
    pairs = [pair for pair in node.value if isinstance(pair, tuple)]
    seen: set[str] = set()
    for key, _ in pairs:
        if isinstance(key.value, str):
            if key.value in seen:
                line = key.start_mark.line + 1
                return f"{key.value!r:.100} is given twice, again in line {line}: give it once"
            seen.add(key.value)
    found = (_twice(child) for child in [value for _, value in pairs] or node.value)
    return next((wrong for wrong in found if wrong), None)
