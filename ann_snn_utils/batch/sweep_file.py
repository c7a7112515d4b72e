"""The YAML file of a sweep, read with suspicion: plain values, each key once, nothing that could grow."""

from __future__ import annotations

import difflib
import os
import re
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


class _PlainLoader(yaml.SafeLoader):
    """YAML without what a sweep has no use for.

    A few aliases can stand for more values than there is memory, a tag can name any type, of two equal keys the
    last would be kept in silence, and 010 or 1:30 would be taken for 8 and 90.
    """

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        value = getattr(event, "value", "")
        line = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"{line} holds the alias *{event.anchor:.50}: write its values out")
        if event.tag:
            raise yaml.YAMLError(f"{line} holds the tag {event.tag:.50}: write plain values")
        if self.depth > _DEEPEST:
            raise yaml.YAMLError(f"{line} holds a list in {_DEEPEST} others: write parameters and lists of values")
        if len(value) > _MOST_CHARACTERS:
            said = f"a value of {len(value):,} characters: write at most {_MOST_CHARACTERS:,}"
            raise yaml.YAMLError(f"{line} holds {said}")
        if (
            isinstance(event, yaml.ScalarEvent)
            and not event.style
            and re.fullmatch(r"[-+]?(0\d+|\d+(:\d+)+)", value)
        ):
            raise yaml.YAMLError(f"{line} holds {value}, for YAML a number in base 8 or 60: write it in base 10")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        for place, key in enumerate(keys):
            if key in keys[:place]:
                again = node.value[place][0].start_mark.line + 1
                raise yaml.YAMLError(f"{key!r:.100} is given twice, again in line {again}: give it once")
        return node


def read_sweep(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a YAML file of a sweep: name, notebooks, set and zip, each of them optional.

    Raises ValueError naming the file and what is wrong in it: not YAML, a key twice, an unknown key, or what a
    sweep has no use for, such as aliases and tags.
    """
    path = Path(path)
    text = _text(path)
    try:
        content = _PlainLoader(text).get_single_data()
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        said = "" if type(error) is yaml.YAMLError else " is not YAML"
        raise ValueError(f"{path}{said}: {' '.join(str(error).split()):.300}") from None
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
