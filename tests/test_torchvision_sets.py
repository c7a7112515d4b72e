from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ann_snn_utils.data import published
from ann_snn_utils.data.dataset import load_dataset
from ann_snn_utils.files import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:.*not those published")

IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
LABELS = np.array([3, 1, 4, 1, 9], dtype=np.uint8)
PREFIX = {"train": "train", "test": "t10k"}


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes() + array.tobytes()


def write_mnist(root, folder="MNIST", split="test", images=IMAGES, labels=LABELS):
    raw = root / folder / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    (raw / f"{PREFIX[split]}-images-idx3-ubyte").write_bytes(idx(images))
    (raw / f"{PREFIX[split]}-labels-idx1-ubyte").write_bytes(idx(labels))
    return raw


def listing(root):
    return sorted((str(path.relative_to(root)), path.stat().st_size) for path in root.rglob("*"))


@pytest.fixture(autouse=True)
def sets(monkeypatch):
    """torchvision's data sets, which reach no network in tests: every way to it raises what a dead host raises."""
    # Imported by the tests that run, as it takes seconds.
    from torchvision import datasets

    def refuse(*args, **kwargs):
        raise RuntimeError("no network in tests")

    monkeypatch.setattr(datasets.MNIST, "download", refuse)
    monkeypatch.setattr(datasets.utils, "_urlretrieve", refuse)
    return datasets


def test_idx_files_with_a_dot_before_idx_are_read_too(tmp_path):
    raw = write_mnist(tmp_path)
    expected = load_dataset("mnist", root=tmp_path).sha256
    for path in raw.iterdir():
        path.rename(raw / path.name.replace("-idx", ".idx"))
    assert load_dataset("mnist", root=tmp_path).sha256 == expected


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
@pytest.mark.parametrize("split", ["train", "test"])
def test_idx_files_that_are_there_are_read_and_the_folder_stays_as_it_was(sets, tmp_path, name, folder, split):
    write_mnist(tmp_path, folder, split)
    before = listing(tmp_path)
    dataset = load_dataset(name, split, root=tmp_path)
    assert torch.equal(dataset.images, torch.from_numpy(IMAGES[:, None].copy()))
    assert dataset.labels.tolist() == LABELS.tolist()
    theirs = tuple("0123456789") if name == "mnist" else tuple(sets.FashionMNIST.classes)
    assert dataset.name == name and dataset.classes == theirs
    assert listing(tmp_path) == before


def test_the_data_root_comes_from_the_environment(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    monkeypatch.setenv("ANN_SNN_DATA", str(tmp_path))
    assert len(load_dataset("mnist")) == 5


def test_a_requested_size_is_given(tmp_path):
    write_mnist(tmp_path)
    assert load_dataset("mnist", root=tmp_path, size=8).in_shape == (1, 8, 8)


def test_compressed_idx_files_are_read_too(tmp_path):
    raw = write_mnist(tmp_path)
    for file in list(raw.iterdir()):
        (raw / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert load_dataset("mnist", root=tmp_path).labels.tolist() == LABELS.tolist()


def test_old_pickled_copies_beside_the_files_are_not_read(tmp_path):
    write_mnist(tmp_path)
    processed = tmp_path / "MNIST" / "processed"
    processed.mkdir()
    old = torch.zeros(1, 28, 28, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    for file in ("training.pt", "test.pt"):
        torch.save(old, processed / file)
    assert len(load_dataset("mnist", root=tmp_path)) == 5


@pytest.mark.parametrize("kind", ["images-idx3-ubyte", "labels-idx1-ubyte"])
def test_a_truncated_file_is_named_in_the_error_wherever_it_is_cut(tmp_path, kind):
    path = write_mnist(tmp_path) / f"t10k-{kind}"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"t10k-{kind} is .*delete it"):
            load_dataset("mnist", root=tmp_path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match=f"t10k-{kind} is .*holds more"):
        load_dataset("mnist", root=tmp_path)


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-9], lambda data: b"not gzip" + data, lambda data: data[:12] + b"\xff\xff" + data[14:]],
)
def test_a_damaged_compressed_file_is_named_in_the_error(tmp_path, damage):
    path = write_mnist(tmp_path) / "t10k-labels-idx1-ubyte"
    path.with_name(path.name + ".gz").write_bytes(damage(gzip.compress(path.read_bytes())))
    path.unlink()
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte\.gz is"):
        load_dataset("mnist", root=tmp_path)


