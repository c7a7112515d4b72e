"""What tests share: a folder for runs of their own, the small study in which stages are counted, and a browser that
may die: a test that has a `visit` is then run again in a new one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy is slow, which is no fault. What examples share, they leave as it was.
settings.register_profile(
    "study", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
# For `make check`: see examples.py.
settings.register_profile("quick", settings.get_profile("study"), max_examples=20)
settings.load_profile("study")

# Every process that imports nbformat would compile 39 grammars of addresses, which nothing here is checked against.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

from toy_notebooks import run_here  # noqa: E402
from toy_study import write_study  # noqa: E402

# Several processes share the cores while tests run side by side: no thread waits for work by counting.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of slow tests come first: one that was begun last would leave the other processes without work."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Processes that share the cores take one thread each; tests of what several do set their number."""
    if hasattr(session.config, "workerinput"):
        import torch

        torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test of a page so that it survives its browser; None leaves any other to pytest."""
    visit = pyfuncitem.funcargs.get("visit")
    if visit is None:
        return None
    import lab

    def test() -> None:
        named = pyfuncitem.funcargs | {"page": visit.page}
        pyfuncitem.obj(**{name: named[name] for name in pyfuncitem._fixtureinfo.argnames})

    lab.survived(visit, pyfuncitem.name, test)
    return True


@pytest.fixture(params=("events", "dense"))
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend of the simulator in turn, the compiled one where it can be compiled."""
    if request.param == "events":
        from test_simulate import needs_kernel

        needs_kernel()
    return request.param


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs, new for each test and not there yet; that of kept results is another."""
    monkeypatch.setenv("ANN_SNN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("ANN_SNN_RESULTS", str(tmp_path / "results"))
    return tmp_path / "runs"


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages are made in this process, where nothing depends on a kernel."""
    monkeypatch.setattr("ann_snn_utils.batch.stage.execute", run_here)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the toy study's notebooks."""
    return write_study(tmp_path / "notebooks")
