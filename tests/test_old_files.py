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


def test_a_bundle_checks_itself_and_passes_the_readers_of_today(tmp_path):
    with zipfile.ZipFile(FILES / "bundle.zip") as archive:
        archive.extractall(tmp_path)
    assert is_bundle(tmp_path)
    for done in (check_in_python(tmp_path), check_in_c(tmp_path)):
        assert done.returncode == 0 and done.stdout.startswith("OK: 4 samples"), done.stderr
