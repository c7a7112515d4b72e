"""The benchmark compares like with like: same answers, every contender, one valid file of results."""

from __future__ import annotations

import json
import re
import subprocess
import time
from dataclasses import replace

import nbformat
import numpy as np
import pytest
import torch
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import chains, random_images
from toy_notebooks import run_here

from ann_snn_utils import codes, convert, figures, simulate
from ann_snn_utils.batch.execute import execute
from ann_snn_utils.bench import accelerator, benchmark, contenders, timing
from ann_snn_utils.bench.baseline import simulate_numpy
from ann_snn_utils.bench.benchmark import ON_DEVICE, PARTS, QUICK, newest_file, run_benchmark
from ann_snn_utils.bench.tables import device_table, short_table, speed_table, tables
from ann_snn_utils.bench.timing import interleaved, peak_memory, quartiles, ratios
from ann_snn_utils.bench.workload import load_workload, textures
from ann_snn_utils.cli import main
from ann_snn_utils.files import ROOT, load_json
from ann_snn_utils.runs.parameters import NOTEBOOKS

pytestmark = pytest.mark.slow

OWN = ("events", "dense", "silence", "ann-contiguous", "ann-channels-last", "numpy")
FEWER = {"lenet": ("small", (1, 6), (1, 4)), "few": ("small-few", (6,), (2,))}
TINY = replace(QUICK, workloads=QUICK.workloads | FEWER, batches=(1, 6), whole=(12, 3))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def result() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        # Each is measured in a process of its own, which takes seconds.
        patch.setattr(benchmark, "peak_memory", lambda *_: {"peak_mib": 345.6, "before_mib": 300.0})
        return run_benchmark(TINY, OWN, repeats=2, say=lambda line: None)


@tries(15)
@given(chains(), st.integers(0, 1000))
def test_the_numpy_baseline_gives_the_scores_of_the_simulator_at_every_step(ann, seed):
    snn, images = convert(ann), random_images(seed, ann.spec.in_shape)
    assert np.array_equal(simulate_numpy(snn, images.numpy(), 7), simulate(snn, images, 7).logits.numpy())


def test_jobs_take_turns_and_run_at_each_once_before_they_are_timed(monkeypatch):
    ran, at = [], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: at.append(len(ran)) or 0.0)
    seconds = interleaved({name: lambda name=name: ran.append(name) for name in "abc"}, 3)
    assert "".join(ran) == "aabbcc" * 3
    assert at == [place for run in range(1, 18, 2) for place in (run, run + 1)]
    assert [len(seconds[name]) for name in "abc"] == [3, 3, 3]
    ran.clear()
    interleaved({"a": lambda: ran.append("a")}, repeats=2, times=5)
    assert len(ran) == 2 * (1 + 5)
    with pytest.raises(ValueError, match="repeats=0"):
        interleaved({}, 0)


def test_a_ratio_is_that_of_each_round():
    assert ratios([2.0, 40.0, 6.0], [1.0, 20.0, 3.0]) == {"median": 2.0, "low": 2.0, "high": 2.0, "n": 3}
    assert quartiles([1, 2, 3, 4, 5]) == {"median": 3.0, "low": 2.0, "high": 4.0, "n": 5}


def test_every_contender_that_was_asked_for_has_its_rows_and_all_agree(result):
    small = [row for row in result["rows"] if row["workload"] == "small"]
    assert {row["contender"] for row in small} == set(OWN)
    own = [row for row in small if row["contender"] in ("events", "dense")]
    assert [(row["batch"], row["contender"], row["time_steps"]) for row in own] == [
        (1, "events", 4),
        (1, "dense", 4),
        (6, "events", 1),
        (6, "events", 4),
        (6, "dense", 4),
    ]
    for row in result["rows"]:
        own = not row["contender"].startswith("ann")
        assert row["exact"] is (True if own else None) and row["same_class"] == (1.0 if own else None)
        assert row["seconds"]["n"] == 2 and row["samples_per_second"]["median"] > 0
    assert [(row["batch"], row["to_ann"]["median"]) for row in small if row["best_ann"]] == [(1, 1.0), (6, 1.0)]


def test_a_simulator_that_errs_is_called_inexact(monkeypatch):
    work = load_workload("small", 6)
    assert contenders.exactness("events", work, 3) is True
    monkeypatch.setattr(contenders, "simulate_numpy", lambda *a: simulate_numpy(*a) + 1)
    assert contenders.exactness("events", work, 3) is False


