"""The library's own source, printed where a notebook explains it."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

from IPython.display import Markdown

from ..files import ROOT


def listing(*objects: Any) -> Markdown:
    """Source of functions or classes as a code block, below the path of the file that it stands in.

    Markdown, because JupyterLab, exported pages and web hosts all colour its code, each in its own theme.
    """
    parts = []
    for one in map(inspect.unwrap, objects):
        path = inspect.getsourcefile(one)
        shown = path and path.removeprefix(f"{ROOT}/")
        source = textwrap.dedent(inspect.getsource(one)).rstrip()
        parts.append(f"*{shown}*\n\n```python\n{source}\n```")
    return Markdown("\n\n".join(parts))
