"""MNIST, Fashion-MNIST and CIFAR-10: their files, fetched through torchvision where missing, and checked."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import shutil
import socket
import tempfile
import warnings
import zlib
from collections.abc import Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

_MAX_BYTES = 4 << 30

# What torchvision calls them, and where below the data root it keeps their files.
_KINDS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}
FOLDERS = {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw", "cifar10": "cifar-10-batches-py"}

_CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "cifar10": tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
}

# The files of images and of labels.
_MNIST_FILES = {
    split: (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    for split, prefix in (("train", "train"), ("test", "t10k"))
}

# Of the published pixels and labels, the first half of their SHA-256.
_MNIST_DIGESTS = {
    ("mnist", "train"): "edc0d1098aa497be",
    ("mnist", "test"): "c3f9adf9c66efb57",
    ("fashion_mnist", "train"): "16d82e2b505296aa",
    ("fashion_mnist", "test"): "9f1ec356a747bfe4",
}

# Of the published files, the MD5.
_CIFAR10_DIGESTS = {
    "train": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
}

# Its name, and its MD5.
_CIFAR10_ARCHIVE = "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"


def read_mnist(
    name: str, split: str, root: Path, fetch: bool = True
) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """Images uint8 [N,1,H,W], labels int64 [N], class names of "mnist" or "fashion_mnist" below `root`.

    Reads the official idx files, plain or .gz, in torchvision's layout (MNIST/raw, FashionMNIST/raw), and
    fetches them only where they are missing, if `fetch` allows it. Raises FileNotFoundError where they can be
    neither found nor fetched; ValueError, with the file, where one is truncated, of another kind or wrongly
    labelled.
    """
    raw, files = root / FOLDERS[name], _MNIST_FILES[split]
    if not all(_as_found(raw / file).is_file() for file in files):
        _fetch(name, split, root, sum(_MNIST_FILES.values(), ()), fetch)
    paths = [_as_found(raw / file) for file in files]
    images, labels, classes = _read_idx(paths[0], 3), _read_idx(paths[1], 1), _CLASSES[name]
    if len(images) != len(labels):
        raise ValueError(
            f"{paths[0]} holds {len(images)} images but {paths[1]} holds {len(labels)} labels: "
            "delete both and fetch them again"
        )
    wrong = np.flatnonzero(labels >= len(classes))
    if len(wrong):
        raise ValueError(
            f"{paths[1]} is mislabelled: label {labels[wrong[0]]} of sample {wrong[0]} is not one of "
            f"0…{len(classes) - 1}: delete it and run again, or, if it is another set's (EMNIST has such names), "
            "save its images as a folder with train/<class>/ and test/<class>/"
        )
    if hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:16] != _MNIST_DIGESTS[name, split]:
        warnings.warn(
            f"the {len(images)} images and labels in {paths[0]} and beside it are not those published as {name}: "
            "results on them are not results on it",
            stacklevel=3,
        )
    return torch.from_numpy(images[:, None]), torch.from_numpy(labels.astype(np.int64)), classes


def read_cifar10(split: str, root: Path, fetch: bool = True) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """Images uint8 [N,3,32,32], labels int64 [N], class names of CIFAR-10 below `root`.

    The official files are pickles; nothing but the published bytes, which their MD5 tells, is ever unpickled.
    Missing files are fetched if `fetch` allows it. Raises FileNotFoundError where they can be neither found nor
    fetched, ValueError, with the file, where one is not the published one.
    """
    # Our own reader, for torchvision takes seconds to import.
    folder, digests = root / FOLDERS["cifar10"], _CIFAR10_DIGESTS[split]
    if not all((folder / file).is_file() for file in digests):
        _fetch("cifar10", split, root, (*sum(map(list, _CIFAR10_DIGESTS.values()), []), "batches.meta"), fetch)
    images, labels = [], []
    for file, md5 in digests.items():
        content = (folder / file).read_bytes()
        _check_published(folder / file, hashlib.md5(content, usedforsecurity=False), md5)
        batch = pickle.loads(content, encoding="latin1")
        images.append(torch.from_numpy(batch["data"]).view(-1, 3, 32, 32))
        labels += batch["labels"]
    return torch.cat(images), torch.tensor(labels, dtype=torch.int64), _CLASSES["cifar10"]


def _check_published(path: Path, found: Any, md5: str) -> None:
    if found.hexdigest() != md5:
        raise ValueError(f"{path} is not the published file, its MD5 differs: delete it and run again")


def _fetch(name: str, split: str, root: Path, files: Sequence[str], allowed: bool) -> None:
    """Bring the files of a data set into its folder, from the archive of CIFAR-10 where that is there already."""
    folder, called = root / FOLDERS[name], f"load_dataset('{name}', '{split}', root='{root}')"
    command = f'python -c "from ann_snn_utils import load_dataset; {called}"'
    archive = root / _CIFAR10_ARCHIVE[0]
    given = name == "cifar10" and archive.is_file()
    if given:
        with archive.open("rb") as file:
            md5 = partial(hashlib.md5, usedforsecurity=False)
            found = hashlib.file_digest(file, md5)
        try:
            _check_published(archive, found, _CIFAR10_ARCHIVE[1])
        except ValueError as changed:
            if allowed:
                raise
            raise FileNotFoundError(f"{name} is not in {folder}, and {changed}") from None
    if not allowed:
        raise FileNotFoundError(f"{name} is not in {folder}: fetch it with {command}")
    from torchvision import datasets  # which takes seconds

    timeout = socket.getdefaulttimeout()
    temporary = None
    # Into a folder of its own first: whatever goes wrong, no half-written file gets a real name.
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".tmp", dir=root))
        socket.setdefaulttimeout(30)
        if given:
            shutil.copy(archive, temporary)
        getattr(datasets, _KINDS[name])(temporary, download=True)
        folder.mkdir(parents=True, exist_ok=True)
        for needed in files:
            if not (folder / needed).exists():
                os.replace(temporary / FOLDERS[name] / needed, folder / needed)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"{name} is not in {folder}, which needs {', '.join(files)}, and fetching it failed ({error}). "
            "Put the files there, or set ANN_SNN_DATA to a folder that has them, or run this where a network "
            f"allows it: {command}"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _as_found(path: Path) -> Path:
    # Some mirrors have a dot before idx.
    names = [name + end for name in (path.name, path.name.replace("-idx", ".idx")) for end in ("", ".gz")]
    return next((file for name in names if (file := path.with_name(name)).is_file()), path)


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    # Our own reader, for torchvision's accepts truncated headers and prefers old pickled copies where it
    # finds them. Format: 0, 0, type 8 = uint8, dimensions; the sizes as big-endian int32; the bytes.
    kind = "images" if dimensions == 3 else "labels"
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
                raise ValueError(f"{path} is not an idx file of {kind}: delete it and fetch it again")
            shape = tuple(np.frombuffer(header[4:], dtype=">i4").tolist())
            count = prod(shape)
            if min(shape) < 1 or count > _MAX_BYTES:
                raise ValueError(f"{path} announces {kind} of shape {shape}: delete it and fetch it again")
            data = file.read(count + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): delete it and fetch it again") from error
    if len(data) != count:
        found = "more" if len(data) > count else len(data)
        raise ValueError(
            f"{path} is truncated or damaged: its header announces {count} bytes of {kind}, it holds "
            f"{found}: delete it and fetch it again"
        )
    return np.frombuffer(bytearray(data), dtype=np.uint8).reshape(shape)