def test_a_file_of_the_wrong_kind_is_named_in_the_error(tmp_path):
    raw = write_mnist(tmp_path)
    (raw / "t10k-images-idx3-ubyte").write_bytes((raw / "t10k-labels-idx1-ubyte").read_bytes())
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte is not an idx file of images"):
        load_dataset("mnist", root=tmp_path)


@pytest.mark.parametrize("shape", [(2**31 - 1,) * 3, (0, 28, 28), (-1, 28, 28)])
def test_sizes_that_cannot_be_are_refused_before_memory_is_taken(tmp_path, shape):
    raw = write_mnist(tmp_path)
    header = bytes([0, 0, 8, 3]) + np.array(shape, dtype=">i4").tobytes()
    (raw / "t10k-images-idx3-ubyte").write_bytes(header + bytes(100))
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte announces images of shape"):
        load_dataset("mnist", root=tmp_path)


def test_numbers_of_images_and_labels_that_differ_are_named(tmp_path):
    write_mnist(tmp_path, labels=LABELS[:4])
    with pytest.raises(ValueError, match=r"5 images but .*labels-idx1-ubyte holds 4 labels"):
        load_dataset("mnist", root=tmp_path)


def test_a_label_out_of_range_is_named_with_its_sample(tmp_path):
    write_mnist(tmp_path, labels=np.array([3, 1, 10, 1, 9], dtype=np.uint8))
    with pytest.raises(ValueError, match=r"labels-idx1-ubyte is mislabelled: label 10 of sample 2"):
        load_dataset("mnist", root=tmp_path)


