from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ann_snn_utils.data.dataset import Dataset, as_images, load_dataset
from ann_snn_utils.files import ROOT


def small(count: int = 20, classes: int = 3) -> Dataset:
    images = torch.arange(count, dtype=torch.uint8).reshape(count, 1, 1, 1)
    labels = torch.arange(count) ** 2 % classes
    return Dataset("small", "test", images, labels, tuple("abcdefgh"[:classes]))


def test_digits_are_split_1437_to_360_with_every_class_in_its_share():
    train, test = load_dataset("digits", "train"), load_dataset("digits")
    assert (len(train), len(test)) == (1437, 360)
    assert train.in_shape == test.in_shape == (1, 28, 28)
    assert train.images.dtype == torch.uint8 and train.labels.dtype == torch.int64
    assert train.classes == tuple("0123456789")
    assert test.labels.bincount().tolist() == pytest.approx([36] * 10, abs=1)


@pytest.mark.slow
def test_digits_of_the_two_splits_are_all_scans_and_each_once():
    from sklearn.datasets import load_digits

    parts = [load_dataset("digits", split, size=8).images[:, 0] for split in ("train", "test")]
    expected = (load_digits().images * 255 / 16 + 0.5).astype(np.uint8)
    assert sorted(map(bytes, torch.cat(parts).numpy())) == sorted(map(bytes, expected))


@pytest.mark.slow
def test_the_digits_of_the_test_set_are_those_that_scikit_learn_drew():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    kept = train_test_split(images, labels, test_size=360, random_state=20240830, stratify=labels)
    for split, pixels, classes in zip(("train", "test"), kept[:2], kept[2:], strict=True):
        own = load_dataset("digits", split, size=8)
        rows = zip((pixels * 255 / 16 + 0.5).astype(np.uint8), classes, strict=True)
        assert sorted((bytes(image), int(label)) for image, label in rows) == sorted(
            (bytes(image), int(label)) for image, label in zip(own.images.numpy(), own.labels, strict=True)
        )


def test_digits_do_not_depend_on_the_users_seed():
    np.random.seed(1)
    torch.manual_seed(1)
    first = load_dataset("digits", limit=50)
    np.random.seed(2)
    torch.manual_seed(2)
    second = load_dataset("digits", limit=50)
    assert torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)


@pytest.mark.parametrize("size", [28, 13, (8, 20)])
def test_digits_are_resized_as_bilinear_interpolation_says(size):
    scans = load_dataset("digits", size=8)
    resized = load_dataset("digits", size=size)
    height, width = (size, size) if isinstance(size, int) else size
    expected = torch.nn.functional.interpolate(scans.images.double(), (height, width), mode="bilinear")
    assert resized.in_shape == (1, height, width)
    # The scans above are already rounded to whole grey values, hence half a unit more than rounding.
    assert (resized.images - expected).abs().max() <= 1.0


def test_a_limit_takes_classes_evenly_and_a_smaller_one_is_a_prefix_of_a_larger_one():
    few, many = load_dataset("digits", limit=25), load_dataset("digits", limit=100)
    assert torch.equal(many.images[:25], few.images)
    assert many.labels.bincount().tolist() == [10] * 10
    assert sorted(few.labels.bincount().tolist()) == [2] * 5 + [3] * 5


def test_a_limit_beyond_the_set_keeps_every_sample_once():
    everything = load_dataset("digits", limit=10**6)
    assert len(everything) == 360
    assert len({bytes(image.numpy()) for image in everything.images}) == 360


def test_a_subset_of_a_set_with_unequal_classes_takes_what_there_is():
    dataset = Dataset(
        "x",
        "test",
        torch.zeros(7, 1, 1, 1, dtype=torch.uint8),
        torch.tensor([0, 0, 0, 0, 1, 2, 2]),
        ("a", "b", "c"),
    )
    assert dataset.subset(5).labels.tolist() == [0, 1, 2, 0, 2]
    assert dataset.subset(7).labels.bincount().tolist() == [4, 1, 2]


@pytest.mark.parametrize("form", [list, np.array, lambda indices: torch.tensor(indices, dtype=torch.int32)])
def test_a_subset_by_indices_keeps_their_order(form):
    dataset = small()
    part = dataset.subset(form([3, 1, 3]))
    assert part.images.flatten().tolist() == [3, 1, 3]
    assert torch.equal(part.labels, dataset.labels[[3, 1, 3]])
    assert (part.name, part.split, part.classes) == ("small", "test", dataset.classes)


