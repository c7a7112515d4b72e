"""Bad input cannot hurt: whatever a file or an argument holds, work is done or a clear error says what is wrong.

Clear is a ValueError or OSError; for a file it names the file. A short run is part of the suite.
`ANN_SNN_FUZZ=20000 pytest tests/test_fuzz.py` tries that many inputs in each test.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import runpy
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import yaml
from bundles import check_in_c, small_bundle
from checkpoints import float_ends_ann, parameters
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import HOSTILE, INTEGERS, NUMBERS, changed_bytes, changed_json, changed_tensors
from networks import random_ann, random_images
from outcomes import outcome, results
from PIL import Image
from test_train import network, stripes
from toy_study import write_study

from ann_snn_utils import train as train_network
from ann_snn_utils.ann.network import build_ann
from ann_snn_utils.ann.notation import parse
from ann_snn_utils.ann.reference import codes
from ann_snn_utils.ann.store import list_pretrained, load_ann, load_pretrained, save_ann, save_pretrained
from ann_snn_utils.ann.tensorlayer import import_tensorlayer
from ann_snn_utils.ann.train import set_seed
from ann_snn_utils.batch.grid import build_sweep, parse_settings, read_sweep, rehearse
from ann_snn_utils.batch.plan import plan_sweep
from ann_snn_utils.batch.sweep import plan_text
from ann_snn_utils.data.archive import unpack
from ann_snn_utils.data.dataset import Dataset, load_dataset
from ann_snn_utils.files import load_tensors
from ann_snn_utils.hardware.bundle import READERS, is_bundle
from ann_snn_utils.runs import folder as runs
from ann_snn_utils.runs import manifest as manifests
from ann_snn_utils.runs.compare import by_setting, compare, cost_curves, effects, mixed, neuron_forms
from ann_snn_utils.runs.parameters import NOTEBOOKS
from ann_snn_utils.runs.published import all_results, by_dataset, main_table
from ann_snn_utils.runs.report import card_of, run_report, runs_table, settings_table
from ann_snn_utils.runs.results import load_results
from ann_snn_utils.runs.sweeps import sweep_report, write_results
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.certificate import certify
from ann_snn_utils.snn.conversion import convert
from ann_snn_utils.snn.network import FORMS
from ann_snn_utils.snn.store import load_snn, save_snn

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("ANN_SNN_FUZZ") or 25)
fuzz = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None, print_blob=True
)
IMAGES = random_images(0, (1, 8, 8))


def survives(work: Callable[[], object], path: Path | None = None) -> object:
    """Do the work; it may raise a ValueError or OSError that says something and names the file."""
    try:
        return work()
    except (ValueError, OSError) as error:
        text = str(error)
        assert text and len(text) < 5000, f"an error without words, or too many: {text[:300]}"
        assert path is None or path.name in text, f"{path.name} is not named: {text[:300]}"
        return None


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def bytes_of(save: Callable[[Path], object], path: Path) -> bytes:
    """The bytes of a good file, which is made once: hypothesis wants the same ones each time."""
    if not path.exists():
        save(path)
    return path.read_bytes()


def written(place: Path, name: str, data: bytes) -> Path:
    path = place / name
    path.write_bytes(data)
    return path


@fuzz
@given(st.data())
def test_a_network_file_with_anything_in_it(place, data):
    good = bytes_of(lambda path: save_ann(random_ann(1, k=1), path, source={"name": "digits"}), place / "ann.good")
    path = written(place, "ann.safetensors", data.draw(changed_tensors(good)))
    ann = survives(lambda: load_ann(path), path)
    if ann is not None and ann.spec.quantized:
        survives(lambda: codes(ann, torch.zeros(1, *ann.spec.in_shape, dtype=torch.uint8)))
        survives(lambda: convert(ann))


@fuzz
@given(st.data())
def test_a_spiking_network_file_with_anything_in_it(place, data):
    good = bytes_of(lambda path: save_snn(convert(random_ann(1, k=1, clip=2)), path), place / "snn.good")
    path = written(place, "snn.safetensors", data.draw(changed_tensors(good)))
    snn = survives(lambda: load_snn(path), path)
    if snn is not None:
        images = torch.zeros(1, *snn.spec.in_shape, dtype=torch.uint8)
        survives(lambda: simulate(snn, images, 3))
        survives(lambda: certify(snn))


@fuzz
@given(st.data())
def test_a_bundled_network_and_its_index_with_anything_in_them(place, data):
    good, folder = place / "good", place / "pretrained"
    if not good.exists():
        save_pretrained(random_ann(1), "tiny", good)
    shutil.copytree(good, folder, dirs_exist_ok=True)
    if data.draw(st.booleans()):
        index = json.loads((folder / "index.json").read_text())
        (folder / "index.json").write_text(json.dumps(data.draw(changed_json(index))))
    else:
        path = folder / "tiny.safetensors"
        path.write_bytes(data.draw(changed_tensors(path.read_bytes())))
    survives(lambda: list_pretrained(folder))
    survives(lambda: load_pretrained("tiny", folder))


@fuzz
@given(st.data())
def test_a_training_checkpoint_with_anything_in_it(place, data):
    def train(path: Path, epochs: int = 2) -> object:
        return train_network(network(), stripes(16), epochs=epochs, batch_size=16, checkpoint=path, progress=False)

    path = written(place, "c.safetensors", data.draw(changed_tensors(bytes_of(train, place / "c.good"))))
    survives(lambda: train(path), path)


@fuzz
@given(st.data())
def test_a_manifest_and_results_with_anything_in_them(place, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANN_SNN_RUNS", str(place / "runs"))
        patch.setenv("ANN_SNN_RESULTS", str(place / "none"))
        folder = runs.run_folder("one", create=True)
        for name in ("manifest.json", "results.json"):
            (folder / name).unlink(missing_ok=True)
        (folder / "ann.safetensors").write_text("ann")
        manifests.record_stage(folder, "01_train_ann", parameters={"seed": 3}, artifacts=["ann.safetensors"])
        manifest = json.loads((folder / "manifest.json").read_text())
        changed = data.draw(st.sampled_from(["manifest.json", "results.json"]))
        good = {"manifest.json": manifest, "results.json": results("one")}
        text = {name: json.dumps(value).encode() for name, value in good.items()}
        if data.draw(st.booleans()):
            text[changed] = json.dumps(data.draw(changed_json(good[changed]))).encode()
        else:
            text[changed] = data.draw(changed_bytes(text[changed]))
        for name, content in text.items():
            (folder / name).write_bytes(content)
        path = folder / changed
        survives(lambda: manifests.read_manifest(folder).stale_stages(), path)
        survives(lambda: manifests.is_current(folder, "01_train_ann", {"code": "x"}), path)
        survives(
            lambda: manifests.record_stage(folder, "02_quantize", parameters={}, inputs=["ann.safetensors"]), path
        )
        survives(lambda: runs.latest_run("ann.safetensors"))
        survives(lambda: run_report(folder), path)
        survives(lambda: runs_table(), path)
        survives(lambda: compare(load_results()), path)


@fuzz
@given(st.data())
def test_collected_results_with_anything_in_them(place, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANN_SNN_RUNS", str(place / "no-runs"))
        patch.setenv("ANN_SNN_RESULTS", str(place / "results"))
        good = outcome("one")
        document = {"run": "one", "results": good.results, "manifest": msgspec.to_builtins(good.manifest)}
        path = place / "results" / "one.json"
        path.parent.mkdir(exist_ok=True)
        if data.draw(st.booleans()):
            path.write_text(json.dumps(data.draw(changed_json(document))))
        else:
            path.write_bytes(data.draw(changed_bytes(json.dumps(document).encode())))
        found = survives(load_results, path)
        if found is not None:
            survives(lambda: [mixed(found), by_dataset(found), main_table(found), all_results(found)])
            survives(lambda: [card_of(found["one"]), settings_table(compare(found), "one")])
            frame = survives(lambda: compare(found))
            survives(lambda: [by_setting(frame), effects(frame), cost_curves(frame), neuron_forms(found, frame)])


@fuzz
@given(st.data())
def test_a_published_checkpoint_with_anything_in_it(place, data):
    good = place / "good.npz"
    if not good.exists():
        np.savez(good, params=parameters(float_ends_ann(0)))
    path = written(place, "model.npz", data.draw(changed_bytes(good.read_bytes())))
    survives(lambda: import_tensorlayer(path, "3C3-P2-4C2-5", (1, 8, 8), k=0), path)


@pytest.fixture(scope="module")
def bundle(place) -> Path:
    return small_bundle(place / "bundle", network="2C3-P2-3", in_shape=(1, 6, 6), clip=1)


reader = runpy.run_path(str(READERS / "run_bundle.py"))


@fuzz
@given(st.data())
def test_a_bundle_with_anything_in_it(bundle, data):
    files = sorted(path for path in bundle.rglob("*") if path.suffix in (".bin", ".hex", ".json", ".txt"))
    path = data.draw(st.sampled_from([bundle / "manifest.json", bundle / "layout.txt", *files]))
    before = path.read_bytes()
    try:
        if path.name == "manifest.json" and data.draw(st.booleans()):
            path.write_text(json.dumps(data.draw(changed_json(json.loads(before)))))
        elif path.name == "layout.txt" and data.draw(st.booleans()):
            lines = [line.split() for line in before.decode().splitlines()]
            at = data.draw(st.integers(0, len(lines) - 1))
            lines[at][1] = str(data.draw(HOSTILE))
            path.write_text("".join(" ".join(line) + "\n" for line in lines), encoding="utf-8")
        else:
            path.write_bytes(data.draw(changed_bytes(before)))
        assert reader["main"]([str(bundle)]) in (0, 1, 2)
        is_bundle(bundle)
        if path.suffix != ".json":
            done = check_in_c(bundle)
            assert done.returncode in (0, 1, 2) and "runtime error" not in done.stderr, done.stderr
            assert "Sanitizer" not in done.stderr, done.stderr
    finally:
        path.write_bytes(before)


TOKENS = st.sampled_from(
    [
        "1",
        "5",
        "1C1",
        "2C3",
        "P2",
        "P3",
        "P",
        "C",
        "0",
        "-",
        "",
        "1000000000",
        "99999999C9",
        "3C",
        "C3",
        "²C3",
        "१",
        "1C99999999999",
        " 5",
        "5 ",
        "1e3",
        "+1",
        "9" * 5000,
    ]
)


@fuzz
@given(
    st.one_of(st.text(max_size=30), st.lists(TOKENS, max_size=6).map("-".join), HOSTILE),
    st.one_of(st.just((1, 8, 8)), st.tuples(*[st.integers(-1, 2**40)] * 3), HOSTILE),
    st.sampled_from(["valid", "same", "", None, 3]),
)
def test_a_network_in_any_notation(text, shape, padding):
    survives(lambda: parse(text, shape, padding))
    survives(lambda: build_ann(text, shape, 2, padding=padding))


def some_of(**values) -> st.SearchStrategy[dict]:
    """Some of these arguments, each from its strategy."""
    return st.fixed_dictionaries({}, optional=values)


@fuzz
@given(some_of(k=HOSTILE, levels=HOSTILE, clip=HOSTILE, classes=HOSTILE, padding=HOSTILE, ternary=HOSTILE))
def test_a_network_with_any_parameters(given):
    survives(lambda: build_ann(**{"network": "2C3-P2-3", "in_shape": (1, 6, 6), "classes": 2} | given))


@fuzz
@given(st.integers(0, 8), st.one_of(st.none(), st.integers(1, 255)), INTEGERS, st.sampled_from(FORMS + ("x",)))
def test_a_conversion_with_any_parameters(k, clip, max_levels, thresholds):
    snn = survives(lambda: convert(random_ann(2, k=k, clip=clip), thresholds, max_levels))
    if snn is not None:
        survives(lambda: simulate(snn, IMAGES, 3))


SNN = convert(random_ann(2, clip=1))


@fuzz
@given(
    some_of(
        time_steps=INTEGERS.filter(lambda steps: steps < 100),
        noise_ratio=NUMBERS,
        fault=st.sampled_from(["x", "flip"]),
        fault_rate=NUMBERS,
        seed=INTEGERS,
        batch_size=INTEGERS,
        trace=st.lists(INTEGERS, max_size=3),
    )
)
def test_a_run_with_any_parameters(given):
    survives(lambda: simulate(SNN, IMAGES, **{"time_steps": 3} | given))


@fuzz
@given(
    some_of(
        epochs=INTEGERS.filter(lambda epochs: epochs < 3),
        batch_size=NUMBERS,
        learning_rate=NUMBERS,
        weight_decay=NUMBERS,
        seed=INTEGERS,
        augmentation=st.text(max_size=5),
        device=st.sampled_from(["cpu", "x", "cuda:99", ""]),
    )
)
def test_a_training_with_any_parameters(given):
    survives(lambda: set_seed(given.get("seed", 0)))
    survives(lambda: train_network(network(), stripes(16), **{"epochs": 1, "progress": False} | given))


@fuzz
@given(st.data())
def test_an_archive_of_images_with_anything_in_it(place, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANN_SNN_CACHE", str(place / "cache"))
        picture = io.BytesIO()
        Image.new("L", (4, 4)).save(picture, "PNG")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:" + data.draw(st.sampled_from(["", "gz", "xz"]))) as archive:
            for name in ("a/train/x/1.png", "a/train/y/1.png", "a/test/x/1.png", "a/test/y/1.png"):
                member = tarfile.TarInfo(name)
                member.size = len(picture.getvalue())
                archive.addfile(member, io.BytesIO(picture.getvalue()))
        path = written(place, "pictures.tar", data.draw(changed_bytes(buffer.getvalue())))
        os.utime(path, ns=(1, data.draw(st.integers(1, 2**50))))
        found = survives(lambda: unpack(path), path)
        if found is not None:
            survives(lambda: load_dataset(found))
        assert not list((place / "cache").glob(".*.tmp")), "half an archive is left"


@fuzz
@given(
    some_of(
        name=st.text(max_size=9),
        split=st.text(max_size=5),
        size=HOSTILE,
        limit=HOSTILE,
        root=st.text(max_size=9),
    )
)
def test_a_data_set_with_any_parameters(given):
    survives(lambda: load_dataset(**{"name": "digits"} | given))


@fuzz
@given(st.data())
def test_a_tensor_file_with_anything_in_it(place, data):
    good = bytes_of(lambda path: save_snn(convert(random_ann(1)), path), place / "tensors.good")
    path = written(place, "tensors.safetensors", data.draw(changed_tensors(good)))
    survives(lambda: load_tensors(path), path)


@pytest.fixture(scope="module")
def study(place) -> Path:
    return write_study(place / "notebooks")


def planned(content: dict, folder: Path, place: Path) -> object:
    """The plan of a sweep, written as text; making it writes nothing, whether it is made or refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANN_SNN_RUNS", str(place / "no runs"))
        try:
            asked = build_sweep(content, folder)
            rehearse(asked.runs, asked.notebooks)
            return plan_text(plan_sweep(asked))
        finally:
            assert not (place / "no runs").exists() and not (place / "executed").exists()


