"""A bundled network is measured anew, and a recorded number that is not reproduced is a failure."""

from __future__ import annotations

import functools
import re

import pytest
from networks import random_ann
from outcomes import make_run, results

from ann_snn_utils.ann.reference import evaluate
from ann_snn_utils.ann.store import save_pretrained
from ann_snn_utils.cli import main
from ann_snn_utils.data.dataset import load_dataset
from ann_snn_utils.measure import equivalence
from ann_snn_utils.measure.activity import METHOD, correct
from ann_snn_utils.runs import evaluation as module
from ann_snn_utils.runs import gallery
from ann_snn_utils.runs.folder import run_folder
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert

pytestmark = pytest.mark.slow

SOURCE = {"name": "digits", "size": 8, "limit": 40}
ANN = random_ann(1, classes=10, clip=2)


@functools.cache
def true_numbers() -> dict:
    snn, test = convert(ANN), load_dataset(split="test", **SOURCE)
    record = simulate(snn, test)
    return {
        "source": SOURCE,
        "ann_correct": 39,
        "correct": evaluate(ANN, test),
        "samples": 40,
        "mismatches": 0,
        "neurons": 40 * sum(layer.neurons for layer in snn.layers),
        "seed": 0,
        "snn_correct": {"1": int(correct(record)[0]), "silence": int(correct(record)[-1])},
        "spikes_per_sample": float(record.spike_num[-1]) / 40,
        "sops_per_sample": float(record.sop_num[-1]) / 40,
    }


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """Bundle the network under the name tiny, with these numbers changed."""
    for name in ("list_pretrained", "load_pretrained"):
        original = getattr(gallery, name)
        monkeypatch.setattr(gallery, name, lambda *a, original=original: original(*a, folder=tmp_path))
    return lambda **changed: save_pretrained(ANN, "tiny", tmp_path, **true_numbers() | changed)


def lines_of(capsys) -> dict[str, list[str]]:
    out = capsys.readouterr().out
    rows = (re.split(r"  +", line.strip()) for line in out.splitlines() if line.startswith("  "))
    return {row[0]: row[1:] for row in rows} | {"all": [out]}


def test_a_true_record_is_reproduced_in_parts_as_in_one(keep, capsys, monkeypatch):
    keep()
    monkeypatch.setattr(equivalence, "WORKING_SET", 7 * true_numbers()["neurons"] // 40)
    assert main(["evaluate", "--pretrained", "tiny"]) == 0
    shown = lines_of(capsys)
    right = true_numbers()
    assert shown["quantized ANN"] == [f"{100 * right['correct'] / 40:.2f} % ({right['correct']} of 40)"] * 2
    first = right["snn_correct"]["1"]
    assert shown["SNN, T = 1"] == [f"{100 * first / 40:.2f} % ({first} of 40)"] * 2
    assert shown["full-precision ANN"] == ["–", "97.50 % (39 of 40)"]
    assert "reproduced: every recorded number above" in shown["all"][0]
    assert {f"SNN, T = {step}" for step in (1, 2, 3, 4, 6, 8)} <= set(shown)
    assert "spikes per image" in shown and "SOPs per image" in shown and "code mismatches" in shown


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"correct": 41}, "quantized ANN: "),
        ({"snn_correct": {"1": 41}}, "SNN, T = 1: "),
        ({"snn_correct": {"5": 41}}, "SNN, T = 5: "),
        ({"mismatches": 2}, "code mismatches: 0, recorded 2"),
        ({"neurons": 2}, "codes compared: "),
        ({"spikes_per_sample": 1e-3}, "spikes per image: "),
        ({"sops_per_sample": 0.5}, "SOPs per image: "),
        ({"silence_step": 99}, "last step with a spike: "),
        ({"macs_per_sample": 7}, "MACs per image: "),
        ({"energy_pj": {"snn": 7.5}}, "energy of snn, pJ: "),
        ({"samples": 41}, "the test set has 40 images, recorded are results on 41"),
    ],
)
def test_a_number_that_is_not_reproduced_is_named_and_fails(keep, capsys, changed, said):
    keep(**changed)
    assert main(["evaluate", "--pretrained", "tiny"]) == 1
    assert f"NOT REPRODUCED  {said}" in capsys.readouterr().out


def test_steps_that_a_study_was_asked_for_are_measured_too(keep, capsys):
    right = correct(simulate(convert(ANN), load_dataset(split="test", **SOURCE))).tolist()
    keep(snn_correct={"5": right[:5][-1], "100": right[-1], "silence": right[-1]})
    assert main(["evaluate", "--pretrained", "tiny"]) == 0
    assert {"SNN, T = 5", "SNN, T = 100"} <= set(lines_of(capsys))


