"""The examples in docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import ann_snn_utils

PACKAGE = Path(ann_snn_utils.__file__).parent
SHOWING = [path for path in sorted(PACKAGE.rglob("*.py")) if "    >>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", SHOWING, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_an_example_gives_what_it_shows(path):
    module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    done = doctest.testmod(module)
    assert done.attempted and not done.failed