GRID = {
    "name": "levels",
    "notebooks": "01-04",
    "set": {"k": [0, 1], "seed": "0..1"},
    "zip": {"time_steps": [4, 8], "bad": [5, 6]},
}


@fuzz
@given(st.data())
def test_a_sweep_file_with_any_bytes(place, study, data):
    good = yaml.safe_dump(GRID).encode()
    path = written(place, "sweep.yaml", data.draw(st.one_of(st.binary(max_size=200), changed_bytes(good))))
    content = survives(lambda: read_sweep(path), path)
    if content is not None:
        survives(lambda: planned(content, study, place))


PLAIN = HOSTILE.map(lambda value: json.loads(json.dumps(value)))
NAMES = st.sampled_from(["set", "zip", "name", "notebooks", "k", "seed", "run", "wait", "bad", "<<", "K"])
NOTED = st.sampled_from(
    [
        "0..1000000000000",
        "-9..9",
        "1..0",
        "0..9999",
        "9" * 5000,
        f"0..{'9' * 5000}",
        "0x" + "f" * 5000,
        "1:59:59",
        "1:" * 400 + "0.5",
        "2026-02-30",
        "2026-01-01",
        ".nan",
        ".inf",
        "1e999",
        "~",
        "yes",
        "=",
        "? [a]",
        "- - a",
        "!!python/object/apply:os.system ['touch executed']",
        "!!python/name:os.system",
        "!!bool maybe",
        "!!int ''",
        "!!timestamp x",
        "!!binary x",
        "! x",
        "!<tag:x> y",
        "&a [*a]",
        "*a",
        "&a {<<: *a}",
        '"\\ud800"',
        '"\\0"',
        "[" * 3000,
        "{a: " * 3000,
        "{k: 0, k: 1}",
        "{<<: {k: 0}, <<: {k: 1}}",
        "../../x",
        "/etc/passwd",
        "|\n  x",
        "%YAML 9.9",
        "\t",
    ]
)


