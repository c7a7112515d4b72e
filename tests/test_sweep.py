"""A sweep makes each stage once, goes on where it was stopped, and a failure stops only what needs it."""

from __future__ import annotations

import csv
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_study import made, numbers, write_study

from ann_snn_utils.cli import main
from ann_snn_utils.runs.manifest import mark_of, read_manifest
from ann_snn_utils.runs.sweeps import run_row

pytestmark = pytest.mark.usefixtures("runs")
ROOT = Path(__file__).resolve().parent.parent
NAME = "digits-lenet-k{}-ternary-s{}"


def table(runs: Path, name: str) -> dict[str, dict[str, str]]:
    with (runs / "sweeps" / name / "results.csv").open(encoding="utf-8", newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    code = (
        "import sys; from pathlib import Path; from ann_snn_utils.cli import main\n"
        "if __name__ == '__main__': sys.exit(main(sys.argv[2:], Path(sys.argv[1])))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), "sweep", *arguments],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A suite that runs in the background ignores the signal, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(true, process: subprocess.Popen[str] | None = None) -> None:
    while not true():
        assert process is None or process.poll() is None, process.stdout.read()
        time.sleep(0.05)


def list_marked(runs: Path) -> list[str]:
    return [path.parent.name for path in runs.glob("*/unfinished.json")]


def kernels_of(runs: Path) -> list[int]:
    marks = [mark for run in list_marked(runs) if (mark := mark_of(runs / run))]
    words = [mark.said for mark in marks if mark.state == "running" and mark.stage == "01_train_ann"]
    return [int(text.split()[-1]) for text in words if text.startswith("epoch")]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.usefixtures("without_kernels")
def test_equal_stages_are_made_once_and_a_second_sweep_over_t_trains_nothing(
    folder: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["sweep", "--set", "k=0,1", "--set", "seed=0..1"]
    assert main([*grid, "--dry-run"], folder) == 0
    text = capsys.readouterr().out
    assert "4 runs; 10 stages to make, 2 to share, 0 done already" in text and not runs.exists()
    assert re.search(rf"3 +{NAME.format(1, 0)} +as 1 +make +make", text)

    assert main([*grid, "--name", "first", "--jobs", "2"], folder) == 0
    out, error = capsys.readouterr()
    assert numbers(runs) == "01 01 02 02 02 02 04 04 04 04"
    assert re.search(rf"{NAME.format(1, 0)} +1 +0 +80\.00 +done", out), out
    assert re.search(rf"\[\d/4\] {NAME.format(1, 0)}  01_train_ann shared$", error, re.MULTILINE), error
    assert "10 stages made and 2 shared" in out
    rows = table(runs, "first")
    assert {row["read"] for row in rows.values()} == {f"ann {seed}, k {k}" for seed in (0, 1) for k in (0, 1)}
    assert {row["state"] for row in rows.values()} == {"done"}
    shared = read_manifest(runs / NAME.format(1, 0)).stages["01_train_ann"].shared_from
    assert shared == NAME.format(0, 0)

    assert main([*grid, "--name", "first"], folder) == 0
    assert main(["sweep", "--set", "time_steps=4,6", "--name", "second"], folder) == 0
    assert numbers(runs) == "01 01 02 02 02 02 04 04 04 04 04 04"
    assert main(["report", "--sweep", "second"], folder) == 0
    assert re.search(r"-s0-\w{8} +4 +40\.00 +done", capsys.readouterr().out)


@pytest.mark.usefixtures("without_kernels")
def test_the_name_of_a_sweep_of_other_runs_is_not_taken(
    folder: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["sweep", "--notebooks", "01-02", "--name", "mine"]
    assert main([*grid, "--set", "k=0"], folder) == main([*grid, "--set", "k=0,1"], folder) == 0
    before = table(runs, "mine")
    for planned in [], ["--dry-run"]:
        assert main([*grid, "--set", "k=2", *planned], folder) == 2
        assert "sweep 'mine' had 2 other runs" in capsys.readouterr().err and table(runs, "mine") == before


@pytest.mark.usefixtures("without_kernels")
def test_a_forced_sweep_makes_again_what_is_there_and_still_shares(
    folder: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "--notebooks", "01-02", "--set", "k=0"], folder) == 0
    assert main(["sweep", "--notebooks", "01-02", "--set", "k=0,1", "--force"], folder) == 0
    assert "2 runs; 3 stages to make, 1 to share, 0 done already" in capsys.readouterr().out
    assert numbers(runs) == "01 01 02 02 02"
    first, second = (read_manifest(runs / NAME.format(k, 0)).stages["01_train_ann"] for k in (0, 1))
    assert second.shared_from == NAME.format(0, 0) and second.recorded == first.recorded


@pytest.mark.usefixtures("without_kernels")
def test_a_failing_run_stops_only_those_that_need_it_and_goes_on_once_it_is_mended(
    folder: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", "--set", "seed=0..1", "--set", "k=0,1", "--set", "bad=1", "--jobs", "2", "--name", "x"]
    assert main(command, folder) == 1
    out, error = capsys.readouterr()
    failed = sorted(path.parent for path in runs.glob("*/unfinished.json"))
    assert len(failed) == 1 and f"{failed[0].name}: 01_train_ann, cell 3: AssertionError: as asked" in error
    assert f"executed notebook: {failed[0] / 'notebooks' / '01_train_ann.ipynb'}" in error
    assert "2 runs failed or were left out" in error and f"needs this stage of {failed[0].name}" in error
    assert sorted(row["state"] for row in table(runs, "x").values()) == ["done", "done", "failed", "unfinished"]
    assert numbers(runs) == "01 01 02 02 04 04"
    write_study(folder)
    text = (folder / "01_train_ann.ipynb").read_text()
    (folder / "01_train_ann.ipynb").write_text(text.replace("assert seed != bad", "assert seed != bad + 9"))
    assert main(command, folder) == 0
    assert {row["state"] for row in table(runs, "x").values()} == {"done"}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send to another process")
def test_a_stopped_sweep_leaves_whole_and_marked_runs_and_the_same_command_goes_on(
    folder: Path, runs: Path, tmp_path: Path
) -> None:
    gate, first = tmp_path / "gate", runs / NAME.format(0, 5) / "qann.safetensors"
    arguments = ["--zip", f"wait=,{gate},{gate}", "--zip", "seed=5,6,7", "--name", "x", "--jobs", "3"]
    arguments += ["--notebooks", "01-02"]
    for how in (signal.SIGINT, signal.SIGKILL):
        process = started(folder, *arguments)
        wait_for(lambda: len(kernels_of(runs)) == 2 == len(list_marked(runs)) and first.exists(), process)
        pids = kernels_of(runs)
        process.send_signal(how)
        said = process.communicate()[0]
        wait_for(lambda pids=pids: not any(map(alive, pids)))
        states = sorted(run_row(name)["state"] for name in list_marked(runs))
        assert states == ["interrupted", "interrupted"]
        if how == signal.SIGINT:
            assert process.returncode == 130 and "Traceback" not in said
            assert "1 of 3 runs are whole; the same command goes on" in said
            assert sorted(row["state"] for row in table(runs, "x").values()) == ["done", *states]
    gate.touch()
    assert main(["sweep", *arguments], folder) == 0
    assert {row["state"] for row in table(runs, "x").values()} == {"done"}
    assert numbers(runs) == "01 01 01 01 01 01 01 02 02 02"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_cluster_that_loses_a_worker_finishes_the_sweep_and_nothing_counts_twice(
    folder: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import threading

    from dask.distributed import Client, LocalCluster

    gate, victims = tmp_path / "gate", []
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0) as cluster,
        Client(cluster) as client,
    ):

        def kill_one() -> None:
            try:
                wait_for(lambda: len(kernels_of(runs)) == 2)
                victims.extend(kernels_of(runs))
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
                wait_for(lambda: not all(map(alive, victims)))
            finally:
                gate.touch()

        killer = threading.Thread(target=kill_one, daemon=True)
        killer.start()
        arguments = ["--set", f"wait={gate}", "--set", "seed=0..2", "--name", "x", "--notebooks", "01-02"]
        assert main(["sweep", *arguments, "--dask", cluster.scheduler_address], folder) == 0, capsys.readouterr()
        killer.join()
    assert len(victims) == 2
    rows = table(runs, "x")
    assert len(rows) == 3 and {row["state"] for row in rows.values()} == {"done"}
    assert {(runs / run / "qann.safetensors").read_text() for run in rows} == {f"ann {s}, k 0" for s in range(3)}
    # The stage that was lost is made a second time, from its beginning, and no other.
    assert numbers(runs) == "01 01 01 01 02 02 02"
    assert len({line for line in made(runs)}) == 6


@pytest.mark.slow
def test_a_cluster_of_processes_on_this_machine_makes_a_sweep_and_ends_with_it(
    folder: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--set", "seed=0..1", "--name", "x", "--notebooks", "01-02", "--dask", "local", "--jobs", "1"]
    assert main(["sweep", *arguments], folder) == 0, capsys.readouterr()
    assert {row["state"] for row in table(runs, "x").values()} == {"done"}
    assert numbers(runs) == "01 01 02 02"
    wait_for(lambda: not multiprocessing.active_children())
