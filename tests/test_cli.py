"""The command line: what it prints, what it exits with, and what a user's mistake looks like."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from outcomes import make_run, results
from PIL import Image
from toy_notebooks import write_notebook

from ann_snn_utils import __version__
from ann_snn_utils.cli import main
from ann_snn_utils.runs.folder import run_folder

pytestmark = pytest.mark.usefixtures("runs")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notebooks"
    first = ('run = ""', 'dataset = "digits"  # name or folder', "time_steps = 4", "fast = True")
    first += ("fails = False", "wait = False")
    code = "import os, time\nprint('pid', os.getpid())\nif wait:\n    time.sleep(600)\nassert not fails, 'as asked'"
    write_notebook(folder / "01_train_ann.ipynb", "\n".join(first), code)
    write_notebook(folder / "04_spike_analysis.ipynb", 'run = ""\ntime_steps = 8', "dataset = 1")
    write_notebook(folder / "06_compare_runs.ipynb", 'run = ""')
    return folder


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err


def test_help_lists_every_parameter_with_its_default_and_notebooks(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "--help"], folder) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--dataset STR name or folder (default 'digits' in 01)" in text
    assert "--time-steps INT (default 4 in 01; 8 in 04)" in text
    assert "--fast / --no-fast (default True in 01)" in text


def test_help_of_the_real_notebooks_is_quick_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\nfrom ann_snn_utils.cli import main\n"
        "try:\n    main(['study', '--help'])\n"
        "finally:\n    print([m for m in ('torch', 'numpy', 'papermill', 'nbformat') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stderr
    assert "--time-steps" in done.stdout and "--ternary / --no-ternary" in done.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["study", "--time-steps", "four"], "time_steps='four': 01_train_ann takes an integer"),
        (["study", "-p", "time_step", "4"], "'time_step'.*did you mean time_steps"),
        (["study", "--notebooks", "9"], "'9' names no notebook"),
        (["study", "--run", "a/b"], "run='a/b' holds '/'"),
        (["study", "--time-steps", "1", "-p", "time_steps", "2"], "two values for time_steps"),
        (["report", "none"], "there is no run 'none'"),
        (["simulate", "none"], "there is no run 'none'"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str], runs: Path, arguments: list[str], message: str
) -> None:
    assert main(arguments, folder) == 2
    error = said(capsys)
    assert re.match(f"ann-snn: .*{message}", error) and error.count("\n") == 1
    assert not runs.exists()


@pytest.mark.parametrize("arguments", [[], ["studdy"], ["study", "--datasets", "x"], ["study", "--time-step", "1"]])
def test_an_unknown_command_or_option_shows_the_usage(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(arguments, folder) == 2
    assert "Usage: ann-snn" in said(capsys)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["simulate", "none", "--time-steps", "0"], "'--time-steps': 0 is not in the range x>=1"),
        (["sweep", "--set", "k=0,1", "--jobs", "0"], "'--jobs': 0 is not in the range"),
        (["study", "--tine-steps", "1"], "No such option '--tine-steps'. Did you mean '--time-steps'"),
        (["bundle", "--out", "x"], "Name one network: a run, or bundled:NAME"),
        (["evaluate", "bundled:a", "--pretrained", "b"], "Name one network"),
        (["evaluate", ""], "Name one network"),
        (["energy", "bundled:a", "--sentence"], "leave out NETWORK"),
        (["energy", "bundled:a", "--measure"], "leave out NETWORK"),
        (["report", "a", "--sweep", "b"], "Give runs, or --sweep NAME"),
        (["bench", "--all"], "give --show too"),
    ],
)
def test_a_wrong_option_is_named_with_what_would_be_right(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments, folder) == 2
    assert message in said(capsys)


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ann-snn, version {__version__}\n"


@pytest.mark.slow
def test_a_failing_notebook_is_exit_code_1_with_its_cell_and_its_output(
    folder: Path, capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    arguments = ["study", "--run", "x", "-p", "fails", "true", "--quiet", "--site", str(site)]
    assert main(arguments, folder) == 1
    error = said(capsys)
    assert error.startswith("ann-snn: 01_train_ann failed in cell 2: AssertionError: as asked")
    page = runs / "x" / "html" / "01_train_ann.html"
    assert "as asked" in (runs / "x" / "notebooks" / "01_train_ann.ipynb").read_text() and page.is_file()
    assert (site / "01_train_ann.html").read_bytes() == page.read_bytes() and (site / "index.html").is_file()
    assert not (runs / "x" / "notebooks" / "04_spike_analysis.ipynb").exists()


@pytest.mark.slow
def test_a_study_ends_with_the_table_and_where_everything_lies(
    folder: Path, capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    target = run_folder("x", create=True)
    (target / "results.json").write_text(json.dumps(results("x")))
    assert main(["study", "--run", "x", "--notebooks", "04", "--time-steps", "3"], folder) == 0
    captured = capsys.readouterr()
    assert "SNN at silence" in captured.out and str(target / "html") in captured.out
    assert "[1/1] 04_spike_analysis" in captured.err
    assert "time_steps = 3" in (target / "notebooks" / "04_spike_analysis.ipynb").read_text()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send to another process")
def test_ctrl_c_says_what_was_finished_and_leaves_no_kernel_behind(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ann_snn_utils.cli import main\n"
        "sys.exit(main(sys.argv[2:], Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(folder), "study", "--run", "x", "-p", "wait", "true"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # A suite that runs in the background ignores the signal, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "pid" in line:
            process.send_signal(signal.SIGINT)
            break
    error = process.stderr.read()
    assert process.wait() == 130
    assert "stopped in 01_train_ann; finished stages: none" in error and "Traceback" not in error
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines[-1].split()[-1]), 0)


@pytest.mark.slow
def test_a_data_set_folder_is_found_from_where_the_user_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Path
) -> None:
    for place, value in (("train/a", 0), ("train/b", 255), ("test/a", 0), ("test/b", 255)):
        (tmp_path / "pictures" / place).mkdir(parents=True)
        pixels = np.full((8, 8), value, dtype=np.uint8)
        pixels[0] = 128
        Image.fromarray(pixels).save(tmp_path / "pictures" / place / "0.png")
    monkeypatch.chdir(tmp_path)
    assert main(["study", "--run", "x", "--notebooks", "01", "--dataset", "pictures", "--quiet"], folder) == 0
    executed = (runs / "x" / "notebooks" / "01_train_ann.ipynb").read_text()
    assert f'dataset = \\"{tmp_path / "pictures"}\\"' in executed


@pytest.mark.parametrize("command", ["report", "runs"])
def test_every_run_has_one_line_that_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], runs: Path, command: str
) -> None:
    assert main([command]) == 0
    assert "no runs in" in capsys.readouterr().out
    for run, text in (("full", json.dumps(results("full"))), ("half", None)):
        (runs / run).mkdir(parents=True)
        (runs / run / "manifest.json").write_text(json.dumps({"run": run, "stages": {}}))
        if text:
            (runs / run / "results.json").write_text(text)
    (runs / "none").mkdir()
    mark = {"stage": "01_train_ann", "state": "failed", "said": ""}
    (runs / "none" / "unfinished.json").write_text(json.dumps(mark))
    assert main([command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"  full +digits +99\.00 +98\.00 +98\.00 +2 +0 +1[23]", lines[1])
    assert re.fullmatch(r"  half +no results yet; done: nothing", lines[2])
    assert re.fullmatch(r"  none +no results yet; done: nothing; failed in 01_train_ann", lines[3])
    assert main(["report", "full"]) == 0
    assert "quantized ANN" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["runs", "networks"])
def test_a_folder_that_no_run_can_be_does_not_keep_the_others_from_being_listed(
    capsys: pytest.CaptureFixture[str], runs: Path, command: str
) -> None:
    for name in ("mine", "mine (copy)"):
        (runs / name).mkdir(parents=True)
        (runs / name / "manifest.json").write_text(json.dumps({"run": name, "stages": {}}))
        (runs / name / "snn.safetensors").touch()
    assert main([command]) == 0
    out = capsys.readouterr().out
    assert "mine" in out and "copy" not in out


def test_networks_lists_the_bundled_ones_and_those_of_runs_under_the_names_that_commands_take(
    capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    (runs / "mine").mkdir(parents=True)
    (runs / "mine" / "manifest.json").write_text(json.dumps({"run": "mine", "stages": {}}))
    (runs / "mine" / "snn.safetensors").touch()
    assert main(["networks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (digits,) = [line.split() for line in lines if "bundled:digits-lenet-k0" in line]
    assert digits[1:] == ["digits", "32C5-P2-64C5-P2-1000", "100.00", "%", "0.3", "MB"]
    assert lines[-1].split() == ["mine", "no", "results", "yet"]


def test_a_bundled_network_is_not_trained_again_under_its_name(
    capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    assert main(["study", "--run", "bundled:digits-lenet-k0"]) == 2
    assert "notebooks 01 to 03 make another network" in said(capsys)


def test_a_terminal_in_an_old_encoding_shows_results_all_the_same(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("old")
    with io.TextIOWrapper(io.BytesIO(), encoding="latin-1") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["report", "old"]) == 0
        stream.flush()
        assert b"energy per image" in stream.buffer.getvalue()


def test_a_home_that_does_not_exist_is_an_ordinary_folder_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANN_SNN_RUNS", "~nosuchuser/runs")
    assert main(["report"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "how, trial",
    [
        (["--time-steps", "2"], "time_steps=2"),
        (["--samples", "20"], "samples=20"),
        (["--samples", "20", "--noise-ratio", "0.5"], "noise_ratio=0.5-samples=20"),
    ],
)
def test_the_logs_of_another_run_of_the_network_leave_its_own(runs: Path, how: list[str], trial: str) -> None:
    arguments = ["simulate", "bundled:digits-lenet-k0", "--logs"]
    logs = "figs/WQ_INT/k0/sop_num.txt"
    own = runs / "digits-lenet-k0" / logs
    assert main(arguments) == 0
    before = own.read_bytes()
    assert main([*arguments, *how]) == 0
    assert own.read_bytes() == before != (runs / "digits-lenet-k0/trials" / trial / logs).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("how", [["--noise-ratio", "1.9"], ["--fault", "flip", "--fault-rate", "0.2"]])
def test_the_logs_of_a_disturbed_network_are_of_the_run_that_is_printed(
    capsys: pytest.CaptureFixture[str], runs: Path, how: list[str]
) -> None:
    arguments = ["simulate", "bundled:digits-lenet-k0", "--time-steps", "2", "--samples", "250", "--logs", *how]
    assert main(arguments) == 0
    _, *lines, folder = capsys.readouterr().out.splitlines()
    logged = [int(line) for line in (Path(folder.removeprefix("logs in ")) / "accuracy.txt").read_text().split()]
    assert len(logged) == 4, "two batches of two steps"
    printed = [int(line.split()[1]) for line in lines]
    assert printed == [logged[0] + logged[2], logged[1] + logged[3]] and printed[0] < 250


@pytest.mark.slow
def test_simulate_prints_a_line_for_each_step_and_writes_the_published_logs(
    capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    arguments = ["simulate", "bundled:digits-lenet-k0", "--time-steps", "3", "--samples", "50", "--logs"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["T", "1", "2", "3"]
    logs = runs / "digits-lenet-k0" / "trials" / "samples=50-time_steps=3" / "figs" / "WQ_INT" / "k0"
    accuracy = (logs / "accuracy.txt").read_text().split()
    assert [line.split()[1] for line in lines[1:4]] == accuracy and lines[4] == f"logs in {logs}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "network", [["bundled:digits-lenet-k0"], ["bundled: digits-lenet-k0"], ["--pretrained", "digits-lenet-k0"]]
)
def test_what_bundle_prints_can_be_pasted_and_every_name_of_a_network_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], network: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bundle", *network, "--samples", "1", "--time-steps", "1", "--out", "my bundle"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("check it: ")]
    command = line.removeprefix("check it: ").split("&&")[0]
    done = subprocess.run(["sh", "-c", f"{command} && cat manifest.json"], capture_output=True, text=True)
    assert done.returncode == 0 and "pretrained digits-lenet-k0" in done.stdout


def test_a_data_set_with_a_name_that_no_file_can_have_is_left_as_it_is():
    from ann_snn_utils.data.dataset import absolute_dataset

    assert absolute_dataset("1" * 5000) == "1" * 5000 and absolute_dataset("a\0b") == "a\0b"


def test_a_package_away_from_its_notebooks_says_what_is_missing(tmp_path, capsys):
    assert main(["study"], tmp_path) == 2
    assert f"there are no notebooks in {tmp_path}" in capsys.readouterr().err


def test_options_that_would_do_nothing_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--show", "--quick"]) == 2
    assert "--show measures nothing" in capsys.readouterr().err
    assert main(["study", "--fault", "delete"]) == 2
    assert "fault='delete' without a fault_rate" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize("target", ["lab", "bench", "test"])
def test_a_parameter_is_refused_where_make_would_drop_it(target: str) -> None:
    done = subprocess.run(["make", "-n", target, "K=1"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and f"make {target} takes no K" in done.stderr