def test_results_are_json_and_all_of_them_reach_the_table(result):
    assert json.loads(json.dumps(result)) == result
    text = "\n".join(tables(result))
    for row in result["rows"]:
        assert row["label"] in text
    for word in (
        "Silence comes",
        "Cost grows",
        "Size: 12 images at T = 3",
        "Plain additions: ",
        "Layers at T = 4",
        "Training: ",
        "n = 2 rounds",
    ):
        assert word in text


def test_figures_show_the_medians(result):
    dots = figures.speed_dots(result["rows"][:4])
    shown = sorted(x for trace in dots.data if trace.mode == "markers" for x in trace.x)
    assert shown == sorted(row["samples_per_second"]["median"] for row in result["rows"][:4])
    curves = figures.cost_curves(result["sweeps"], 0.5)
    assert list(curves.data[0].y) == [1e3 * row["seconds"]["median"] for row in result["sweeps"]["steps"]]
    limit = figures.addition_bars(result["distance"], result["limits"])
    assert limit.data[0].x[0] == result["limits"]["int8_additions"]["median"] / 1e9


@pytest.mark.parametrize("package", ["spikingjelly", "snntorch", "onnxruntime"])
def test_a_peer_that_is_not_installed_is_skipped_and_a_line_says_so(package, monkeypatch):
    monkeypatch.setattr(contenders, "find_spec", lambda name: None)
    name = "onnx-int8" if package == "onnxruntime" else package
    taking, skipped = contenders.available(("events", name), load_workload("small", 2))
    assert taking == ["events"]
    (line,) = skipped
    assert f"{package} is not installed: pip install" in line


def test_what_needs_a_compiler_is_skipped_without_one(monkeypatch):
    monkeypatch.setattr(contenders.shutil, "which", lambda name: None)
    taking, skipped = contenders.available(("numpy", "ann-compiled"), load_workload("small", 2))
    assert taking == ["numpy"]
    assert skipped == ["float32 ANN, torch.compile: skipped, there is no g++ on the path"]


def test_onnx_runtime_runs_the_same_network_in_float32_and_nearly_so_in_int8(monkeypatch):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    work = load_workload("small-vgg", 8)
    model, images = contenders.onnx_model(work.ann), (work.images.float() / 255).numpy()
    onnx.checker.check_model(model)
    small = contenders.quantized_onnx(model, [images])
    assert {node.op_type for node in small.graph.node} >= {"QuantizeLinear", "DequantizeLinear", "Conv"}
    alone = runtime.SessionOptions()
    alone.intra_op_num_threads = 1
    scores = [
        runtime.InferenceSession(one.SerializeToString(), alone, providers=["CPUExecutionProvider"]).run(
            None, {"images": images}
        )
        for one in (model, small)
    ]
    (exact,), (near,) = scores
    with torch.inference_mode():
        assert np.allclose(exact, work.ann(work.images).numpy(), atol=1e-5)
    assert np.abs(near - exact).max() < 0.1 * np.abs(exact).max()
    # To export it once more takes seconds.
    monkeypatch.setattr(contenders, "onnx_model", lambda ann: model)
    assert contenders.CONTENDERS["onnx-float32"].prepare(work, 4)().tolist() == exact.argmax(1).tolist()


def test_the_time_of_a_layer_is_what_it_adds_to_those_before_it(result):
    costs = result["layers"]["small"]
    assert [cost["layer"] for cost in costs] == ["P2", "8C5", "P2", "24"]
    assert [cost["weight_bytes"] for cost in costs] == [16 * 24, 16 * 150, 16 * 32, 16 * 128], (
        "nibbles, padded to 32 channels"
    )
    for cost in costs:
        share, seconds = cost["share_of_additions"], cost["seconds"]["median"]
        assert share is None if seconds <= 0 else share > 0


def test_a_layer_whose_time_is_lost_in_what_times_scatter_has_no_share(result):
    layer, *others = result["layers"]["small"]
    for seconds, share in ((-1e-5, None), (1e-9, 2.8e6)):
        lost = layer | {"seconds": {"median": seconds}, "share_of_additions": share, "weight_bytes": 2048}
        text = speed_table(result | {"layers": {"small": [lost, *others]}}, "here")
        assert "small: P2 too short to be told, 2 KiB; 8C5 " in text


def test_spikingjelly_reaches_the_same_codes():
    pytest.importorskip("spikingjelly")
    work = load_workload("small", 4)
    net = contenders.spikingjelly(work.qann)
    assert contenders.spikingjelly_mismatches(net, work.qann, work.images) == 0
    scaled = work.images.float() / 255
    scores = [
        contenders.run_spikingjelly(net, scaled, contenders.SETTLING_STEPS, multi_step=mode)
        for mode in (False, True)
    ]
    for one in scores:
        assert torch.allclose(one, codes(work.qann, work.images)[1].float(), atol=1e-3)


