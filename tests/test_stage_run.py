"""A stage is made once: kept, shared between runs, or made again where anything that it came from changed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_notebooks import write_notebook

from ann_snn_utils.batch import stage as stage_run
from ann_snn_utils.batch.execute import NotebookFailed, execute, stop_kernels
from ann_snn_utils.batch.stage import inputs_of, make_stage, records_stage, share
from ann_snn_utils.runs.manifest import LOCK, MARK, is_current, mark_of, read_manifest
from ann_snn_utils.runs.stage import request_of

FIRST = """
from ann_snn_utils.files import save_json
from ann_snn_utils.runs.folder import run_folder
from ann_snn_utils.runs.manifest import record_stage
folder = run_folder(run, create=True)
assert not fails, "as asked"
(folder / "ann.safetensors").write_text(f"{seed}")
save_json(folder / "results.json", {"run": run, "seed": seed})
artifacts = ["ann.safetensors", "results.json"]
record_stage(folder, "01_train_ann", parameters={"seed": seed}, artifacts=artifacts)
"""
SECOND = """
from ann_snn_utils.runs.folder import require, run_folder
from ann_snn_utils.runs.manifest import record_stage
folder = run_folder(run)
(folder / "qann.safetensors").write_text(require(folder, "ann.safetensors").read_text() + str(k))
record_stage(folder, "02_quantize", parameters={"k": k}, inputs=["ann.safetensors"], artifacts=["qann.safetensors"])
"""


Make = Callable[..., str]


@pytest.fixture
def notebooks(tmp_path: Path) -> list[Path]:
    return [
        write_notebook(tmp_path / "01_train_ann.ipynb", 'run = ""\nseed = 0\nfails = False', FIRST),
        write_notebook(tmp_path / "02_quantize.ipynb", 'run = ""\nk = 0', SECOND),
    ]


@pytest.fixture
def make(without_kernels: None) -> Make:
    """Makes a stage in a folder of `runs`, as `make_stage` does."""

    def make(notebook: Path, folder: Path, parameters: dict | None = None, **more) -> str:
        return make_stage(notebook, folder, parameters or {}, request_of(notebook, parameters or {}), **more)

    return make


@pytest.fixture
def runs(runs: Path) -> list[Path]:
    """The folders of three runs."""
    return [runs / name for name in ("one", "two", "other")]


def test_what_a_notebook_reads_and_whether_it_records_are_found_in_its_code(notebooks: list[Path]) -> None:
    assert [inputs_of(path) for path in notebooks] == [(), ("ann.safetensors",)]
    shows = write_notebook(notebooks[0].parent / "06_compare_runs.ipynb", 'run = ""', "%time\nprint(run)")
    assert [records_stage(path) for path in (*notebooks, shows)] == [True, True, False]


def test_a_stage_is_shared_only_with_a_run_that_has_its_inputs(
    notebooks: list[Path], runs: list[Path], make: Make
) -> None:
    first, second = notebooks
    one, two, other = runs
    assert [make(notebook, one) for notebook in notebooks] == ["made", "made"]
    assert [make(notebook, two, donor=one) for notebook in notebooks] == ["shared", "shared"]
    assert make(first, other, parameters={"seed": 1}, donor=one) == "made"
    assert make(second, other, donor=one) == "made"
    assert [(path / "qann.safetensors").read_text() for path in (one, two, other)] == ["00", "00", "10"]
    assert read_manifest(two).stages["02_quantize"].shared_from == one.name
    assert (two / "notebooks" / second.name).is_file()


def test_a_shared_result_carries_the_name_of_its_run_and_runs_stay_whole_by_themselves(
    notebooks: list[Path], runs: list[Path], make: Make
) -> None:
    one, two, _ = runs
    make(notebooks[0], one)
    make(notebooks[0], two, donor=one)
    assert [json.loads((path / "results.json").read_text())["run"] for path in (one, two)] == [one.name, two.name]
    with pytest.raises(ValueError, match="run 'one' has results that 01_train_ann made with seed=0, not 7"):
        make(notebooks[0], one, parameters={"seed": 7})
    make(notebooks[0], one, parameters={"seed": 7}, force=True)
    assert (two / "ann.safetensors").read_text() == "0"
    assert is_current(two, "01_train_ann", request_of(notebooks[0], {}))


def test_a_shared_notebook_that_is_edited_in_place_as_jupyterlab_does_stays_as_it_was_in_the_other_run(
    notebooks: list[Path], runs: list[Path], make: Make
) -> None:
    one, two, _ = runs
    make(notebooks[0], one)
    make(notebooks[0], two, donor=one)
    mine, theirs = (run / "notebooks" / notebooks[0].name for run in (two, one))
    before = theirs.read_text()
    mine.write_text(before.replace("as asked", "as I like"))
    assert theirs.read_text() == before


def test_a_damaged_stage_is_not_shared(notebooks: list[Path], runs: list[Path], make: Make) -> None:
    one, two, _ = runs
    make(notebooks[0], one)
    (one / "ann.safetensors").write_text("damaged")
    assert not share(two, one, notebooks[0], request_of(notebooks[0], {}))
    assert not (two / "ann.safetensors").exists()


def test_code_that_changed_since_it_was_asked_for_is_not_run(
    notebooks: list[Path], runs: list[Path], make: Make
) -> None:
    asked = request_of(notebooks[0], {})
    write_notebook(notebooks[0], 'run = ""\nseed = 0\nfails = False', FIRST + "# changed")
    with pytest.raises(RuntimeError, match="the code of 01_train_ann changed meanwhile"):
        make_stage(notebooks[0], runs[0], {}, asked)
    assert not (runs[0] / "manifest.json").exists()


def test_a_notebook_that_only_shows_may_leave_its_data_set_open(
    tmp_path: Path, runs: list[Path], make: Make
) -> None:
    shows = write_notebook(tmp_path / "06_compare_runs.ipynb", 'run = ""\ndataset = ""', "run")
    assert make(shows, runs[0]) == "made" and read_manifest(runs[0]).stages == {}


def test_a_failed_stage_leaves_a_mark_that_the_next_success_takes_away(
    notebooks: list[Path], runs: list[Path], make: Make
) -> None:
    one = runs[0]
    with pytest.raises(NotebookFailed):
        make(notebooks[0], one, parameters={"fails": True})
    mark = mark_of(one)
    assert (mark.stage, mark.state, mark.cell) == ("01_train_ann", "failed", 2)
    assert mark.error == "AssertionError: as asked" and Path(mark.path).is_file()
    assert make(notebooks[0], one) == "made" and mark_of(one) is None


def test_a_mark_whose_maker_is_gone_is_an_interruption_and_one_that_is_held_is_running(tmp_path: Path) -> None:
    from filelock import FileLock

    assert mark_of(tmp_path) is None
    (tmp_path / MARK).write_text('{"stage": "01_train_ann", "state": "running", "said": ""}')
    with FileLock(tmp_path / LOCK):
        assert mark_of(tmp_path).state == "running"
    assert mark_of(tmp_path).state == "interrupted"


@pytest.mark.parametrize(
    "change, kept",
    [({}, True), ({"code": "other"}, False), ({"inputs": {"a": "0"}}, False), ({"images": {"test": "0"}}, False)],
)
def test_a_training_goes_on_only_from_where_the_very_same_one_was_stopped(
    notebooks: list[Path], runs: list[Path], make: Make, change: dict, kept: bool
) -> None:
    one = runs[0]
    one.mkdir(parents=True, exist_ok=True)
    asked = {**request_of(notebooks[0], {}), "inputs": {}, "images": None}
    mark = {"stage": "01_train_ann", "state": "running", "said": "", "request": asked | change}
    (one / MARK).write_text(json.dumps(mark))
    (one / "ann.checkpoint.safetensors").write_text("half")
    stage_run._drop_old_checkpoint(one, "01_train_ann", asked)
    assert (one / "ann.checkpoint.safetensors").exists() == kept


def test_what_only_shows_a_run_leaves_the_mark_of_a_training_that_was_stopped(
    notebooks: list[Path], runs: list[Path], make: Make
) -> None:
    one = runs[0]
    with pytest.raises(NotebookFailed):
        make(notebooks[0], one, {"fails": True})
    before = (one / MARK).read_text()
    shows = write_notebook(notebooks[0].parent / "00_overview.ipynb", 'run = ""', "print(run)")
    assert make(shows, one) == "made" and (one / MARK).read_text() == before
    fails = write_notebook(notebooks[0].parent / "06_compare_runs.ipynb", 'run = ""', "raise ValueError")
    with pytest.raises(NotebookFailed):
        make(fails, one)
    assert (one / MARK).read_text() == before


def test_a_checkpoint_does_not_outlive_what_it_goes_on_from(
    notebooks: list[Path], runs: list[Path], make: Make
) -> None:
    one = runs[0]
    one.mkdir(parents=True)
    (one / MARK).write_text('{"stage": "02_quantize", "state": "interrupted", "said": ""}')
    (one / "qann.checkpoint.safetensors").write_text("half")
    make(notebooks[0], one)
    assert not (one / "qann.checkpoint.safetensors").exists()


def test_a_stage_does_not_stand_on_one_that_somebody_else_made_meanwhile(
    notebooks: list[Path], runs: list[Path], make: Make
) -> None:
    one, (first, second) = runs[0], notebooks
    planned = first, request_of(first, {"seed": 1})
    make(first, one, {"seed": 2})
    with pytest.raises(RuntimeError, match="01_train_ann of run one was made anew meanwhile, by other parameters"):
        make(second, one, after=planned)
    assert not (one / "qann.safetensors").exists()
    make(first, one, {"seed": 1}, force=True)
    assert make(second, one, after=planned) == "made"


def test_a_mark_on_a_disk_that_cannot_be_written_is_an_interruption(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / MARK).write_text('{"stage": "01_train_ann", "state": "running", "said": ""}')

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("ann_snn_utils.runs.manifest.FileLock.acquire", refuse)
    assert mark_of(tmp_path).state == "interrupted"


def test_a_run_is_made_by_one_at_a_time_and_the_second_finds_it_made(
    notebooks: list[Path], runs: list[Path], make: Make
) -> None:
    one, found = runs[0], []
    threads = [threading.Thread(target=lambda: found.append(make(notebooks[0], one))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["kept", "made"]


@pytest.mark.slow
def test_a_stage_has_a_kernel_of_its_own_which_is_gone_when_it_is_made(tmp_path: Path) -> None:
    code = "import os\nprint(os.getpid(), os.environ['ANN_SNN_TEST'])"
    notebook = write_notebook(tmp_path / "00_x.ipynb", 'run = ""', code)

    def said() -> list[str]:
        path = execute(notebook, tmp_path, {}, environment={"ANN_SNN_TEST": "set"})
        return json.loads(path.read_text())["cells"][-1]["outputs"][0]["text"][0].split()

    first, second = said(), said()
    assert first[0] != second[0] and first[1] == second[1] == "set"
    for pid in (first[0], second[0]):
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


@pytest.mark.slow
def test_a_stopped_owner_has_its_kernels_killed_and_gets_no_others(tmp_path: Path) -> None:
    notebook = write_notebook(
        tmp_path / "00_x.ipynb", 'run = ""', "import time\nprint('on', flush=True)\ntime.sleep(600)"
    )
    with pytest.raises(KeyboardInterrupt):
        execute(notebook, tmp_path, {}, tell=lambda line: stop_kernels("me"), owner="me")
    with pytest.raises(KeyboardInterrupt):
        execute(notebook, tmp_path, {}, owner="me")
    assert not (tmp_path / "notebooks").exists()
