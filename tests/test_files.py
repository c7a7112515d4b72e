from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ann_snn_utils.files import ROOT, atomic, load_json, load_tensors, save_json, save_tensors, sha256


def test_root_is_the_folder_that_holds_the_package():
    assert (ROOT / "ann_snn_utils" / "files.py").is_file()


def test_a_file_appears_under_its_name_only_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "result.txt"
    with atomic(path) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["result.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_no_temporary(tmp_path, error):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(error), atomic(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.txt"]


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "bundle"
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with atomic(path) as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("whole")
    assert (path / "a").read_text() == "whole"


def test_a_path_that_cannot_be_taken_is_named_in_the_error(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    for path in (tmp_path / "folder", tmp_path / "file" / "below", tmp_path / ("a" * 250)):
        with pytest.raises(OSError, match=rf"cannot write {path} .*: choose another path"):
            save_json(path, {})
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"] and (tmp_path / "file").read_text() == "old"


def test_a_full_disk_is_named_in_the_error(tmp_path):
    with (
        pytest.raises(OSError, match=r"cannot write .*result\.txt.*free some space"),
        atomic(tmp_path / "result.txt") as temporary,
    ):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_a_read_only_folder_is_named_in_the_error(tmp_path):
    with (
        pytest.raises(PermissionError, match=r"cannot write .*result\.txt.*choose another"),
        atomic(tmp_path / "result.txt"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_device_is_refused_and_survives():
    if not Path("/dev/full").is_char_device():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(ValueError, match="device or a pipe"):
        with atomic("/dev/full"):
            raise AssertionError("the block must not run: the rename would replace the device")
    assert Path("/dev/full").is_char_device()


def test_temporaries_of_a_killed_process_go_with_the_next_write_but_young_ones_stay(tmp_path):
    abandoned, young = tmp_path / ".result.txt.0123.tmp", tmp_path / ".result.txt.4567.tmp"
    abandoned.write_text("half")
    young.write_text("another process writes this now")
    os.utime(abandoned, (time.time() - 86400,) * 2)
    with atomic(tmp_path / "result.txt") as temporary:
        temporary.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == [young.name, "result.txt"]


def test_json_comes_back_with_numbers_of_numpy_and_torch_as_plain_ones(tmp_path):
    path = tmp_path / "results.json"
    value = {"a": np.int64(3), "b": np.arange(3), "c": torch.tensor([0.5]), "d": Path("x"), "ü": None}
    save_json(path, value)
    assert load_json(path) == {"a": 3, "b": [0, 1, 2], "c": [0.5], "d": "x", "ü": None}


def test_a_value_that_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    save_json(path, 1)
    with pytest.raises(TypeError, match="object"):
        save_json(path, {"a": object()})
    assert load_json(path) == 1
    assert os.listdir(tmp_path) == ["results.json"]


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_json_file_is_named_in_the_error(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"results\.json is not valid JSON"):
        load_json(path)


def test_tensors_come_back_with_type_shape_and_metadata(tmp_path):
    path = tmp_path / "net.safetensors"
    weight = torch.arange(24).reshape(2, 3, 4)
    tensors = {
        "int64": weight,
        "view": weight[1:],
        "transposed": weight.transpose(0, 2),
        "int8": torch.tensor([[-1, 0, 1]], dtype=torch.int8),
        "double": torch.tensor(0.1, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    save_tensors(path, tensors, {"k": 1, "classes": ["ä"], "accuracy": np.float64(0.5)})
    loaded, metadata = load_tensors(path)
    assert metadata == {"k": 1, "classes": ["ä"], "accuracy": 0.5}
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor.detach())
    assert os.listdir(tmp_path) == ["net.safetensors"]


def test_a_tensor_file_is_as_readable_as_any_other_new_file(tmp_path):
    (tmp_path / "plain").touch()
    save_tensors(tmp_path / "net.safetensors", {"a": torch.ones(1)}, {})
    assert (tmp_path / "net.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_tensor_file_can_be_replaced_while_its_tensors_are_in_use(tmp_path):
    path = tmp_path / "net.safetensors"
    save_tensors(path, {"a": torch.ones(1000)}, {})
    loaded, _ = load_tensors(path)
    path.write_bytes(b"")
    assert loaded["a"].sum() == 1000


def test_a_truncated_tensor_file_is_named_in_the_error_wherever_it_is_cut(tmp_path):
    path = tmp_path / "net.safetensors"
    save_tensors(path, {"a": torch.arange(4)}, {"k": 0})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"net\.safetensors is truncated, corrupt or not"):
            load_tensors(path)


def test_a_pickle_is_refused_and_not_executed(tmp_path):
    path = tmp_path / "net.safetensors"
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"net\.safetensors .* not a safetensors file"):
        load_tensors(path)


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000])
def test_metadata_that_is_not_a_dict_is_named_in_the_error(tmp_path, text):
    from safetensors.torch import save_file

    path = tmp_path / "net.safetensors"
    save_file({"a": torch.ones(1)}, path, metadata={"json": text})
    with pytest.raises(ValueError, match=r"net\.safetensors"):
        load_tensors(path)


@pytest.mark.parametrize("load", [load_json, load_tensors, sha256])
def test_a_missing_file_and_a_folder_are_named_in_the_error(tmp_path, load):
    with pytest.raises(FileNotFoundError, match=r"nothing does not exist"):
        load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="is a folder"):
        load(tmp_path)


def test_the_checksum_is_sha256_of_the_bytes(tmp_path):
    save_json(tmp_path / "a", {"k": 1})
    assert sha256(tmp_path / "a") == hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()
    assert json.loads((tmp_path / "a").read_bytes()) == {"k": 1}