@pytest.mark.parametrize(
    "samples", [0, -1, 21, [], [20], [-1], [0.5], [True, False], [[1]], True, "abc", None, np.zeros(0, int)]
)
def test_a_subset_that_does_not_exist_is_refused(samples):
    with pytest.raises(ValueError, match="choose|indices"):
        small().subset(samples)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(4, 1, 2, 2)}, "float32"),
        ({"images": torch.zeros(4, 2, 2, dtype=torch.uint8)}, r"\[4, 2, 2\]"),
        ({"images": torch.zeros(3, 1, 2, 2, dtype=torch.uint8)}, "3 images but 4 labels"),
        ({"labels": torch.zeros(4)}, "labels are torch.float32"),
        ({"labels": torch.tensor([0, 1, 2, 0])}, "label 2 of sample 2 is not one of 0…1"),
        ({"labels": torch.tensor([0, 1, 0, -1])}, "label -1 of sample 3"),
        ({"classes": ("a",), "labels": torch.zeros(4, dtype=torch.int64)}, "1 class"),
        (
            {"images": torch.zeros(0, 1, 2, 2, dtype=torch.uint8), "labels": torch.zeros(0, dtype=torch.int64)},
            "empty",
        ),
        ({"images": torch.zeros(4, 1, 0, 2, dtype=torch.uint8)}, "empty"),
    ],
)
def test_images_and_labels_that_do_not_agree_are_refused(change, message):
    good = {
        "images": torch.zeros(4, 1, 2, 2, dtype=torch.uint8),
        "labels": torch.tensor([0, 1, 0, 1]),
        "classes": ("a", "b"),
    }
    Dataset("x", "test", **good)
    with pytest.raises(ValueError, match=message):
        Dataset("x", "test", **(good | change))


@pytest.mark.parametrize("name", ["minst", "", "a" * 5000, "no/such/folder", "a\0b", None, 3])
def test_an_unknown_name_is_answered_with_the_known_ones(name):
    with pytest.raises(ValueError, match="digits, mnist, fashion_mnist, cifar10"):
        load_dataset(name)


def test_the_path_of_no_folder_is_not_taken_for_a_name():
    with pytest.raises(ValueError, match="'digits'.*is the path of no folder: give the name 'digits' as text"):
        load_dataset(Path("digits"))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("split", "validation"),
        ("limit", 0),
        ("limit", 1.5),
        ("limit", True),
        ("size", 0),
        ("size", 5000),
        ("size", (8, 8, 8)),
        ("size", "28"),
        ("size", (8, 1.0)),
        ("size", True),
        ("crop", 0),
        ("crop", (8,)),
        ("crop", 8.0),
        ("held_out", 0),
        ("held_out", -1),
        ("held_out", 10.0),
    ],
)
def test_an_argument_out_of_range_is_named_with_its_value(argument, value):
    with pytest.raises(ValueError, match=re.escape(f"{argument}={value!r}")):
        load_dataset("digits", **{argument: value})


def test_a_data_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="file is not a folder"):
        load_dataset("mnist", root=tmp_path / "file")


def test_a_relative_data_root_is_looked_up_in_the_repository_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANN_SNN_DATA", "ann_snn_utils")
    with pytest.raises(FileNotFoundError, match=re.escape(str(ROOT / "ann_snn_utils" / "MNIST"))):
        load_dataset("mnist", fetch=False)


@pytest.mark.parametrize(
    ("crop", "rows", "columns"),
    [
        (20, slice(4, 24), slice(4, 24)),
        ((28, 7), slice(0, 28), slice(10, 17)),
        (28, slice(None), slice(None)),
    ],
)
def test_a_crop_keeps_the_centre(crop, rows, columns):
    whole, cropped = load_dataset("digits", limit=20), load_dataset("digits", limit=20, crop=crop)
    assert torch.equal(cropped.images, whole.images[:, :, rows, columns])
    assert torch.equal(cropped.labels, whole.labels)


def test_a_crop_is_cut_after_resizing():
    assert load_dataset("digits", size=12, crop=(10, 11)).in_shape == (1, 10, 11)
    with pytest.raises(ValueError, match=r"crop=\(20, 20\): images have \(12, 12\) pixels; give a crop within"):
        load_dataset("digits", size=12, crop=20)


def test_held_out_images_and_the_others_are_together_the_training_set_each_once():
    whole = load_dataset("digits", "train", size=8)
    parts = [load_dataset("digits", split, size=8, held_out=200) for split in ("train", "test")]
    assert [(len(part), part.split) for part in parts] == [(1237, "train"), (200, "test")]

    def rows(dataset: Dataset) -> list[tuple[bytes, int]]:
        return [(bytes(image.numpy()), int(dataset.labels[i])) for i, image in enumerate(dataset.images)]

    assert sorted(rows(parts[0]) + rows(parts[1])) == sorted(rows(whole))