def test_snntorch_takes_part_with_whole_spikes_only():
    pytest.importorskip("snntorch")
    work = load_workload("small", 2)
    assert contenders.run_snntorch(contenders.snntorch(work.qann), work.images.float() / 255, 3).shape == (2, 10)
    with pytest.raises(ValueError, match="k=1"):
        finer = replace(work.qann.spec, k=1)
        work.qann.spec = finer
        contenders.snntorch(work.qann)


def test_calibration_leaves_every_layer_active():
    work = load_workload("small-vgg", 8)
    record = simulate(work.snn, work.images, 8)
    fired = (record.positive + record.negative).sum(0) / (8 * np.array(record.neurons))
    assert (fired > 0.05).all() and (fired < 3).all()
    assert textures(2, 12).dtype == torch.uint8


def test_no_peak_is_measured_where_none_is_asked_for(monkeypatch):
    monkeypatch.setattr(benchmark, "peak_memory", lambda *_: pytest.fail("measured"))
    bare = run_benchmark(TINY, ("events", "ann-contiguous"), 1, ("lenet", "whole"), False, lambda line: None)
    assert bare["whole"]["memory"] is None and all(row["memory"] is None for row in bare["rows"])


def test_peak_memory_is_that_of_the_contender_s_own_process():
    ballast = np.ones(2**26)
    peak = peak_memory("events", "small", 4, 2)
    if peak is None:
        pytest.skip("this system does not tell a process's peak")
    assert 50 < peak["before_mib"] <= peak["peak_mib"]
    del ballast