def test_files_of_another_set_under_the_names_of_mnist_are_told_apart(tmp_path):
    raw = write_mnist(tmp_path, labels=np.array([3, 26, 10, 1, 9], dtype=np.uint8))
    with pytest.raises(ValueError, match="label 26 of sample 1 .*EMNIST.* save its images as a folder with train/"):
        load_dataset("mnist", root=tmp_path)
    write_mnist(tmp_path)
    with pytest.warns(UserWarning, match=f"the 5 images and labels in {raw}.* are not those published as mnist"):
        load_dataset("mnist", root=tmp_path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_published_files_are_known(name, split):
    root = Path(os.environ.get("ANN_SNN_DATA") or ROOT / "data" / "raw")
    if not (root / {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name]).is_dir():
        pytest.skip(f"{name} is not in $ANN_SNN_DATA or data/raw")
    assert len(load_dataset(name, split, root=root)) == {"train": 60000, "test": 10000}[split]


@pytest.mark.parametrize(
    ("name", "file"),
    [("mnist", "t10k-images-idx3-ubyte"), ("fashion_mnist", "FashionMNIST"), ("cifar10", "data_batch_1")],
)
def test_where_nothing_can_be_fetched_the_error_names_folder_files_and_command(tmp_path, name, file):
    with pytest.raises(FileNotFoundError) as error:
        load_dataset(name, root=tmp_path)
    message = str(error.value)
    assert str(tmp_path) in message and file in message
    assert f"load_dataset('{name}', 'test', root='{tmp_path}')" in message
    assert listing(tmp_path) == []


def test_what_is_fetched_comes_whole_and_leaves_no_temporary(sets, tmp_path, monkeypatch):
    def download(self):
        for split in PREFIX:
            write_mnist(Path(self.root), type(self).__name__, split)

    monkeypatch.setattr(sets.MNIST, "download", download)
    assert len(load_dataset("fashion_mnist", "train", root=tmp_path)) == 5
    assert sorted(os.listdir(tmp_path)) == ["FashionMNIST"]
    assert len(os.listdir(tmp_path / "FashionMNIST" / "raw")) == 4


def test_a_fetch_that_fails_half_way_leaves_nothing(sets, tmp_path, monkeypatch):
    def download(self):
        write_mnist(Path(self.root))
        raise RuntimeError("connection lost")

    monkeypatch.setattr(sets.MNIST, "download", download)
    with pytest.raises(FileNotFoundError, match="connection lost"):
        load_dataset("mnist", "train", root=tmp_path)
    assert listing(tmp_path) == []


def write_cifar10(folder, sets, monkeypatch):
    """A CIFAR-10 of two images a batch, published, as far as is known here, with these MD5 sums."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch():
        return {"data": random.integers(0, 256, (2, 3072), dtype=np.uint8), "labels": [0, 9]}

    train = {f"data_batch_{number}": batch() for number in range(1, 6)}
    test = {"test_batch": batch()}
    written = {"train": train, "test": test}
    digests = {split: {name: write(name, part) for name, part in parts.items()} for split, parts in written.items()}
    monkeypatch.setattr(published, "_CIFAR10_DIGESTS", digests)
    for split, files in digests.items():
        monkeypatch.setattr(sets.CIFAR10, f"{split}_list", list(map(list, files.items())))
    names = {"label_names": [f"class{number}" for number in range(10)]}
    meta = {"filename": "batches.meta", "key": "label_names", "md5": write("batches.meta", names)}
    monkeypatch.setattr(sets.CIFAR10, "meta", meta)
    return train, test


def test_the_published_files_of_cifar10_are_those_that_torchvision_knows(sets):
    theirs = {split: dict(getattr(sets.CIFAR10, f"{split}_list")) for split in ("train", "test")}
    assert theirs == published._CIFAR10_DIGESTS
    assert published.FOLDERS["cifar10"] == sets.CIFAR10.base_folder
    assert published._CIFAR10_ARCHIVE == (sets.CIFAR10.filename, sets.CIFAR10.tgz_md5)


def test_cifar10_comes_as_channels_rows_columns(sets, tmp_path, monkeypatch):
    train, test = write_cifar10(tmp_path / "cifar-10-batches-py", sets, monkeypatch)
    dataset = load_dataset("cifar10", "train", root=tmp_path)
    expected = np.concatenate([part["data"] for part in train.values()]).reshape(10, 3, 32, 32)
    assert torch.equal(dataset.images, torch.from_numpy(expected))
    assert dataset.images.is_contiguous()
    assert dataset.labels.tolist() == [0, 9] * 5 and dataset.classes[9] == "truck"
    # The training images need not be there to test.
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").unlink()
    assert len(load_dataset("cifar10", root=tmp_path)) == 2


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch"])
def test_a_changed_cifar10_file_is_named_and_never_unpickled(sets, tmp_path, monkeypatch, file):
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10(folder, sets, monkeypatch)
    marker = tmp_path / "executed"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    (folder / file).write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ValueError, match=f"{file} is not the published file"):
        load_dataset("cifar10", "test" if file == "test_batch" else "train", root=tmp_path)
    assert not marker.exists()


def test_a_cifar10_archive_that_is_there_needs_no_network(sets, tmp_path, monkeypatch):
    write_cifar10(tmp_path / "source" / "cifar-10-batches-py", sets, monkeypatch)
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / sets.CIFAR10.filename, "w:gz") as archive:
        archive.add(tmp_path / "source" / "cifar-10-batches-py", "cifar-10-batches-py")
    md5 = hashlib.md5((root / sets.CIFAR10.filename).read_bytes()).hexdigest()
    monkeypatch.setattr(sets.CIFAR10, "tgz_md5", md5)
    monkeypatch.setattr(published, "_CIFAR10_ARCHIVE", (sets.CIFAR10.filename, md5))
    assert len(load_dataset("cifar10", root=root)) == 2
    assert sorted(os.listdir(root)) == [sets.CIFAR10.base_folder, sets.CIFAR10.filename]


def test_a_cifar10_archive_that_was_changed_is_named_and_not_unpacked(sets, tmp_path):
    (tmp_path / sets.CIFAR10.filename).write_bytes(b"x")
    with pytest.raises(ValueError, match=f"{sets.CIFAR10.filename} is not the published file"):
        load_dataset("cifar10", root=tmp_path)
    # Where nothing may be fetched, the set is not there: explorers then show other images.
    with pytest.raises(
        FileNotFoundError, match=f"and .*{sets.CIFAR10.filename} is not .*, its MD5 differs: delete"
    ):
        load_dataset("cifar10", root=tmp_path, fetch=False)
    assert listing(tmp_path) == [(sets.CIFAR10.filename, 1)]
