"""The README's table and the page of all results: what stands in them, and that both hold what is printed."""

from __future__ import annotations

import re

import pytest
from outcomes import outcome

from ann_snn_utils.ann.notation import NETWORKS
from ann_snn_utils.cli import main
from ann_snn_utils.files import ROOT
from ann_snn_utils.runs.published import (
    MOST_ROWS,
    all_results,
    bundled_beside,
    by_dataset,
    main_results,
    main_table,
    on_test_set,
    published,
)

LENET, VGG = (NETWORKS[name][0] for name in ("lenet", "vgg"))


def table(*results) -> list[dict[str, str]]:
    rows = main_results({one.run: one for one in results}).to_dict("records")
    return [{name: str(value).replace("\N{NO-BREAK SPACE}", " ") for name, value in row.items()} for row in rows]


def reached(run: str, accuracy: float = 0.99, last: int = 5, network: str = LENET, **parameters):
    shares = {"ann": 0.98, "qann": accuracy, "snn": {"4": 0.9, "silence": accuracy}}
    changed = {"accuracy": shares, "network": network, "silence_step": last}
    return outcome(run, changed, **{"dataset": "mnist"} | parameters)


def test_seeds_are_averaged_beside_the_published_numbers() -> None:
    (row,) = table(reached("a", 0.98), reached("b", 0.99, seed=1, code="other"))
    assert (row["images, network"], row["setting"], row["seeds"]) == ("MNIST, LeNet", "k = 0, ternary", "2")
    assert (row["SNN at silence"], row["SNN, T = 4"], row["SNN, T = 2"]) == ("98.50 ± 0.71", "90.00 ± 0.00", "–")
    assert row["published"] == "99.45 at T = 4" and row["epochs"] == "1 + 1"


def test_the_main_settings_are_the_usual_one_and_the_one_that_is_silent_soonest_whatever_they_reach() -> None:
    forms = [reached("a", 0.5), reached("b", 0.9, clip=4), reached("c", 0.7, last=2, clip=1, levels=1, k=1)]
    assert [row["setting"] for row in table(*forms)] == ["k = 0, ternary", "k = 1, ternary, 1 level, clip 1"]
    bundled = reached("mnist-lenet-k0-ternary-s0-da1a4b84", 0.6, clip=2, seed=1)
    assert [row["setting"] for row in table(*forms, bundled)][0] == "k = 0, ternary, clip 2"


def test_the_published_network_stands_first_and_alone_has_a_row_for_what_is_silent_soonest() -> None:
    small = [reached("a", network="8C3-10"), reached("b", last=1, clip=1, network="8C3-10")]
    rows = table(*small, reached("c"), reached("d", last=2, clip=1))
    assert [row["setting"] for row in rows] == ["k = 0, ternary", "k = 0, ternary, clip 1", "k = 0, ternary"]
    assert [row["images, network"] for row in rows] == ["MNIST, LeNet"] * 2 + ["MNIST, 8C3-10"]


def test_of_two_bundled_settings_of_another_network_the_one_with_more_seeds_has_a_row(monkeypatch) -> None:
    monkeypatch.setattr("ann_snn_utils.runs.published.bundled_runs", lambda: ["a", "x0", "y0"])
    many = [reached(f"x{seed}", network="8C3-10", seed=seed) for seed in range(10)]
    few = [reached(f"y{seed}", network="8C3-10", seed=seed, clip=1) for seed in range(9)]
    row = table(reached("a"), *few, *many)[-1]
    assert (row["setting"], row["seeds"]) == ("k = 0, ternary", "10")


def test_a_row_says_where_not_all_test_images_were_shown() -> None:
    whole, part = table(reached("a"), reached("b", last=3, limit=100))
    assert (whole["setting"], part["setting"]) == ("k = 0, ternary", "k = 0, ternary, 100 images")
    assert "samples 500" in table(reached("a"), reached("b", last=3, samples=500))[1]["setting"]


def test_the_table_has_at_most_eight_rows_and_what_was_published_stands_first() -> None:
    rows = table(*(reached(str(i), dataset=f"images{i}") for i in range(9)), reached("m"))
    assert len(rows) == MOST_ROWS and rows[0]["images, network"] == "MNIST, LeNet"


def test_choices_and_disturbed_runs_are_no_results() -> None:
    found = {"a": reached("a"), "c": reached("c", held_out=500), "b": outcome("b", {"undisturbed": False})}
    assert list(on_test_set(found)) == ["a"] and [row["seeds"] for row in table(*found.values())] == ["1"]
    assert "no results on a test set yet" in main_table({"c": found["c"]})
    before, choices = all_results(found).split("## Choices")
    assert "These numbers are no results" in choices and "500 images held out" in choices and "500" not in before


def test_only_the_published_networks_have_published_numbers() -> None:
    (row,) = table(reached("a", dataset="cifar10", network=VGG))
    assert row["images, network"] == "CIFAR-10, VGG" and row["published"] == "93.15 at T = 8"
    assert published("cifar10", VGG)["snn"] == 0.9315 and published("cifar10", LENET) is None


def test_the_page_has_every_setting_by_data_set_and_says_what_the_baseline_is() -> None:
    page = all_results({"a": reached("a"), "b": reached("b", clip=2), "d": reached("d", dataset="digits")})
    assert page.index("## MNIST") < page.index("## digits") and page.endswith("|\n")
    assert "Baseline: LeNet, k = 0, ternary, 1 + 1 epochs." in page and "\n| clip 2 | 1 | 1 + 1 |" in page
    assert "0 of 15,000 counts at silence differ" in page


def test_a_run_stands_beside_a_bundled_network_of_its_data_set() -> None:
    name, results = bundled_beside("mnist", LENET)
    assert name == "mnist-lenet-k0" and results["correct"]["snn"]["silence"] == 9967
    assert bundled_beside("digits", "8C5-10")[1]["mismatches"] == 0 and bundled_beside("none", LENET) is None


def test_runs_are_sorted_by_data_set() -> None:
    found = {name: reached(name, dataset=name) for name in ("zebras", "digits", "cifar10", "mnist")}
    assert list(by_dataset(found)) == ["mnist", "cifar10", "digits", "zebras"]


@pytest.mark.parametrize(
    "option, file, around",
    [
        ([], ROOT / "README.md", r"<!-- ann-snn table -->\n(.*?)<!-- end of table -->"),
        (["--all"], ROOT / "data" / "results" / "README.md", r"(.*)"),
    ],
)
def test_what_is_kept_is_what_the_command_prints(option, file, around, capsys, monkeypatch) -> None:
    monkeypatch.delenv("ANN_SNN_RESULTS", raising=False)
    assert main(["table", *option]) == 0
    (kept,) = re.findall(around, file.read_text(encoding="utf-8"), re.DOTALL)[:1]
    command = " ".join(["ann-snn table", *option])
    assert kept == capsys.readouterr().out, f"put what `{command}` prints into {file}"