def test_a_process_that_fails_to_measure_memory_does_not_end_the_benchmark(monkeypatch):
    failed = subprocess.CompletedProcess([], -9, "", "killed")
    monkeypatch.setattr(timing.subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setattr(timing.Path, "exists", lambda path: True)
    with pytest.warns(UserWarning, match="measuring the memory of events failed:\nkilled"):
        assert peak_memory("events", "small", 4, 2) is None


def test_help_names_every_part(capsys):
    assert main(["bench", "--help"]) == 0
    assert f"Of {','.join(PARTS)} (default: all)" in " ".join(capsys.readouterr().out.split())


def test_the_command_writes_one_file_and_prints_one_table(tmp_path, capsys):
    target = tmp_path / "new" / "result.json"
    arguments = ["bench", "--quick", "--repeats", "1", "--no-memory", "--parts", "lenet", "--output", str(target)]
    assert main([*arguments, "--contenders", "events,ann-contiguous"]) == 0
    printed = capsys.readouterr().out
    written = load_json(target)
    with pytest.raises(FileNotFoundError, match="no result in"):
        newest_file(target.parent)  # a trial, which is nobody's newest result
    assert printed.count("images/s") == 1 and str(target) in printed
    assert {row["contender"] for row in written["rows"]} == {"events", "ann-contiguous"}
    assert written["machine"]["torch_threads"] >= 1 and written["versions"]["torch"] and written["date"]


def test_the_readme_holds_what_is_asked_first_of_the_newest_result_and_the_page_beside_it_all_of_it(capsys):
    assert main(["bench", "--show"]) == 0
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- ann-snn bench --show -->\n(.*?)<!-- end of bench -->", readme, re.DOTALL)
    assert shown == capsys.readouterr().out, "put what `ann-snn bench --show` prints between its marks in README.md"
    assert main(["bench", "--show", "--all"]) == 0
    page = (ROOT / "data/benchmark/README.md").read_text(encoding="utf-8")
    assert page == capsys.readouterr().out, "run `ann-snn bench --show --all > data/benchmark/README.md`"


def plain(row: str) -> str:
    """A row with ordinary spaces and dashes, at which a line may break."""
    return row.replace("\N{NO-BREAK SPACE}", " ").replace("\N{WORD JOINER}", "")


def test_the_short_table_shows_one_image_and_many_and_few_rows():
    _, newest = newest_file()
    rows = short_table(newest, "there").splitlines()[4:]
    assert rows[0].startswith("| LeNet | 1 | this project, events, T = 4 |") and len(rows) <= 8
    assert {tuple(row.split(" | ")[:2]) for row in rows} == {("| LeNet", "1"), ("| LeNet", "256"), ("| VGG", "64")}
    assert sum("| 1.00 (1.00–1.00) |" in plain(row) for row in rows) == 1, "what times are given against"


def test_what_was_not_measured_is_not_shown(result):
    text = speed_table(
        {"rows": result["rows"], "layers": {}}
        | {name: result[name] for name in ("machine", "repeats", "load_before", "load_after")},
        "here",
    )
    networks = {row["workload"] for row in result["rows"]}
    assert text.count("\n| ") == len(result["rows"]) + len(networks) and "All numbers: here." in text
    assert "- **" not in text, "no statement on what was not measured"
    assert "**small, few levels**" in text and "\n| 6 | this project, events, T = 2 |" in text


@pytest.mark.parametrize(
    "words, message",
    [
        (["--contenders", "lava"], "contender 'lava': choose from events"),
        (["--contenders", "numpy"], "ratios need"),
        (["--repeats", "0"], "'--repeats': 0 is not in the range"),
        (["--parts", "gpu"], "part 'gpu': choose from lenet"),
        (["--output", "."], "give the path of a new .json file"),
        (["--output", str(newest_file()[0])], "give the path of a new .json file"),
    ],
)
def test_a_mistake_is_named_before_anything_is_measured(words, message, capsys):
    assert main(["bench", "--quick", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_notebook_shows_the_kept_result(tmp_path):
    path = execute(NOTEBOOKS / "07_benchmark.ipynb", tmp_path, {})
    cells = nbformat.read(path, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert sum("application/vnd.plotly.v1+json" in output.get("data", {}) for output in outputs) == 6


def test_the_notebook_measures_small_networks_where_it_is_asked_to(tmp_path, result, monkeypatch):
    asked = []
    monkeypatch.setattr(benchmark, "run_benchmark", lambda *given, **how: asked.append(given) or result)
    run_here(NOTEBOOKS / "07_benchmark.ipynb", tmp_path, {"measure": True, "repeats": 2})
    ((settings, contenders, repeats, parts),) = asked
    assert (settings, repeats) == (QUICK, 2) and "events" in contenders and set(parts) < set(PARTS)


def test_a_device_has_a_comparison_of_its_own_which_no_other_reads(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(accelerator, "QUICK", {"small": ((4, 6), 5)})
    target = tmp_path / "device.json"
    arguments = ["bench", "--device", "cpu", "--quick", "--repeats", "2", "--output", str(target)]
    assert main([*arguments, "--contenders", "dense,ann-channels-last,ann-bf16"]) == 0
    assert "float32 ANN, channels last" in capsys.readouterr().out
    written = load_json(target)
    assert written["device"] == "cpu" and "cuda" in written["versions"]
    rows = {(row["contender"], row["batch"]): row for row in written["rows"]}
    assert len(rows) == 6 and rows["dense", 6]["exact"] is True and rows["dense", 6]["same_class"] == 1.0
    page = device_table(written, "here")
    assert page.startswith("**On ") and page.count("\n| ") == 7 and "All numbers: here." in page
    assert newest_file()[0].parent == benchmark.RESULTS == ON_DEVICE.parent
    for words, message in (
        (["--parts", "lenet"], "leave out --parts"),
        (["--contenders", "dense"], "ratios need 'dense' and 'ann-channels-last'"),
        (["--contenders", "events"], "contender 'events': on a device choose from dense"),
        (["--device", "xpu:7"], "device='xpu:7' cannot be used here"),
    ):
        assert main([*arguments[:-1], str(tmp_path / "another.json"), *words]) == 2
        assert message in capsys.readouterr().err
    assert main(arguments) == 2 and "give the path of a new .json file" in capsys.readouterr().err


def test_a_contender_that_fails_or_takes_too_long_on_a_device_is_skipped_and_ours_is_not(monkeypatch):
    def fails(*_):
        raise RuntimeError("no kernel")

    known = accelerator.contenders_on("cpu")
    broken = known | {"ann-bf16": replace(known["ann-bf16"], prepare=fails)}
    monkeypatch.setattr(accelerator, "contenders_on", lambda device: broken)
    monkeypatch.setattr(accelerator, "QUICK", {"small": ((4,), 4)})
    names = ("dense", "ann-channels-last", "ann-bf16")
    result = accelerator.run_on_device("cpu", True, names, 1, lambda line: None)
    assert result["skipped"] == ["bf16 ANN, channels last, small, 4: skipped, RuntimeError: no kernel"]
    broken["dense"] = replace(known["dense"], prepare=fails)
    with pytest.raises(RuntimeError, match="no kernel"):
        accelerator.run_on_device("cpu", True, names, 1, lambda line: None)
    with pytest.raises(TimeoutError, match="not ready within 1 s"):
        accelerator._within(1, lambda: time.sleep(5))
