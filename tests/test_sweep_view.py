"""How far a sweep is, in words: runs done and running with their epoch, and the time that is left."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from ann_snn_utils.batch.engine import Made
from ann_snn_utils.batch.grid import Sweep
from ann_snn_utils.batch.plan import Plan, Step
from ann_snn_utils.batch.sweep import View, _work, clock


def view() -> View:
    notebooks = Path("01_train_ann.ipynb"), Path("02_quantize.ipynb")
    runs = {"a": {"dataset": "digits"}, "b": {"dataset": "mnist"}}
    steps = {
        run: tuple(Step(run, notebook, given, {}, "make", None, ()) for notebook in notebooks)
        for run, given in runs.items()
    }
    return View(Plan(Sweep("s", notebooks, ("dataset",), runs), steps), jobs=2, stream=io.StringIO())


def test_the_time_left_comes_from_like_stages() -> None:
    shown = view()
    assert shown.left() is None and "time left unknown" in shown.summary()
    shown.end("a/01_train_ann", 10.0)
    assert shown.left() == 15.0
    shown.end("b/01_train_ann", 100.0)
    shown.end("a/02_quantize", 20.0)
    assert shown.left() == pytest.approx((10 + 100 + 20) / 3 / 2)
    shown.end("b/02_quantize")
    assert shown.left() == 0 and "4/4 stages" in shown.summary() and "left" not in shown.summary()


def test_what_runs_is_shown_with_its_epoch_or_last_words() -> None:
    shown = view()
    shown.tell("a/01_train_ann", "epoch 3/15 loss 0.5")
    shown.tell("b/01_train_ann", "[hello]")
    descriptions = [task.description for task in shown.live.tasks[1:]]
    assert descriptions == ["a  01_train_ann  epoch 3/15", "b  01_train_ann  [hello]"]
    shown.end("a/01_train_ann", 1.0)
    assert [task.description for task in shown.live.tasks[1:]] == ["b  01_train_ann  [hello]"]
    shown.tell("a/01_train_ann", "late words of a stage that is there")
    assert len(shown.live.tasks) == 2


def test_elsewhere_than_on_a_terminal_each_line_is_said_once_and_a_summary_after_a_silent_minute() -> None:
    shown = view()
    with shown.live:
        shown.line("[1/2] one")
        shown.tell("a/01_train_ann", "epoch 1/2")
        shown.last_line -= 61
        shown.tell("a/01_train_ann", "epoch 2/2")
    one, summary = shown.live.console.file.getvalue().splitlines()
    assert one == "[1/2] one"
    assert summary.startswith("0/2 runs done · 0/4 stages") and summary.endswith("a  01_train_ann  epoch 2/2")


def test_a_run_is_done_with_its_last_stage_that_was_to_be_made(capsys) -> None:
    made, there = (
        Step("a", Path(f"{stem}.ipynb"), {}, {}, state, None, ())
        for stem, state in (("04", "make"), ("08", "done"))
    )
    plan = Plan(Sweep("s", (made.notebook, there.notebook), (), {"a": {}}), {"a": (made, there)})
    came = [Made(made, "made", 1.0)]
    assert _work(plan, SimpleNamespace(jobs=1, work=lambda *_, **__: came)) == (came, [])
    assert capsys.readouterr().err.splitlines()[-1] == "[1/1] a  04 1.0 s"


@pytest.mark.parametrize("seconds, text", [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")])
def test_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
