"""The YAML file of a sweep: its values stay text, as on a command line, and each key is given once."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import yaml

_KEYS = {
    "name": "text",
    "notebooks": "a selection such as 01-04",
    "set": "parameters, each with a value or a list",
    "zip": "parameters with lists of one length, taken side by side",
}

_MOST_BYTES = 250_000


class _TextLoader(yaml.BaseLoader):
    """YAML of text: 010 is ten, 1:30 no number, and a tag makes nothing.

    A few aliases could stand for more values than there is memory, and of two equal keys the last would be kept in
    silence: both are refused.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1
            raise yaml.YAMLError(f"line {line} holds the alias *{event.anchor:.50}: write its values out")
        node = super().compose_node(parent, index)
        keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        for place, key in enumerate(keys):
            if key in keys[:place]:
                again = node.value[place][0].start_mark.line + 1
                raise yaml.YAMLError(f"{key!r:.100} is given twice, again in line {again}: give it once")
        return node


def read_sweep(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a YAML file of a sweep: name, notebooks, set and zip, each of them optional.

    Every value is text, or lists or dicts of it. Raises ValueError naming the file and what is wrong in it: not
    YAML, an alias, a key twice or unknown, a value of another kind.
    """
    path = Path(path)
    text = _text(path)
    try:
        content = _TextLoader(text).get_single_data()
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
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
            raise ValueError(f"{path}: {key}={value!r:.200}: give {_KEYS[key]}")
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