def test_results_that_are_not_those_that_were_recorded_are_compared_with_nothing(runs):
    folder, test = run_folder(make_run("a")), load_dataset(split="test", **SOURCE)
    (folder.parent.parent / "b").symlink_to(folder)
    for name in ("a", str(folder), str(folder.parent.parent / "b")):
        assert module._recorded(gallery.Network(name, ANN, convert(ANN), test))["samples"] == results()["samples"]
    text = (folder / "results.json").read_text()
    (folder / "results.json").write_text(text.replace("12.5", "12.25"))
    with pytest.raises(ValueError, match="results.json of a is not the file that was recorded"):
        module._recorded(gallery.Network("a", ANN, convert(ANN), test))


def test_results_of_before_right_answers_and_codes_were_counted_are_compared_as_far_as_they_go():
    now, old = results(), results()
    del old["correct"], old["neurons"]
    assert module.differing(now, old) == ()
    old["accuracy"]["snn"]["1"] = 0.49
    assert module.differing(now, old) == ("SNN, T = 1: 50, recorded 49",)


def test_numbers_over_time_are_compared_and_the_first_step_that_differs_is_named():
    recorded = {"accuracy_over_time": [0.5, 0.97, 0.97], "sops_over_time": [600.0, 1200.0, 1235.0]}
    assert module.differing(results(), results(changed=recorded)) == (
        "accuracy after step 2: 0.98, recorded 0.97",
        "SOPs per image after step 3: 1,234.0, recorded 1,235.0",
    )
    assert module.differing(results(), results(changed={"energy_over_time": None})) == ()
    effective = [results(changed={"effective_sops_per_sample": number}) for number in (700.5, 701.5)]
    assert module.differing(*effective) == ("effective SOPs per image: 700.5, recorded 701.5",)


def test_what_is_recorded_and_not_compared_is_told():
    told = module.evaluation_table(module.Evaluation("a", results(), results(changed={"flipped": {}}), ()))
    assert "\nreproduced: every recorded number above, and those over time\n" in told
    assert told.endswith("\nnot measured: the full-precision network, noise")
    lost = module.evaluation_table(module.Evaluation("a", results(), results(changed={"deleted": [0.1]}), ("k",)))
    assert lost.endswith("NOT REPRODUCED  k\nnot measured: the full-precision network, noise, deleted spikes")


def test_energies_by_model_are_compared_as_far_as_sums_of_real_numbers_go():
    now, then = (results(changed={"energy_by_model": {"yan": {"snn": snn}}}) for snn in (3e6, 3e6 * (1 + 1e-12)))
    # Of dense hardware that skips zeros, which a study measures and this does not.
    then["energy_by_model"]["yan"]["int8_skipping"] = 5e6
    assert module.differing(now, then) == ()
    then["energy_by_model"]["yan"]["snn"] = 3e6 + 1
    assert module.differing(now, then) == ("yan of snn, pJ: 3,000,000.0, recorded 3,000,001.0",)


def test_on_a_part_of_the_test_set_nothing_is_claimed(keep, capsys):
    keep(correct=41)
    assert main(["evaluate", "--pretrained", "tiny", "--samples", "9"]) == 0
    out = capsys.readouterr().out
    assert "9 test images" in out and "those of 40 images: nothing was checked" in out


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["none"], "'none'"),
        (["tiny", "--samples", "0"], "'--samples': 0"),
        (["tiny", "--samples", "41"], "samples=41"),
    ],
)
def test_a_mistake_is_one_message(keep, capsys, arguments, said):
    keep()
    assert main(["evaluate", "--pretrained", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("ann-snn: ") and error.count("\n") == 1


def test_a_network_without_a_record_says_so(keep, capsys):
    keep(samples=None)
    assert main(["evaluate", "--pretrained", "tiny"]) == 2
    assert "the network's metadata record no results" in capsys.readouterr().err


def test_the_method_has_its_number_as_long_as_a_bundled_network_reaches_what_was_recorded_with_it():
    found = module.evaluate_network("bundled:digits-lenet-k0")
    numbers = ("silence_step", "mean_settling_step", "macs_per_sample", "energy_pj")
    assert {"snn", "qann"} <= set(found.recorded["correct"]) and found.differences == ()
    assert {n: found.measured[n] for n in numbers} == {n: pytest.approx(found.recorded[n]) for n in numbers}
    remedy = "raise METHOD where numbers change, and record the bundled network's anew"
    assert found.recorded["method"] == found.measured["method"] == METHOD, remedy
