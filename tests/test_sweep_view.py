"""How far a sweep is, in words: runs done and running with their epoch, and the time that is left."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from ann_snn_utils.batch.progress import View, clock
from ann_snn_utils.runs.manifest import MARK


def view(tmp_path: Path) -> View:
    runs = {run: tmp_path / run for run in "ab"}
    steps = {(run, notebook, data) for run, data in (("a", "digits"), ("b", "mnist")) for notebook in ("01", "02")}
    return View(runs, steps, by="me", jobs=2, stream=io.StringIO())


def mark(tmp_path: Path, run: str, **record) -> None:
    (tmp_path / run).mkdir(exist_ok=True)
    (tmp_path / run / MARK).write_text(json.dumps({"stage": "01", "state": "running", "by": "me", **record}))


def test_the_time_left_comes_from_like_stages(tmp_path: Path) -> None:
    shown = view(tmp_path)
    assert shown.left() is None and "time left unknown" in shown.summary()
    shown.stage("a", "01", 10.0)
    assert shown.left() == 15.0
    shown.stage("b", "01", 100.0)
    shown.stage("a", "02", 20.0)
    assert shown.left() == pytest.approx((10 + 100 + 20) / 3 / 2)
    shown.drop("b")
    assert shown.left() == 0 and "3/3 stages" in shown.summary() and "left" not in shown.summary()


def test_what_runs_is_shown_with_its_epoch_or_last_words_and_only_if_it_is_of_this_sweep(tmp_path: Path) -> None:
    shown = view(tmp_path)
    mark(tmp_path, "a", said="epoch 3/15 loss 0.5", started=5.0)
    mark(tmp_path, "b", said="hello", by="another", started=5.0)
    assert shown.running() == ["a  01  epoch 3/15"] and "0/4 stages" in shown.summary()
    mark(tmp_path, "a", said="", stage="02", started=25.0)
    assert shown.running() == ["a  02"] and "1/4 stages" in shown.summary() and shown.left() == 30.0


def test_elsewhere_than_on_a_terminal_each_line_is_said_once(tmp_path: Path) -> None:
    shown = view(tmp_path)
    with shown:
        shown.line("one")
    assert shown.stream.getvalue() == "one\n" and not shown.bars


@pytest.mark.parametrize("seconds, text", [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")])
def test_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
