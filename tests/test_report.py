"""The card of a run, its setting among others, and the list of runs, as text and as DataFrames."""

from __future__ import annotations

import re
import shutil

import pytest
from outcomes import make_run, make_stale, outcome, results

from ann_snn_utils.ann.notation import NETWORKS
from ann_snn_utils.files import save_json
from ann_snn_utils.runs.compare import compare
from ann_snn_utils.runs.folder import SWEEP_FILE, run_folder, sweep_folder
from ann_snn_utils.runs.report import (
    MOST_SETTINGS,
    card,
    card_of,
    csv_link,
    find_result,
    folded,
    full_tables,
    run_card,
    run_report,
    select,
    settings_table,
)
from ann_snn_utils.runs.results import collect, load_results

pytestmark = pytest.mark.usefixtures("runs")


def test_the_card_sets_a_run_beside_a_bundled_network_and_the_published_system():
    changed = {"network": NETWORKS["lenet"][0], "silence_step": 9, "mean_settling_step": 5.25}
    shown = card_of(outcome("a", changed, dataset="mnist"))
    assert list(shown.columns) == ["this run, a", "bundled mnist-lenet-k0", "published"]
    assert list(shown.loc["SNN, T = 4"]) == ["–", "99.62 %", "99.45 %"]
    assert list(shown.loc["code mismatches"]) == ["0 of 5,000", "0 of 291,600,000", "–"]
    assert shown.at["last step with a spike", "this run, a"] == "9 (mean 5.2)"
    assert shown.at["energy per image", "this run, a"] == "4.000 µJ (int8 ANN 8.000)"
    assert "SNN, T = 3" not in shown.index, "notebook 04 has all steps"


def test_a_card_says_that_its_run_was_disturbed_and_how_many_trials_lie_beside_it():
    shown = card_of(outcome("a", {"undisturbed": False}))
    assert shown.columns[0] == "this run, a (disturbed)"
    folder = run_folder(make_run("b"))
    assert "trials" not in run_card(folder) and "disturbed" not in run_card(folder)
    (folder / "trials").mkdir()
    (folder / "trials" / "0123abcd.json").write_text("{}")
    assert run_card(folder).endswith(
        "\ntrials of this network under other settings, disturbed or not: 1 in trials/"
    )


def test_a_card_says_that_its_results_are_not_those_that_were_recorded():
    folder = run_folder(make_run("b"))
    text = (folder / "results.json").read_text()
    (folder / "results.json").write_text(text.replace("12.5", "12.25"))
    shown = run_card(folder)
    assert "changed: results.json is not the file that was recorded" in shown and "outdated" not in shown


def test_what_no_column_tells_has_no_row_and_steps_are_in_order():
    shown = card({"a": {"accuracy": {"snn": {"silence": 1.0, "10": 0.5}}}, "b": {"accuracy": {"snn": {"2": 0.25}}}})
    assert list(shown.index) == ["SNN, T = 2", "SNN, T = 10", "SNN at silence"]
    assert list(shown["b"]) == ["25.00 %", "–", "–"]


def test_the_text_of_a_card_is_aligned_and_says_what_is_outdated():
    folder = run_folder(make_run("a", accuracy=0.75))
    first, header, *lines = run_card(folder).splitlines()
    assert first == "a: digits, 8C5-10, k = 0" and header.split("  ")[-1] == "bundled digits-lenet-k0"
    assert len({len(line) for line in lines}) == 1
    assert re.search(r"SNN at silence +75\.00 % +100\.00 %$", "\n".join(lines), re.MULTILINE)
    make_stale(folder)
    assert "outdated: 03_convert read files that have been made anew" in run_card(folder)


def test_a_report_ends_with_the_settings_of_the_same_data_set_and_marks_the_runs_own():
    make_run("a")
    make_run("b", seed=1)
    make_run("m", dataset="mnist")
    report = run_report(run_folder(make_run("c", clip=2)))
    title, header, *rows = report.split("\n\n")[1].splitlines()
    assert title == "digits: settings beside each other (baseline: 8C5-10, k = 0, ternary, 2 + 2 epochs)"
    assert [re.split(r"  +", row.strip())[:2] for row in rows] == [["baseline", "2"], ["clip 2 (this run)", "1"]]
    assert "\n\n" not in run_report(run_folder("m")), "one run has nothing beside it"
    (run_folder("b") / "results.json").write_text("{}")
    assert re.search(r"no settings beside it: .*b/results.json is not complete", run_report(run_folder("c")))


