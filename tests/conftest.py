"""What tests of runs share: a folder for runs of their own, and the small study in which stages are counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_study import write_study


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs, new for each test and not there yet; that of kept results is another."""
    monkeypatch.setenv("ANN_SNN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("ANN_SNN_RESULTS", str(tmp_path / "results"))
    return tmp_path / "runs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the toy study's notebooks."""
    return write_study(tmp_path / "notebooks")
