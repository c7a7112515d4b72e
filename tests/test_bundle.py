"""The hardware bundle: two independent readers reproduce it spike for spike, and notice whatever is changed."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import check_in_c, check_in_python, dataset, small_bundle
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import networks, random_ann, random_images

from ann_snn_utils import load_pretrained
from ann_snn_utils.ann.network import build_ann
from ann_snn_utils.cli import main
from ann_snn_utils.data.dataset import load_dataset
from ann_snn_utils.hardware import bundle
from ann_snn_utils.hardware.bundle import READERS, layout_text, pack_pairs, write_bundle
from ann_snn_utils.hardware.circuit import hardware
from ann_snn_utils.hardware.cost import cost_report
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert

pytestmark = pytest.mark.slow

reader = runpy.run_path(str(READERS / "run_bundle.py"))


@tries(25)
@given(ann=networks(), seed=st.integers(0, 1000))
def test_both_readers_reproduce_every_spike_of_random_networks(tmp_path_factory, ann, seed):
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    write_bundle(convert(ann, max_levels=512), dataset(random_images(seed, ann.spec.in_shape)), folder)
    in_c = check_in_c(folder)
    assert in_c.returncode == 0 and in_c.stdout.startswith("OK: 2 samples"), in_c.stderr
    assert reader["main"]([str(folder)]) == 0


def test_both_readers_reproduce_the_digits_network_as_programs_of_their_own(tmp_path):
    snn = convert(load_pretrained("digits-lenet-k0"))
    folder = write_bundle(snn, load_dataset("digits").subset(4), tmp_path / "digits")
    for done in (check_in_c(folder), check_in_python(folder)):
        assert done.returncode == 0 and done.stdout.startswith("OK: 4 samples"), done.stderr


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="no Verilog simulator (iverilog) is installed")
@pytest.mark.parametrize("arguments", [{"k": 1, "padding": "same", "network": "3C3-P2-5"}, {"ternary": False}])
def test_the_test_bench_in_verilog_makes_the_golden_spikes_of_every_layer(tmp_path, arguments):
    folder = small_bundle(tmp_path / "bundle", **arguments)
    for header in sorted((folder / "network").glob("*.vh")):
        command = ["iverilog", "-g2005", f'-DLAYER="network/{header.name}"', "-o", tmp_path / "tb", "layer_tb.v"]
        subprocess.run(command, cwd=folder, check=True)
        done = subprocess.run(["vvp", tmp_path / "tb"], cwd=folder, capture_output=True, text=True, check=True)
        assert re.fullmatch(r"layer \d: \d+ spikes compared, 0 differ\n", done.stdout)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("whole") / "bundle", k=1, padding="same", network="3C3-P2-5")


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "bundle")


def flip(path: Path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


GOLDEN = (
    "layer0_spikes",
    "layer1_spikes",
    "layer2_spikes",
    "layer0_membranes",
    "layer2_membranes",
    "scores",
    "predictions",
)
NAMED = r"DIFFERENT: sample \d.*recomputed.*golden file"


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_changed_golden_value_fails_both_readers_with_its_place(folder, name, share):
    path = folder / "golden" / f"{name}.bin"
    # The last byte of spikes may be filling; the first value of any other one never is.
    place = int(share * (path.stat().st_size - (2 if "spikes" in name else 1)))
    flip(path, place, bit=0)
    for done in (check_in_c(folder), check_in_python(folder)):
        assert done.returncode == 1 and re.match(NAMED, done.stderr), done


def test_any_changed_byte_of_any_file_is_noticed(folder):
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"):
        before = path.read_bytes()
        flip(path, len(before) // 2, bit=6)
        assert reader["main"]([str(folder)]) in (1, 2), path
        path.write_bytes(before)
    assert reader["main"]([str(folder)]) == 0


def test_the_reader_in_c_notices_what_a_test_bench_would_read_otherwise(folder):
    for path in (path for path in sorted(folder.rglob("*.hex")) if path.stem != "labels"):
        before = path.read_bytes()
        # Another digit, a line more, and one cut short.
        for changed in (before[:-2] + bytes([before[-2] ^ 1]) + b"\n", before + b"00\n", before[:-3]):
            path.write_bytes(changed)
            done = check_in_c(folder)
            assert done.returncode == 1 and f"DIFFERENT: {path.relative_to(folder)}: not the words" in done.stderr
        path.write_bytes(before)
    assert check_in_c(folder).returncode == 0


@pytest.mark.parametrize("name", ["network/layer1_weight.bin", "golden/scores.bin", "layout.txt", "manifest.json"])
def test_a_missing_or_cut_file_is_named(folder, name):
    path = folder / name
    readers = [check_in_python] if name == "manifest.json" else [check_in_c]
    readers += [check_in_python] if name.startswith(("network", "golden")) else []
    path.write_bytes(path.read_bytes()[:-3])
    for check in readers:
        done = check(folder)
        assert done.returncode == 2 and done.stderr.startswith("cannot check the bundle: "), done
    path.unlink()
    for check in readers:
        done = check(folder)
        assert done.returncode == 2 and name in done.stderr, done


def test_the_stated_widths_are_held_and_not_one_bit_less(tmp_path):
    folder = write_bundle(convert(extreme(k=1)), dataset(EXTREME, 2), tmp_path / "bundle")
    assert check_in_c(folder).returncode == 0
    text = (folder / "layout.txt").read_text()
    fewer = re.sub(r"\nmembrane_bits (\d+)", lambda match: f"\nmembrane_bits {int(match[1]) - 1}", text)
    (folder / "layout.txt").write_text(fewer)
    done = check_in_c(folder)
    assert done.returncode == 1 and re.search(r"U -?\d+ leaves its \d+ bits", done.stderr)


EXTREME = torch.tensor([[255, 0], [0, 255], [255, 255], [0, 0]], dtype=torch.uint8).reshape(4, 2, 1, 1)


def extreme(k: int = 0, levels: int = 4):
    """Two pixels that the encoder passes on whole; hidden neurons with weights (+, −), (−, +) and (+, +)."""
    ann = build_ann("2C1-3", (2, 1, 1), 2, k=k, levels=levels)
    encoder, hidden = ann.layers
    with torch.no_grad():
        encoder.conv.parametrizations.weight.original.copy_(torch.eye(2).reshape(2, 2, 1, 1))
        encoder.norm.weight.fill_(levels / 127)
        hidden.conv.parametrizations.weight.original.copy_(
            torch.tensor([[1.0, -1], [-1, 1], [1, 1]]).reshape(3, 2, 1, 1)
        )
        hidden.norm.weight.fill_(1 - 1e-3)
        hidden.norm.bias.fill_(0.5)
        ann.classifier.parametrizations.weight.original.copy_(torch.tensor([[1.0, 0, 1], [-1, 0, -1]]))
    return ann.eval()


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("levels", [1, 4, 7])
def test_adversarial_inputs_reach_the_worst_case_of_a_membrane_exactly(k, levels):
    snn = convert(extreme(k, levels), max_levels=256)
    record = simulate(snn, EXTREME, trace=range(4))
    for layer, membranes in zip(snn.layers, record.traces.membranes, strict=True):
        seen = membranes.movedim(2, 0).flatten(1)
        assert torch.equal(seen.amin(1).long(), layer.lowest) and torch.equal(seen.amax(1).long(), layer.highest)


@tries(30)
@given(networks(), st.data())
def test_the_image_that_fits_a_filter_reaches_the_encoders_bound_exactly(ann, data):
    snn = convert(ann)
    layer = snn.layers[0]
    channel = data.draw(st.integers(0, len(layer.weight) - 1))
    kernel, size = layer.weight[channel], layer.spec.kernel
    at = [(out - 1) // 2 for out in layer.spec.out_shape[1:]]
    origin = [place * layer.spec.stride - layer.spec.padding for place in at]
    for sign, bound in ((1, layer.highest), (-1, layer.lowest)):
        image = torch.zeros(1, *ann.spec.in_shape, dtype=torch.uint8)
        window = image[0, :, origin[0] : origin[0] + size[0], origin[1] : origin[1] + size[1]]
        window[kernel * sign > 0] = 255
        membrane = simulate(snn, image, 1, trace=[0]).traces.membranes[0]
        assert int(membrane[0, 0, channel, at[0], at[1]]) == int(bound[channel])


def test_no_number_of_samples_is_taken_for_a_check_of_none_of_them(whole, capsys):
    assert reader["main"]([str(whole), "1"]) == 0
    for number in ("0", "-1"):
        assert reader["main"]([str(whole), number]) == 2 and f"{number} samples: name" in capsys.readouterr().err


def test_the_manifest_and_the_layout_say_the_same(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert layout_text(manifest) == (whole / "layout.txt").read_text()
    listed = set(manifest["files"]) | {"manifest.json"}
    assert listed == {p.relative_to(whole).as_posix() for p in whole.rglob("*") if p.is_file()}
    for name, tensor in manifest["tensors"].items():
        if tensor["bits"] > 2:
            assert (whole / f"{name}.bin").stat().st_size == np.prod(tensor["shape"]) * tensor["bits"] // 8


def test_the_adder_of_the_manifest_makes_the_thresholds_of_the_network(whole):
    snn = convert(random_ann(3, k=1, padding="same", network="3C3-P2-5"), max_levels=512)
    for layer, circuit in zip(snn.layers, hardware(snn).layers, strict=True):
        for channel, row in enumerate(layer.thresholds.tolist()):
            a, d, f = int(circuit.offset[channel]), int(circuit.step[channel]), circuit.fraction_bits
            for j, theta in enumerate(row, 1):
                for u in (theta - 1, theta):
                    if layer.lowest[channel] <= u <= layer.highest[channel]:
                        assert ((u << f) >= a + j * d) == (u >= theta)


def test_pairs_of_bits_are_twos_complement_with_the_first_value_lowest():
    assert pack_pairs(np.array([1, -1, 0, 0, -1])).tolist() == [0b00_00_11_01, 0b11]
    with pytest.raises(ValueError, match="not -1 … 2"):
        pack_pairs(np.array([-1, 2]))


def test_the_same_network_makes_the_same_bytes(whole, tmp_path):
    again = small_bundle(tmp_path / "again", k=1, padding="same", network="3C3-P2-5")
    for path in (path for path in whole.rglob("*") if path.is_file()):
        assert path.read_bytes() == (again / path.relative_to(whole)).read_bytes(), path


def test_what_lies_there_already_is_never_written_over(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, message in (("mine", "is not empty"), ("file", "is a file")):
        with pytest.raises(FileExistsError, match=message):
            small_bundle(tmp_path / name)
    snn, samples = convert(random_ann(3)), dataset(random_images(3, (1, 8, 8)))
    with pytest.raises(FileExistsError, match="something else than a bundle"):
        write_bundle(snn, samples, tmp_path / "mine", replace_old=True)
    assert sorted(os.listdir(tmp_path)) == ["file", "mine"]
    (tmp_path / "empty").mkdir()
    assert (write_bundle(snn, samples, tmp_path / "empty") / "manifest.json").is_file()
    write_bundle(snn, samples, tmp_path / "empty", replace_old=True)
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "mine"]


@pytest.mark.parametrize("replace_old", [False, True])
def test_what_comes_to_lie_there_while_a_bundle_is_written_is_kept(tmp_path, monkeypatch, replace_old):
    out = tmp_path / "out"

    def meanwhile(*arguments):
        out.mkdir()
        (out / "notes.txt").write_text("mine")
        return cost_report(*arguments)

    monkeypatch.setattr(bundle, "cost_report", meanwhile)
    snn, samples = convert(random_ann(3)), dataset(random_images(3, (1, 8, 8)))
    with pytest.raises(FileExistsError, match="give the path of a new folder"):
        write_bundle(snn, samples, out, replace_old=replace_old)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "notes.txt"]


@pytest.mark.parametrize("mine", ["network/notes.txt", "layer_tb.v"])
def test_what_was_put_into_a_bundle_is_kept_when_it_is_replaced(tmp_path, monkeypatch, mine):
    out, snn, samples = tmp_path / "out", convert(random_ann(3)), dataset(random_images(3, (1, 8, 8)))
    write_bundle(snn, samples, out)

    def meanwhile(*arguments):
        (out / mine).write_text("mine")
        return cost_report(*arguments)

    monkeypatch.setattr(bundle, "cost_report", meanwhile)
    for number in (1, 2):
        kept = tmp_path / f"out-old-{number}"
        with pytest.warns(UserWarning, match=f"out held {mine}, which is .*: the old folder is {kept}"):
            write_bundle(snn, samples, out, replace_old=True)
        assert (kept / mine).read_text() == "mine" and not bundle._others(out)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_network_with_real_numbers_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="convert an integer network"):
        write_bundle(convert(random_ann(), "float"), dataset(random_images(0, (1, 8, 8))), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pretrained", "digits-lenet"], "'digits-lenet': choose one of digits-lenet-k0"),
        (["none"], "there is no run 'none'"),
        (["--pretrained", "digits-lenet-k0", "--samples", "0"], "'--samples': 0 is not in the range x>=1"),
        (["--pretrained", "digits-lenet-k0", "--time-steps", "-1"], "'--time-steps': -1 is not in the range"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_message(tmp_path, runs, capsys, arguments, message):
    assert main(["bundle", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_command_writes_a_bundle_that_says_where_it_comes_from(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["bundle", "--pretrained", "digits-lenet-k0", "--out", str(out)]
    arguments += ["--samples", "2", "--time-steps", "3"]
    assert main(arguments) == 0
    assert "2 samples" in capsys.readouterr().out
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["provenance"]["network"] == "pretrained digits-lenet-k0" and manifest["steps"] == 3
    assert len(manifest["provenance"]["sha256"]) == 64 and manifest["training"]["correct"] == 360
    assert check_in_python(out).returncode == 0
    assert main(arguments) == 2 and "is not empty" in capsys.readouterr().err
