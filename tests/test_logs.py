"""The six published logs: every line equals the oracle's, and they appear together or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import chains, random_ann, random_images
from records import hand_made

from ann_snn_utils.measure.logs import log_folder, write_logs
from ann_snn_utils.simulator import oracle
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert

NAMES = ["abs_spike", "accuracy", "sop_num", "spike_collect", "spike_num", "sum_spike"]


def read(folder: Path) -> dict[str, list[int]]:
    return {path.stem: [int(line) for line in path.read_text().split("\n")[:-1]] for path in folder.iterdir()}


def expected_lines(ann, images, labels, time_steps) -> dict[str, list[int]]:
    """The published totals, from the oracle's spikes; one of the encoder carries 2^k operations a synapse."""
    run = oracle.run(ann, images.numpy(), time_steps)
    lines = {name: [] for name in NAMES}
    spikes = collected = operations = 0
    for step in range(time_steps):
        hidden = [layer[step] for layer in run.spikes[1:]]
        absolute = sum(int(np.abs(s).sum()) for s in hidden)
        signed = sum(int(s.sum()) for s in hidden)
        spikes, collected = spikes + absolute, collected + signed
        operations += int(run.sops[step, 1:2].sum()) * 2**ann.spec.k + int(run.sops[step, 2:].sum())
        right = int((run.logits[step].argmax(1) == labels.numpy()).sum())
        for name, value in zip(NAMES, (absolute, right, operations, collected, spikes, signed), strict=True):
            lines[name].append(value)
    return lines


@tries(20)
@given(chains(), st.integers(1, 7), st.integers(0, 1000))
def test_every_line_equals_the_oracle(ann, time_steps, seed):
    images = random_images(seed, ann.spec.in_shape, samples=4).split(2)
    labels = torch.tensor([0, 1, 2, 1]).split(2)
    snn = convert(ann)
    pairs = list(zip(images, labels, strict=True))
    records = [simulate(snn, batch, time_steps, labels=part) for batch, part in pairs]
    first, second = (expected_lines(ann, batch, part, time_steps) for batch, part in pairs)
    with tempfile.TemporaryDirectory() as folder:
        write_logs(records, folder)
        assert read(Path(folder)) == {name: first[name] + second[name] for name in NAMES}


def test_the_logs_count_an_encoder_spike_with_its_amplitude_and_the_record_as_one_event(tmp_path):
    record = hand_made(amplitude=4)
    write_logs([record], tmp_path)
    # 24 · 4 + 6, then 6 · 4 + 6 more, then 6 more.
    assert read(tmp_path)["sop_num"] == [102, 132, 138]
    assert record.sop_num.tolist() == [30, 42, 48]


def test_labels_can_be_given_for_all_batches_at_once(tmp_path):
    records = [hand_made(labels=None), hand_made(labels=None)]
    write_logs(records, tmp_path, labels=torch.tensor([0, 1, 1, 0]))
    assert read(tmp_path)["accuracy"] == [1, 0, 2, 1, 2, 0]


def test_the_files_of_a_hand_made_record(tmp_path):
    write_logs([hand_made()], tmp_path / "figs" / "WQ")
    assert read(tmp_path / "figs" / "WQ") == {
        "accuracy": [1, 0, 2],
        "spike_num": [4, 10, 13],
        "spike_collect": [4, 6, 5],
        "sop_num": [30, 42, 48],
        "abs_spike": [4, 6, 3],
        "sum_spike": [4, 2, -1],
    }
    assert (tmp_path / "figs" / "WQ" / "sum_spike.txt").read_bytes() == b"4\n2\n-1\n"


def test_writing_again_replaces_the_logs_and_leaves_nothing_else(tmp_path):
    write_logs([hand_made(), hand_made()], tmp_path)
    write_logs(hand_made(), tmp_path)
    assert sorted(os.listdir(tmp_path)) == [f"{name}.txt" for name in NAMES]
    assert len(read(tmp_path)["accuracy"]) == 3


@pytest.mark.parametrize(
    ("records", "labels", "message"),
    [
        ([], None, "no record"),
        ([hand_made(labels=None)], None, "no labels"),
        ([hand_made()], torch.tensor([1]), "1 labels for 2 samples"),
        ([hand_made(), hand_made(logits=torch.zeros(2, 2, 2))], None, r"\[2, 3\] time steps"),
    ],
)
def test_nothing_is_written_where_the_records_will_not_do(tmp_path, records, labels, message):
    with pytest.raises(ValueError, match=message):
        write_logs(records, tmp_path / "figs", labels)
    assert not (tmp_path / "figs").exists()


def test_a_full_disk_leaves_the_older_logs_whole(tmp_path, monkeypatch):
    write_logs(hand_made(), tmp_path)
    before = read(tmp_path)
    write_text, written = Path.write_text, []

    def fails_at_the_fourth(self, *arguments, **options):
        written.append(self)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        return write_text(self, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", fails_at_the_fourth)
    with pytest.raises(OSError, match="No space"):
        write_logs([hand_made(), hand_made()], tmp_path)
    assert read(tmp_path) == before


def test_a_folder_in_the_place_of_a_log_and_a_file_in_the_place_of_the_folder_are_named(tmp_path):
    (tmp_path / "sum_spike.txt").mkdir()
    with pytest.raises(ValueError, match=r"sum_spike\.txt is a folder"):
        write_logs(hand_made(), tmp_path)
    assert os.listdir(tmp_path) == ["sum_spike.txt"]
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file"):
        write_logs(hand_made(), tmp_path / "file")


def test_the_folder_says_weights_thresholds_and_level():
    ternary, other = random_ann(k=1), random_ann(ternary=False, k=2)
    assert log_folder(convert(ternary)).as_posix() == "figs/WQ_INT/k1"
    assert log_folder(convert(ternary, "published")).as_posix() == "figs/WQ_INT/k1"
    assert log_folder(convert(ternary, "float"), "out").as_posix() == "out/WQ/k1"
    assert log_folder(convert(ternary, "published-float"), "out").as_posix() == "out/WQ/k1"
    assert log_folder(convert(other)).as_posix() == "figs/NWQ_INT/k2"
