"""Files that version 0.1.0 wrote before the package had rooms are read as before; tests/files holds them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import torch
from bundles import check_in_c, check_in_python
from networks import random_images

from ann_snn_utils import load_ann, load_snn, simulate
from ann_snn_utils.ann.reference import codes
from ann_snn_utils.hardware.bundle import is_bundle
from ann_snn_utils.runs.folder import read_sweep_file
from ann_snn_utils.runs.manifest import mark_of, read_manifest, record_stage
from ann_snn_utils.snn.conversion import convert

FILES = Path(__file__).parent / "files"
IMAGES = random_images(7, (1, 6, 6), 4)


def test_a_quantized_network_is_read_with_what_was_saved_beside_it():
    ann = load_ann(FILES / "qann.safetensors")
    assert ann.spec.network == "2C3-P2-3" and ann.spec.k == 1 and ann.spec.clip == 2
    assert ann.metadata["source"]["size"] == 6 and ann.metadata["correct"] == 3
    assert torch.equal(convert(ann).layers[1].thresholds, load_snn(FILES / "snn.safetensors").layers[1].thresholds)


def test_a_spiking_network_is_read_and_fires_as_it_did():
    snn = load_snn(FILES / "snn.safetensors")
    expected, record = json.loads((FILES / "expected.json").read_text()), simulate(snn, IMAGES)
    assert [int(count.sum()) for count in record.counts] == expected["counts"]
    assert record.logits[-1].tolist() == expected["logits"]
    assert record.settled_at.tolist() == expected["settled_at"]
    assert record.spike_num.tolist() == expected["spike_num"]
    for count, code in zip(record.counts, codes(load_ann(FILES / "qann.safetensors"), IMAGES)[0], strict=True):
        assert torch.equal(count, code)
    assert snn.metadata["mismatches"] == 0


def test_the_manifest_of_a_run_and_the_mark_of_an_unfinished_one_are_read(tmp_path):
    for name in ("manifest.json", "unfinished.json"):
        (tmp_path / name).write_text((FILES / name).read_text())
    manifest = read_manifest(tmp_path)
    assert list(manifest.stages) == ["01_train_ann", "02_quantize", "03_convert", "04_spike_analysis"]
    stage = manifest.stages["02_quantize"]
    assert stage.parameters["distillation"] == 0 and stage.metrics["correct"] == 360 and stage.seconds == 310
    assert stage.inputs == manifest.stages["01_train_ann"].artifacts and stage.images is None
    assert manifest.stale_stages() == [] and len(stage.request["code"]) == 16
    mark = mark_of(tmp_path)
    assert (mark.stage, mark.state, mark.error, mark.cell) == ("02_quantize", "failed", "KeyError: 'lost'", 7)
    # It is still so when a stage is recorded beside the others.
    (tmp_path / "a").write_text("a")
    record_stage(tmp_path, "08_hardware", parameters={}, artifacts=["a"])
    again = read_manifest(tmp_path).stages
    assert list(again)[:4] == list(manifest.stages) and again["02_quantize"] == stage


def test_the_file_of_a_sweep_is_read(runs):
    (runs / "sweeps" / "levels").mkdir(parents=True)
    (runs / "sweeps" / "levels" / "sweep.json").write_text((FILES / "sweep.json").read_text())
    sweep = read_sweep_file("levels")
    assert sweep.varied == ["k"] and [own["k"] for own in sweep.runs.values()] == [0, 1]


def test_a_bundle_checks_itself_and_passes_the_readers_of_today(tmp_path):
    with zipfile.ZipFile(FILES / "bundle.zip") as archive:
        archive.extractall(tmp_path)
    assert is_bundle(tmp_path)
    for done in (check_in_python(tmp_path), check_in_c(tmp_path)):
        assert done.returncode == 0 and done.stdout.startswith("OK: 4 samples"), done.stderr