@fuzz
@given(st.data())
def test_a_sweep_file_with_any_values_in_every_place(place, study, data):
    text = yaml.safe_dump(GRID)
    if data.draw(st.booleans()):
        content = data.draw(changed_json(GRID))
        text = yaml.safe_dump(content)
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            words = text.split(" ")
            words[data.draw(st.integers(0, len(words) - 1))] = data.draw(st.one_of(NOTED, NAMES)) + "\n"
            text = " ".join(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        path = written(place, "sweep.yaml", text.encode())
        content = survives(lambda: read_sweep(path), path)
        if content is not None:
            survives(lambda: planned(content, study, place))
        assert not (place / "executed").exists()


@pytest.mark.parametrize(
    "first, more",
    [
        ("a: &a [x, x]", "{b}: &{b} [{nine}]"),
        ("a: &a {{x: 1}}", "{b}: &{b} {{<<: [{nine}]}}"),
        ("set: &a {{k: *a}}", ""),
    ],
    ids=["lists", "merged", "endless"],
)
def test_aliases_that_would_grow_without_end_are_not_followed(place, first, more):
    lines = [first.format()]
    lines += [more.format(b=b, nine=", ".join([f"*{a}"] * 9)) for a, b in itertools.pairwise("abcdefghij")]
    path = written(place, "sweep.yaml", "\n".join(lines).encode())
    with pytest.raises(ValueError, match=r"sweep.yaml: line \d+ holds the alias \*a: write its values out"):
        read_sweep(path)


def test_a_sweep_file_that_is_no_ordinary_or_small_file_is_not_read(place):
    big = written(place, "big.yaml", b"set:\n" + b"  k: 0\n" * 100_000)
    refused = {
        place: "not a text file",
        Path(os.devnull): "not a text file",
        big: "over 250,000 bytes",
        Path("a\0b"): "there is no file",
    }
    for path, said in refused.items():
        with pytest.raises(ValueError, match=said):
            read_sweep(path)


@fuzz
@given(
    st.lists(
        st.builds(
            lambda name, values: f"{name}={','.join(values)}",
            st.one_of(NAMES, st.text(max_size=5)),
            st.lists(st.one_of(NOTED, st.text(max_size=5), st.integers(0, 5).map(str)), max_size=4),
        ),
        max_size=4,
    ),
    st.sampled_from([None, "../x", "/x", "", ".", "..", "a\0b", "nul", "x" * 5000, "ok", "é", "a/b"]),
)
def test_a_sweep_with_any_settings_and_any_name(place, study, given, name):
    survives(lambda: planned({"name": name, "set": parse_settings(given, "--set")}, study, place))


TAKEN = (
    "dataset network padding ann_epochs batch_size learning_rate seed limit size k ternary levels clip "
    "int8_ends qann_epochs max_levels published_samples time_steps noise_ratio fault fault_rate "
    "threshold_scale samples robustness_samples"
).split()


@fuzz
@given(st.dictionaries(st.sampled_from(TAKEN), st.one_of(PLAIN, NUMBERS), min_size=1, max_size=3))
def test_a_sweep_of_the_study_with_any_values(place, given):
    survives(lambda: planned({"set": given}, NOTEBOOKS, place))


@fuzz
@given(st.data())
def test_the_files_of_a_sweep_and_of_its_runs_with_anything_in_them(place, study, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANN_SNN_RUNS", str(place / "swept"))
        shutil.rmtree(place / "swept", ignore_errors=True)
        folder = runs.run_folder("one", create=True)
        (folder / "ann.safetensors").write_text("ann")
        manifests.record_stage(
            folder,
            "01_train_ann",
            parameters={"seed": 3},
            artifacts=["ann.safetensors"],
            metrics={"history": [{"loss": 1.0}]},
            request={"code": "x"},
        )
        mark = {"stage": "02_quantize", "state": "failed", "said": "", "error": "ValueError: x"}
        asked = {"name": "s", "notebooks": ["01_train_ann"], "varied": ["seed"], "runs": {"one": {"seed": 3}}}
        good = {
            "one/manifest.json": json.loads((folder / "manifest.json").read_text()),
            "one/results.json": results("one"),
            "one/unfinished.json": mark,
            "sweeps/s/sweep.json": asked,
        }
        changed = data.draw(st.sampled_from([*good]))
        for name, content in good.items():
            text = json.dumps(content).encode()
            if name == changed:
                other = changed_json(content).map(lambda value: json.dumps(value).encode())
                text = data.draw(st.one_of(other, changed_bytes(text)))
            path = place / "swept" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
        # A sweep may say that its runs are others, which are looked for and not found.
        path = place / "swept" / changed
        survives(lambda: runs.chosen_runs("s"))
        survives(lambda: sweep_report("s"), path)
        survives(lambda: plan_text(plan_sweep(build_sweep({"set": {"seed": [3]}}, study))), path)
        table = place / "swept" / "sweeps" / "s" / "results.csv"
        assert bool(survives(lambda: write_results("s"), path)) <= table.is_file()
        assert {path.name for path in (place / "swept").iterdir()} <= {"one", "sweeps"}


@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_images_are_learned_from_and_simulated(value):
    images = torch.full((8, 1, 8, 8), value, dtype=torch.uint8)
    constant = Dataset("constant", "train", images, torch.zeros(8, dtype=torch.int64), ("only", "other"))
    ann = network()
    train_network(ann, constant, epochs=1, batch_size=4, progress=False)
    record = simulate(convert(ann), constant)
    assert (record.settled_at > 0).all()
