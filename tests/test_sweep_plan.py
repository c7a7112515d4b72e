"""What a sweep asks for is checked before anything starts, and its plan makes each different stage once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ann_snn_utils.batch.grid import build_sweep, parse_settings, read_sweep, rehearse
from ann_snn_utils.batch.plan import Plan, plan_sweep
from ann_snn_utils.cli import main
from ann_snn_utils.runs.parameters import NOTEBOOKS

pytestmark = pytest.mark.usefixtures("runs")


def cells(content: dict, folder: Path) -> list[dict]:
    return list(build_sweep(content, folder).runs.values())


def planned(folder: Path, **grid: list) -> Plan:
    return plan_sweep(build_sweep({"set": grid}, folder))


def test_a_grid_holds_every_combination_and_zipped_lists_go_side_by_side(folder: Path) -> None:
    content = {"set": {"k": [0, 1], "seed": "0..1"}, "zip": {"time_steps": [4, 8], "wait": ["a", "b"]}}
    found = cells(content, folder)
    assert len(found) == 8 and {(cell["time_steps"], cell["wait"]) for cell in found} == {(4, "a"), (8, "b")}
    assert {(cell["k"], cell["seed"]) for cell in found} == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize(
    "setting, values",
    [("k=0,1, 2", ["0", "1", "2"]), ("seed=0..2,7", ["0..2", "7"]), ("wait=../a", ["../a"]), ("wait=", [""])],
)
def test_a_setting_names_values_and_ranges(folder: Path, setting: str, values: list[str]) -> None:
    assert list(parse_settings([setting], "--set").values()) == [values]
    name = setting.partition("=")[0]
    numbers = {"k": [0, 1, 2], "seed": [0, 1, 2, 7]}
    found = [cell[name] for cell in cells({"set": parse_settings([setting], "--set")}, folder)]
    assert found == numbers.get(name, values)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "needs a YAML file, or --set"),
        (["--set", "k"], "--set 'k': give name=value"),
        (["--set", "k=0", "--set", "k=1"], "'k' is given twice"),
        (["--set", "kk=0"], "'kk': did you mean k"),
        (["--set", "k=0,x"], "k='x': 02_quantize takes an integer"),
        (["--set", "k=0,"], "k='': 02_quantize takes an integer"),
        (["--set", "seed=0..1000000000000"], "makes 1,000,000,000,001 values, more than 10,000"),
        (["--set", "k=3..1"], "k=3..1: write a range from the smaller"),
        (["--set", "k=0,0"], "two runs of the sweep are the same, {'k': 0} and {'k': 0}: leave one out"),
        (["--set", "k=0", "--zip", "k=0"], "k is in `set` and in `zip`"),
        (["--zip", "k=0,1", "--zip", "seed=1"], "one length, and k has 2, seed has 1"),
        (["--zip", "k=0,0", "--zip", "seed=1,1"], "two runs of the sweep are the same"),
        (["--set", "run=a"], "named after its parameters"),
        (["--set", "seed=0..999", "--set", "k=0..19"], "20,000 runs are more than"),
        (["--set", "k=0", "--jobs", "0"], "'--jobs': 0 is not in the range"),
        (["--set", "k=0", "--name", "a/b"], "holds '/'"),
        (["--set", "k=0", "--notebooks", "02"], "02_quantize reads ann.safetensors, which 01_train_ann makes"),
        (["--set", "seed=0", "--notebooks", "01,05"], "05_explore makes no stage of a run"),
        (["--set", "time_steps=0"], "time_steps=0: give a whole number from 1 to 1,000,000"),
        (["nothing.yaml"], "there is no file nothing.yaml"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_starts(
    folder: Path, runs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["sweep", *arguments], folder) == 2
    error = capsys.readouterr().err
    assert re.match(f"ann-snn: .*{re.escape(message)}", error) and error.count("\n") == 1
    assert not runs.exists()


def test_a_sweep_that_cannot_begin_takes_no_name(
    folder: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["sweep", "--name", "foo", "--set", "seed=0", "--notebooks", "01", "--dask", "nonsense"], folder) == 2
    )
    assert "no Dask scheduler answers at 'nonsense'" in capsys.readouterr().err
    assert not list(runs.rglob("sweep.json"))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "holds no sweep"),
        ("k: [0, 1]", "unknown key 'k'.*go below `set:`"),
        ("sets:\n  k: 1", "unknown key 'sets': did you mean set?"),
        ("set: {k: [0}", "is not YAML"),
        ("set:\n  k: 0\n  k: 1", "'k' is given twice, again in line 3"),
        ("set: [k]", "set=.*give parameters"),
        ("notebooks: [4]\nset: {k: 0}", "notebooks=.*give a selection such as"),
        ("set: !!python/object/apply:os.getcwd []", r"set=\[\].*give parameters"),
        ("set: {seed: 1:30}", "seed='1:30': 01_train_ann takes an integer"),
        ("set: {k: &a [0], seed: *a}", r"line 1 holds the alias \*a: write its values out"),
        ("set: {1: 2}", "no notebook takes a parameter '1'"),
        ("notebooks: 01\nset: {k: 1}", "none of the chosen notebooks takes 'k': choose 02_quantize too"),
        ("set: {k: []}", "k has no value"),
        ("set: {k: [[0]]}", r"k=\['0'\]: 02_quantize takes an integer"),
    ],
)
def test_a_wrong_file_is_refused_and_says_where(folder: Path, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        build_sweep(read_sweep(path), folder)


def test_a_number_in_a_file_is_in_base_10(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("notebooks: 01\nset: {seed: [7, 010]}")
    assert [cell["seed"] for cell in cells(read_sweep(path), folder)] == [7, 10]


def test_a_file_and_options_are_one_sweep(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "levels.yaml"
    path.write_text("notebooks: 01-02\nset:\n  k: [0, 1]\nzip:\n  seed: 0..1\n  wait: [x, y]\n")
    assert main(["sweep", str(path), "--set", "bad=5", "--dry-run"], folder) == 0
    assert "sweep levels: 4 runs; 6 stages to make, 2 to share" in capsys.readouterr().out
    assert main(["sweep", str(path), "--set", "k=5"], folder) == 2
    assert "k is given in" in capsys.readouterr().err


def test_a_stage_is_made_once_for_all_runs_that_ask_the_same_of_it(folder: Path) -> None:
    plan = planned(folder, k=[0, 1], seed=[0, 1], time_steps=[4, 8])
    assert [sum(steps[n].state == "make" for steps in plan.steps.values()) for n in range(3)] == [2, 4, 8]


def test_a_step_needs_the_one_before_it_and_the_one_that_it_shares_and_nothing_else(folder: Path) -> None:
    plan = planned(folder, k=[0, 1], seed=[0])
    first, second = plan.steps
    assert [step.needs for step in plan.steps[first]] == [
        (),
        (plan.steps[first][0].key,),
        (plan.steps[first][1].key,),
    ]
    trained, quantized, analysed = plan.steps[second]
    assert (trained.state, trained.donor, trained.needs) == ("shared", first, (plan.steps[first][0].key,))
    assert (quantized.state, quantized.needs, analysed.needs) == ("make", (trained.key,), (quantized.key,))
    order = [step.key for step in plan.pending()]
    assert all(order.index(need) < order.index(step.key) for step in plan.pending() for need in step.needs)
    assert not any(step.needs for steps in planned(folder, seed=[0, 1, 2]).steps.values() for step in steps[:1])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"dataset": "mnst"}, "unknown data set 'mnst'"),
        ({"network": "5Q"}, "unknown token '5Q'"),
        ({"size": 4}, "kernel 5×5 is larger than the 4×4 map"),
        ({"k": 9}, "k=9: give a whole number"),
        ({"clip": -1}, "clip=-1: give a whole number from 1"),
        ({"time_steps": 2**40}, "time_steps=1099511627776: give a whole number from 1 to 1,000,000"),
        ({"learning_rate": -0.1}, "learning_rate=-0.1: give a number from"),
        ({"momentum": 1.0}, "momentum=1.0: give a number from 0 to 1, but not 1"),
        ({"schedule": "cosine"}, "schedule='cosine': choose one of one-cycle, linear"),
        ({"augmentation": "rotate"}, "augmentation='rotate': choose one of none, shift"),
        ({"initialisation": "zeros"}, "initialisation='zeros': choose one of random, dirac, whitened"),
        ({"qann_learning_rate": -0.1}, "qann_learning_rate=-0.1: give a number from"),
        ({"optimizer": "sgd"}, "optimizer='sgd': choose one of adamw, muon"),
        ({"qann_optimizer": "sgd"}, "qann_optimizer='sgd': choose one of adamw, muon"),
        ({"distillation": 1.5}, "distillation=1.5: give a number from 0 to 1"),
        ({"samples": 361}, "digits has 360 test images"),
        ({"fault": "x", "fault_rate": 0.1}, "fault='x'"),
        ({"threshold_scale": 0.0}, "threshold_scale=0.0: give a number from 0 to .*, but not 0"),
    ],
)
def test_what_no_run_can_be_made_from_is_found_before_any_starts(settings: dict, message: str) -> None:
    notebooks = [NOTEBOOKS / f"{name}.ipynb" for name in ("01_train_ann", "02_quantize", "03_convert")]
    notebooks.append(NOTEBOOKS / "04_spike_analysis.ipynb")
    rehearse({"good": {}}, notebooks)
    with pytest.raises(ValueError, match=f"run bad cannot be made: .*{message}"):
        rehearse({"good": {}, "bad": settings}, notebooks)
