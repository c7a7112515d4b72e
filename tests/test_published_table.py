"""The README's table: every setting once, with its seeds, beside the published system; and the README shows it."""

from __future__ import annotations

import re

import pytest
from outcomes import outcome

from ann_snn_utils.ann.notation import NETWORKS
from ann_snn_utils.cli import main
from ann_snn_utils.files import ROOT
from ann_snn_utils.runs.published import COLUMNS, published, results_table

LENET, VGG = (NETWORKS[name][0] for name in ("lenet", "vgg"))


def table(*outcomes) -> list[dict[str, str]]:
    text = results_table({one.run: one for one in outcomes}).replace("\N{NO-BREAK SPACE}", " ")
    header, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    assert tuple(header) == COLUMNS
    return [dict(zip(header, line, strict=True)) for line in lines]


def reached(run: str, accuracy: float = 0.99, network: str = LENET, **parameters):
    shares = {"ann": 0.98, "qann": accuracy, "snn": {"4": 0.9, "silence": accuracy}}
    return outcome(run, {"accuracy": shares, "network": network}, **{"dataset": "mnist"} | parameters)


def test_seeds_are_averaged_beside_the_published_numbers() -> None:
    (row,) = table(reached("a", 0.98), reached("b", 0.99, seed=1))
    assert (row["data set"], row["network"], row["setting"], row["n"]) == ("MNIST", "lenet", "k = 0, ternary", "2")
    assert (row["quantized ANN"], row["SNN, T = 4"], row["SNN, T = 8"]) == ("98.50 ± 0.71", "90.00 ± 0.00", "–")
    assert row["published"] == "ANN 99.45, SNN 99.45 at T = 4"
    assert row["mismatches"] == "0 of 10,000" and row["epochs"] == "1 + 1"


def test_a_setting_is_all_that_is_not_usual() -> None:
    rows = table(reached("a", crop=24, label_smoothing=0.1), reached("b", k=1, ternary=False), reached("c", clip=4))
    assert [row["setting"] for row in rows] == [
        "k = 0, ternary, clip = 4",
        "k = 0, ternary, label_smoothing = 0.1, crop = 24",
        "k = 1, int8",
    ]
    assert [row["published"] for row in rows][2] == "–"


def test_seeds_of_one_setting_make_one_row_that_tells_how_many_versions_of_the_code_ran() -> None:
    same, other = table(reached("a"), reached("b", seed=1, code="c1"), reached("c", k=1), reached("d", k=1, seed=1))
    assert (same["setting"], same["n"]) == ("k = 0, ternary", "2 (2 versions of the code)")
    assert (other["setting"], other["n"]) == ("k = 1, ternary", "2")


def test_results_on_other_images_are_rows_of_their_own() -> None:
    changed = reached("b")
    for stage in changed.stages.values():
        stage["metrics"]["data"] = {"test": "another"}
    rows = table(reached("a"), changed)
    assert [row["n"] for row in rows] == ["1", "1"] and all(", images " in row["setting"] for row in rows)


def test_what_was_published_stands_first() -> None:
    assert [row["data set"] for row in table(reached("a", dataset="digits"), reached("b"))] == ["MNIST", "digits"]


def test_choices_and_disturbed_runs_are_no_results() -> None:
    disturbed = outcome("b", {"undisturbed": False})
    assert [row["n"] for row in table(reached("a"), reached("c", held_out=500), disturbed)] == ["1"]
    assert "no results on a test set yet" in results_table({"c": reached("c", held_out=500)})


def test_copies_of_images_are_never_called_the_originals() -> None:
    (row,) = table(reached("a", dataset="cifar10-jpeg", network=VGG))
    assert row["data set"] == "CIFAR-10, JPEG copies" and row["published"].endswith("original images")
    assert published("cifar10", VGG)["snn"] == 0.9315 and published("cifar10", LENET) is None


def test_the_readme_holds_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANN_SNN_RESULTS", raising=False)
    assert main(["table"]) == 0
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- ann-snn table -->\n(.*?)<!-- end of table -->", readme, re.DOTALL)
    assert shown == capsys.readouterr().out, "put what `ann-snn table` prints between the marks in README.md"
