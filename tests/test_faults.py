"""A process may be killed at any time, run out of disk, or meet another one: nothing half-made stays behind."""

from __future__ import annotations

import csv
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import psutil
import pytest
import torch
from bundles import check_in_python
from toy_study import write_study

from ann_snn_utils.files import load_json, load_tensors, sha256
from ann_snn_utils.runs.folder import run_folder
from ann_snn_utils.runs.manifest import only_maker, read_manifest
from ann_snn_utils.snn.store import load_snn

if sys.platform == "win32":
    pytest.skip("processes are forked here, which this system cannot", allow_module_level=True)

import fault_work

pytestmark = pytest.mark.slow

KILLS = {"train_and_convert": 36, "bundle": 20, "sweep": 4}


@pytest.fixture(scope="module")
def processes():
    """Processes that are forked from one that has imported everything: they start in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fault_warm"])
    with pytest.MonkeyPatch.context() as patch:
        # Its own path is all that a forkserver finds modules by.
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    # The first process waits until everything is imported.
    finish(context, fault_work.slowly)
    return context


def finish(context, target, *arguments) -> None:
    process = context.Process(target=target, args=arguments)
    process.start()
    # Only a process that hangs takes this long.
    process.join(900)
    process.kill()
    assert process.exitcode == 0


def undisturbed(context, work: str, place: Path) -> float:
    """Do the work without a fault; give the seconds that it took."""
    started = time.perf_counter()
    finish(context, fault_work.run_slowly, work, str(place))
    return time.perf_counter() - started


def whole(folder: Path) -> None:
    """Every file that has its name is complete."""
    for path in (path for path in folder.rglob("*") if not path.name.startswith(".")):
        if path.suffix == ".safetensors":
            load_tensors(path)
        elif path.suffix == ".json":
            load_json(path)


def killed_at_random(
    context,
    work: str,
    place: Path,
    seconds: float,
    check: Callable[[], None],
    whole: Callable[[Path], None] = whole,
) -> None:
    """Start the work again and again, kill it, and check what it made whenever it came through."""
    chance, killed = random.Random(work), 0
    while killed < KILLS[work]:
        process = context.Process(target=fault_work.run_slowly, args=(work, str(place)))
        process.start()
        process.join(chance.uniform(0, 0.8 * seconds))
        process.kill()
        process.join()
        whole(place)
        assert process.exitcode in (0, -signal.SIGKILL)
        killed += process.exitcode != 0
        # A bundle that has its name was finished, even if its process was killed just then.
        if process.exitcode == 0 or (work == "bundle" and place.exists()):
            check()
            shutil.rmtree(place)
    undisturbed(context, work, place)
    check()


def test_a_killed_training_and_conversion_go_on_to_the_results_of_an_undisturbed_one(processes, tmp_path):
    calm, rough = tmp_path / "calm" / "run", tmp_path / "rough" / "run"
    seconds = undisturbed(processes, "train_and_convert", calm.parent)

    def check() -> None:
        for name in ("c.checkpoint.safetensors", "qann.safetensors", "snn.safetensors"):
            one, other = (load_tensors(folder / name)[0] for folder in (calm, rough))
            assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name
        assert load_snn(rough / "snn.safetensors").integer
        stages = read_manifest(rough).stages
        assert list(stages) == ["02_quantize", "03_convert"] and not any(s.stale for s in stages.values())

    killed_at_random(processes, "train_and_convert", rough.parent, seconds, check)


def test_a_bundle_is_whole_or_not_there_wherever_its_writing_is_killed(processes, tmp_path):
    calm, rough = tmp_path / "calm" / "bundle", tmp_path / "rough" / "bundle"
    seconds = undisturbed(processes, "bundle", calm)

    def check() -> None:
        for path in (path for path in calm.rglob("*") if path.is_file()):
            assert path.read_bytes() == (rough / path.relative_to(calm)).read_bytes(), path

    killed_at_random(processes, "bundle", rough, seconds, check)
    assert check_in_python(rough).returncode == 0


def kernels_of(runs: Path) -> list[psutil.Process]:
    """The processes that work in this folder of runs, the kernels that outlive their sweep among them."""
    every = psutil.process_iter(["environ"])
    return [process for process in every if (process.info["environ"] or {}).get("ANN_SNN_RUNS") == str(runs)]


def test_a_killed_sweep_goes_on_to_the_table_of_an_undisturbed_one(processes, tmp_path):
    write_study(tmp_path / "notebooks")
    calm, rough = tmp_path / "calm" / "runs", tmp_path / "rough" / "runs"
    seconds = undisturbed(processes, "sweep", calm)
    stages = {path.parent.name: read_manifest(path.parent).stages for path in calm.glob("*/manifest.json")}
    assert [len(own) for own in stages.values()] == [3] * 2

    def table(runs: Path) -> list[dict[str, str]]:
        with (runs / "sweeps" / "x" / "results.csv").open(encoding="utf-8", newline="") as file:
            # When a stage was made, from which commit, and which of its equals was made, is all that may differ.
            apart = ("recorded", "shared_from", "commit", "dirty")
            return [
                {name: value for name, value in row.items() if not name.endswith(apart)}
                for row in csv.DictReader(file)
            ]

    def whole_runs(runs: Path) -> None:
        for path in runs.rglob("*.json"):
            assert path.name.startswith(".") or load_json(path)
        for path in runs.glob("*/manifest.json"):
            for name, stage in read_manifest(path.parent).stages.items():
                for artifact, digest in stage.artifacts.items():
                    assert digest == stages[path.parent.name][name].artifacts[artifact]
                    assert digest == sha256(path.parent / artifact), "an artifact is not what its record says"

    def check() -> None:
        # A kernel notices within a second or two that its sweep is gone.
        end = time.monotonic() + 60
        while kernels_of(rough) and time.monotonic() < end:
            time.sleep(0.05)
        assert not kernels_of(rough)
        whole_runs(rough)
        assert table(rough) == table(calm)
        assert not list(rough.glob("*/unfinished.json"))

    killed_at_random(processes, "sweep", rough, seconds, check, whole_runs)


@pytest.mark.parametrize("work", ["train_and_convert", "bundle"])
@pytest.mark.parametrize("room", [500, 3000])
def test_a_full_disk_is_said_and_leaves_no_file(processes, tmp_path, work, room):
    place, said = tmp_path / "full" / "place", tmp_path / "said"
    finish(processes, fault_work.without_room, work, str(place), room, str(said))
    text = said.read_text()
    assert text.startswith("OSError: [Errno") and "cannot write …" in text and " space" in text, text
    whole(tmp_path / "full")
    assert not [path for path in (tmp_path / "full").rglob("*") if path.name.endswith(".tmp")]
    assert not (tmp_path / "full" / "place" / "manifest.json").exists()


@pytest.mark.parametrize("work", ["train_and_convert", "bundle"])
def test_a_folder_that_cannot_be_written_is_said_with_the_remedy(processes, tmp_path, work):
    closed, said = tmp_path / "closed", tmp_path / "said"
    closed.mkdir()
    closed.chmod(0o555)
    said.touch()
    said.chmod(0o666)
    for parent in tmp_path.parents:
        # Whoever becomes nobody must still get there.
        if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(0o711)
    tmp_path.chmod(0o711)
    finish(processes, fault_work.as_nobody, work, str(closed / "place"), str(said))
    text = said.read_text()
    assert text.startswith("PermissionError") and "…/closed" in text and "writable" in text, text
    assert not list(closed.iterdir())


def test_processes_that_record_at_the_same_time_lose_nothing(processes, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "a").write_text("a")
    names = [[f"{number:02}_stage_{who}" for number in range(6)] for who in "abc"]
    started = [processes.Process(target=fault_work.record_many, args=(str(tmp_path), part)) for part in names]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    assert set(read_manifest(folder).stages) == {name for part in names for name in part}


def test_a_second_process_in_a_run_folder_says_that_it_waits_and_changes_nothing(processes, tmp_path, runs):
    folder, said = run_folder("run", create=True), tmp_path / "said"
    with only_maker(folder, print):
        process = processes.Process(target=fault_work.make_when_free, args=(str(runs), str(said)))
        process.start()
        # A file is there before what is written into it.
        while not (said.exists() and said.read_text()):
            time.sleep(0.01)
        assert said.read_text() == "waiting: another process makes run"
        assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []
    process.join(60)
    assert process.exitcode == 0 and (folder / "made").exists()
