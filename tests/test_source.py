"""Which images a run takes: what its parameters name, and the two sets that they give."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from ann_snn_utils.data.dataset import (
    data_identity,
    identity_of,
    load_dataset,
    load_recorded,
    load_splits,
    source_of,
)
from ann_snn_utils.files import ROOT


def test_parameters_that_are_zero_or_missing_narrow_nothing():
    everything = {"name": "digits", "limit": None, "size": None, "crop": None, "held_out": None}
    assert source_of({"dataset": "digits"}) == everything
    assert source_of({"dataset": "digits", "limit": 0, "size": 0, "crop": 0, "held_out": 0, "k": 2}) == everything


def test_parameters_that_narrow_are_handed_on_by_name():
    given = {"limit": 30, "size": 12, "crop": 10, "held_out": 99}
    assert source_of({"dataset": "mnist", "network": "lenet", **given}) == {"name": "mnist", **given}


def test_training_images_stay_whole_and_test_images_are_their_centre():
    training, test = load_splits(**source_of({"dataset": "digits", "size": 12, "crop": 8, "limit": 40}))
    whole = load_dataset("digits", "test", size=12, limit=40)
    assert (training.split, test.split) == ("train", "test")
    assert (training.in_shape, test.in_shape) == ((1, 12, 12), (1, 8, 8))
    assert torch.equal(test.images, whole.images[:, :, 2:10, 2:10])


def test_held_out_images_are_cropped_as_test_images_and_the_others_are_not():
    training, test = load_splits("digits", size=12, crop=8, held_out=100)
    assert (len(training), len(test)) == (1337, 100)
    assert (training.in_shape, test.in_shape) == ((1, 12, 12), (1, 8, 8))


def test_a_crop_that_does_not_fit_is_refused_although_training_images_stay_whole():
    with pytest.raises(ValueError, match=r"crop=\(30, 30\): images have \(28, 28\) pixels; give a crop within"):
        load_splits("digits", crop=30)


def test_the_identity_of_a_source_is_that_of_the_images_it_loads():
    source = source_of({"dataset": "digits", "size": 12, "crop": 8, "limit": 40})
    training, test = load_splits(**source)
    identity = data_identity(source)
    assert identity == {"training": training.sha256, "test": test.sha256, "classes": list("0123456789")}
    identity["classes"].clear()
    assert data_identity(source)["classes"] == list("0123456789")
    assert data_identity(source | {"limit": 41})["test"] != test.sha256


def test_the_identity_changes_when_files_change_although_their_sizes_and_times_are_equal(tmp_path, monkeypatch):
    monkeypatch.setenv("ANN_SNN_CACHE", str(tmp_path / "cache"))
    files = [tmp_path / "grey" / split / name / "0.bmp" for split in ("train", "test") for name in ("a", "b")]
    for value, file in enumerate(files):
        file.parent.mkdir(parents=True)
        Image.new("L", (4, 4), value).save(file)
        os.utime(file, (1_600_000_000, 1_600_000_000))
    source = source_of({"dataset": str(tmp_path / "grey")})
    before = data_identity(source)
    files[2].rename(tmp_path / "aside")
    files[3].rename(files[2])
    (tmp_path / "aside").rename(files[3])
    after = data_identity(source)
    assert after["training"] == before["training"] and after["test"] != before["test"]


def test_a_path_is_recorded_as_an_absolute_one_and_a_named_set_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "mnist").mkdir()
    monkeypatch.chdir(tmp_path)
    assert source_of({"dataset": "images"})["name"] == str(tmp_path / "images")
    assert source_of({"dataset": "./mnist"})["name"] == str(tmp_path / "mnist")
    assert source_of({"dataset": "mnist"})["name"] == "mnist"
    # Relative to the repository, as notebooks of the project have it.
    assert source_of({"dataset": "tests"})["name"] == str(ROOT / "tests")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ANN_SNN_CACHE", str(tmp_path / "cache"))
    places = [Path(split, name) for split in ("train", "test") for name in ("cat", "dog")]
    for value, place in enumerate(places):
        (tmp_path / "pets" / place).mkdir(parents=True)
        Image.new("L", (6, 6), 10 * value).save(tmp_path / "pets" / place / "0.png")
    return tmp_path / "pets"


def recorded(folder: Path, **options) -> dict:
    source = source_of({"dataset": str(folder)} | options)
    return {"source": source, "data": identity_of(*load_splits(**source))}


def test_recorded_images_are_loaded_where_they_lay_and_where_they_lie_now(folder, tmp_path, monkeypatch):
    metadata = recorded(folder, crop=4)
    training, test = (load_recorded(metadata, split) for split in ("train", "test"))
    assert (training.in_shape, test.in_shape) == ((1, 6, 6), (1, 4, 4))
    moved = folder.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=f"lay in {folder}, which is not there.*--dataset PATH"):
        load_recorded(metadata)
    assert load_recorded(metadata, dataset=moved).sha256 == test.sha256
    (tmp_path / "data").mkdir()
    moved.rename(tmp_path / "data" / "pets")
    monkeypatch.setenv("ANN_SNN_DATA", str(tmp_path / "data"))
    assert load_recorded(metadata).sha256 == test.sha256


def test_an_image_that_moved_to_another_class_or_has_another_pixel_is_refused(folder):
    metadata = recorded(folder)
    (folder / "test/cat/0.png").rename(folder / "test/dog/1.png")
    Image.new("L", (6, 6), 7).save(folder / "test/cat/0.png")
    found = load_dataset(folder).sha256
    with pytest.raises(ValueError, match="test images of .*pets are not those") as raised:
        load_recorded(metadata)
    for part in (found[:12], metadata["data"]["test"][:12], "--dataset", "train again"):
        assert part in str(raised.value)
    assert load_recorded(metadata, "train").sha256 == metadata["data"]["training"]


def test_a_class_folder_renamed_after_training_is_refused_with_both_lists(folder):
    metadata = recorded(folder)
    for split in ("train", "test"):
        (folder / split / "cat").rename(folder / split / "zebra")
    with pytest.raises(ValueError, match="its classes were cat, dog and are dog, zebra"):
        load_recorded(metadata)


def test_files_of_earlier_versions_are_read_by_their_source_and_moved_images_with_a_warning(folder, tmp_path):
    metadata = {"source": {"name": str(folder)}}
    assert len(load_recorded(metadata)) == 2
    moved = folder.rename(tmp_path / "moved")
    with pytest.warns(UserWarning, match="no digest is recorded"):
        assert len(load_recorded(metadata, dataset=moved)) == 2
    with pytest.raises(ValueError, match="does not say what data it was trained on"):
        load_recorded({})