def test_copies_of_training_images_among_those_held_out_are_told(tmp_path):
    random = np.random.default_rng(0)
    for split, label, copies in (("train", "a", 2), ("train", "b", 2), ("test", "a", 1), ("test", "b", 1)):
        folder = tmp_path / split / label
        folder.mkdir(parents=True)
        for number in range(6):
            image = Image.fromarray(random.integers(0, 256, (4, 4), dtype=np.uint8))
            for copy in range(copies):
                image.save(folder / f"{number}-{copy}.png")
    with pytest.warns(UserWarning, match=r"of 8 images held out of '.*' are training images too"):
        load_dataset(tmp_path, "test", held_out=8)


def test_held_out_images_are_balanced_and_named_apart_from_the_real_test_set():
    chosen = load_dataset("digits", "test", held_out=205)
    assert sorted(chosen.labels.bincount().tolist()) == [20] * 5 + [21] * 5
    assert chosen.name == "digits, 205 held out" != load_dataset("digits").name


def test_a_limit_narrows_what_is_left_of_each_part():
    training, test = (load_dataset("digits", split, held_out=50, limit=100) for split in ("train", "test"))
    assert (len(training), len(test)) == (100, 50)


@pytest.mark.parametrize("held_out", [1437, 5000])
def test_some_training_images_must_be_left(held_out):
    with pytest.raises(ValueError, match=f"held_out={held_out}: 'digits' has 1437 training images; hold out fewer"):
        load_dataset("digits", "train", held_out=held_out)


def real_mnist() -> Path:
    root = Path(os.environ.get("ANN_SNN_DATA") or ROOT / "data" / "raw")
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip("MNIST is not in $ANN_SNN_DATA or data/raw")
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("split", "count"), [("train", 60000), ("test", 10000)])
def test_real_mnist_is_what_torchvision_reads(split, count):
    import torchvision

    root = real_mnist()
    before = sorted(root.iterdir())
    dataset = load_dataset("mnist", split, root=root)
    expected = torchvision.datasets.MNIST(root, train=split == "train")
    assert len(dataset) == count and dataset.in_shape == (1, 28, 28)
    assert torch.equal(dataset.images[:, 0], expected.data)
    assert torch.equal(dataset.labels, expected.targets)
    assert sorted(root.iterdir()) == before


def test_images_that_would_not_fit_into_memory_are_refused():
    with pytest.raises(ValueError, match=r"size=\(4096, 4096\): 360 images .* more than 4 GiB"):
        load_dataset("digits", size=4096)


@pytest.mark.parametrize(
    "form",
    [
        lambda images: images,
        lambda images: images.numpy(),
        lambda images: images.long(),
        lambda images: images.numpy().astype(">u2")[:, :, ::-1][:, :, ::-1],
        lambda images: list(images),
        lambda images: images.tolist(),
        lambda images: Dataset("x", "test", images, torch.zeros(len(images), dtype=torch.int64), ("a", "b")),
    ],
)
def test_images_are_taken_as_tensors_arrays_lists_and_data_sets(form):
    images = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2) + 230
    found = as_images(form(images), (3, 2, 2))
    assert found.dtype == torch.uint8 and torch.equal(found, images)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 2, 2), r"images are float32 \[2, 1, 2, 2\]: give a uint8 tensor"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.bfloat16), "give a uint8 tensor"),
        (np.zeros((2, 1, 2, 2), bool), "images are bool"),
        (np.full((2, 1, 2, 2), 256), r"images hold values 256…256: .* 0…255"),
        (torch.full((2, 1, 2, 2), -1), "images hold values -1…-1"),
        (np.zeros((2, 2, 2), np.uint8), r"shape \[2, 2, 2\]: give a uint8 tensor \[N, 1, 2, 2\]"),
        (np.zeros((2, 2, 2, 1), np.uint8), r"shape \[2, 2, 2, 1\]"),
        (np.zeros((0, 1, 2, 2), np.uint8), "makes no array|N ≥ 1"),
        ([np.zeros((1, 2, 2)), np.zeros((1, 3, 3))], "a list that makes no array"),
        ("images", "give a uint8 tensor"),
        (None, "a NoneType that makes no array"),
    ],
)
def test_images_of_another_type_range_or_shape_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        as_images(images, (1, 2, 2))