def test_a_table_of_settings_is_short_and_holds_the_runs_own():
    found = {str(k): outcome(str(k), k=k) for k in range(12)}
    table = settings_table(compare(found), "11")
    assert len(table) == MOST_SETTINGS and table.index[-1] == "k = 11 (this run)" and len(table.columns) + 1 == 7


def test_results_that_lack_an_entry_name_the_notebook_to_run(tmp_path):
    folder = run_folder("r", create=True)
    with pytest.raises(FileNotFoundError, match="04_spike_analysis"):
        run_card(folder)
    (folder / "results.json").write_text('{"run": "r"}')
    with pytest.raises(ValueError, match="results.json is not complete.*04_spike_analysis"):
        run_card(folder)


def test_runs_are_selected_by_data_set_or_sweep_and_choices_stand_apart():
    for name, given in (
        ("c", {"held_out": 50}),
        ("m", {"dataset": "mnist"}),
        ("n", {"changed": {"undisturbed": False}}),
    ):
        make_run(name, **given)
    this, datasets, choices = select(run="m")
    assert (this.run, list(datasets), list(choices)) == ("m", ["mnist"], ["c"])
    assert list(select(run="m", dataset="digits")[1]) == [] and list(select(run="n")[1]) == []
    assert {name: list(own) for name, own in select(sweep="m,n")[1].items()} == {"mnist": ["m"], "digits": ["n"]}
    with pytest.raises(ValueError, match="dataset='cifar10': no such run has finished notebook 04 yet"):
        select(dataset="cifar10")


def test_a_run_or_sweep_that_papermill_takes_for_a_number_is_the_one_of_these_digits():
    make_run("2024")
    this, datasets, _ = select(run=2024, sweep=2024)
    assert this.run == "2024" and list(datasets["digits"]) == ["2024"] and find_result({}, 2024).run == "2024"


def test_the_card_of_a_folder_is_that_of_the_results_in_it(tmp_path):
    folder = run_folder(make_run("a", accuracy=0.75))
    make_run("copy", accuracy=0.25)
    shutil.copytree(folder, tmp_path / "copy")
    assert re.search(r"SNN at silence +75\.00 %", run_card(tmp_path / "copy"))


def test_without_a_name_the_latest_run_is_on_the_card_else_the_first_collected_one():
    collect(make_run("b"))
    assert find_result(load_results()).run == "b"
    make_run("a")
    assert find_result(load_results()).run == "a" and find_result(load_results(), "b").run == "b"
    with pytest.raises(FileNotFoundError, match="no run 'x'"):
        find_result({}, "x")
    save_json(sweep_folder("a") / SWEEP_FILE, {"name": "a", "notebooks": [], "varied": [], "runs": {"b": {}}})
    assert find_result({}, "a").run == "a"
    run_folder("empty", create=True)
    collected = {name: outcome(name) for name in ("z", "mnist-lenet-k0-ternary-s0-6165d83c")}
    assert find_result({"c": outcome("c", held_out=5), **collected}).run == "mnist-lenet-k0-ternary-s0-6165d83c"
    assert find_result({"c": outcome("c", held_out=5), "z": outcome("z")}).run == "z"


def test_long_tables_are_folded_scroll_by_themselves_and_come_as_csv():
    found = {"a": outcome("a"), "b": outcome("b", clip=2)}
    html = [one.data for one in full_tables({"digits": found}, {"c": outcome("c", held_out=5)})]
    assert [text.startswith("<details><summary>") for text in html] == [True, True, False, True]
    assert all("overflow-x: auto" in text for text in html if "<details>" in text)
    assert 'download="digits.csv" href="data:text/csv;base64,' in html[2]
    assert "&lt;x&gt;" in folded("<x>", compare(found)).data
    # "run,x" and a line for each run, in base 64.
    assert "base64,cnVuLHgKYSwxCmIsMQo=" in csv_link(compare(found)[[]].assign(x=1), "x.csv").data


def test_results_without_the_number_of_a_step_leave_a_gap():
    assert results()["accuracy"]["snn"].keys() == {"1", "silence"}
    assert settings_table(compare({"a": outcome("a")}))["T\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}4"].tolist() == ["–"]
