"""Data sets as uint8 tensors in memory: digits, MNIST, Fashion-MNIST, CIFAR-10 and any image folder.

A run names its images by a source, the arguments of `load_splits`. As a path says where images lie, not which ones
they are, files record their digests beside it, and `load_recorded` loads no other images than those.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..checks import check
from .archive import unpack
from .folder import check_room, image_size, read_image_folder, stamp
from .place import NAMES, absolute_dataset, data_folder, resolve
from .published import FOLDERS, read_cifar10, read_mnist
from .scikit_learn import read_digits

SPLITS = ("train", "test")

# Fixed, so that split and subsets are the same whatever seed a user trains with.
_SEED = 20240830


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images in memory: images uint8 [N,C,H,W], labels int64 [N] indexing `classes`.

    Raises ValueError where types, shapes, lengths or labels do not agree, or where there is no sample.
    """

    name: str
    split: str
    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        images, labels, where = self.images, self.labels, f"data set {self.name!r} ({self.split})"
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise ValueError(f"{where}: images are {images.dtype} {list(images.shape)}: give uint8 [N,C,H,W]")
        if labels.dtype != torch.int64 or labels.dim() != 1:
            raise ValueError(f"{where}: labels are {labels.dtype} {list(labels.shape)}: give int64 [N]")
        if len(images) != len(labels):
            raise ValueError(f"{where}: {len(images)} images but {len(labels)} labels: give each one")
        if images.numel() == 0:
            raise ValueError(f"{where} is empty, images {list(images.shape)}: give it at least one sample")
        if len(self.classes) < 2:
            raise ValueError(f"{where} has {len(self.classes)} class: classifying needs at least two")
        wrong = torch.nonzero((labels < 0) | (labels >= len(self.classes))).flatten()
        if len(wrong):
            raise ValueError(
                f"{where} is mislabelled: label {int(labels[wrong[0]])} of sample {int(wrong[0])} "
                f"is not one of 0…{len(self.classes) - 1}: give each image the index of its class"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def sha256(self) -> str:
        """Digest, 64 hexadecimal digits, of the images, labels and classes."""
        digest = hashlib.sha256(repr((tuple(self.images.shape), self.classes)).encode())
        for tensor in (self.images, self.labels):
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def subset(self, samples: int | Sequence[int] | np.ndarray | torch.Tensor) -> Dataset:
        """The first `samples` images in a fixed, class-balanced order; or the images with these indices.

        A smaller count gives a prefix of a larger one. Raises ValueError for a count outside 1…N, an index
        outside 0…N−1, or no index at all.
        """
        if isinstance(samples, int | np.integer) and not isinstance(samples, bool):
            if not 1 <= samples <= len(self):
                raise ValueError(f"{samples} samples of {self.name!r}: choose 1 to {len(self)}")
            indices = _balanced_order(self.labels)[: int(samples)]
        else:
            given = np.asarray(samples)
            if given.dtype.kind not in "iu" or given.ndim != 1 or not len(given):
                raise ValueError(f"subset takes a count or a flat list of integer indices, not {samples!r:.80}")
            if given.min() < 0 or given.max() >= len(self):
                raise ValueError(f"indices {samples!r:.80} of {self.name!r}: choose from 0 to {len(self) - 1}")
            indices = torch.from_numpy(given.astype(np.int64))
        return Dataset(self.name, self.split, self.images[indices], self.labels[indices], self.classes)


def as_images(images: Any, in_shape: tuple[int, int, int] | None = None) -> torch.Tensor:
    """Images as uint8 [N,C,H,W]: those of a `Dataset`, a tensor, a NumPy array, or a list of images [C,H,W].

    Integers of any type are taken where all are within 0…255. Raises ValueError for other types, values and shapes,
    for no image at all, and for images whose (C, H, W) is not `in_shape`, where that is given.
    """
    if isinstance(images, Dataset):
        images = images.images
    if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8:
        images = _from_array(images)
    if images.dim() != 4 or not len(images) or in_shape not in (None, tuple(images.shape[1:])):
        sides = "C, H, W" if in_shape is None else ", ".join(map(str, in_shape))
        raise ValueError(f"images have shape {list(images.shape)}: give a uint8 tensor [N, {sides}] with N ≥ 1")
    return images


def _from_array(images: Any) -> torch.Tensor:
    wanted = "give a uint8 tensor [N, C, H, W], values 0…255"
    try:
        values = np.stack([np.asarray(image) for image in images])
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"images are a {type(images).__name__} that makes no array ({error}): {wanted}") from None
    if values.dtype.kind not in "ui":
        raise ValueError(f"images are {values.dtype} {list(values.shape)}: {wanted}")
    if values.size and not 0 <= values.min() <= values.max() <= 255:
        raise ValueError(f"images hold values {values.min()}…{values.max()}: {wanted}")
    return torch.from_numpy(values.astype(np.uint8))


def load_dataset(
    name: str | os.PathLike[str],
    split: str = "test",
    root: str | os.PathLike[str] | None = None,
    size: int | tuple[int, int] | None = None,
    limit: int | None = None,
    crop: int | tuple[int, int] | None = None,
    held_out: int | None = None,
    fetch: bool = True,
) -> Dataset:
    """Load one split ("train" or "test") of a data set.

    name    "digits" (embedded; 1,437 train and 360 test images, 28×28), "mnist", "fashion_mnist", "cifar10"
            (read below `root`, fetched there where missing), or the path of a folder, or tar archive of one,
            with train/<class>/ and test/<class>/. A relative path is looked up in the working directory, then
            the repository root.
    root    folder of the raw files; default $ANN_SNN_DATA, else data/raw below the repository root. It is
            written to only when files are fetched.
    size    resize to this side, or (height, width), in pixels, bilinear; default: the set's own size.
    limit   keep at most this many samples, taken in a fixed class-balanced order.
    crop    keep this side, or (height, width), in pixels, of the centre of each image, after any resizing.
    held_out  take so many training images, in that order, for the test set, and the others for the training
            set: choices made on them leave the real test set unseen.
    fetch   whether files that are missing may be fetched.

    Raises ValueError or FileNotFoundError that names the argument or file at fault and the remedy.
    """
    if not isinstance(name, str | os.PathLike):
        raise ValueError(f"data set {name!r}: give one of {', '.join(NAMES)}, or the path of an image folder")
    if split not in SPLITS:
        raise ValueError(f"split={split!r:.80}: choose 'train' or 'test'")
    limit = None if limit is None else check("limit", limit)
    held_out = None if held_out is None else check("held_out", held_out)
    if held_out is not None:
        return _part(load_dataset(name, "train", root, size, crop=crop, fetch=fetch), split, held_out, limit)
    target, window = image_size(size), image_size(crop, "crop")
    folder = data_folder(root)

    label = str(name)
    if name == "digits":
        images, labels, classes = read_digits(split, target or (28, 28))
    elif name in ("mnist", "fashion_mnist"):
        images, labels, classes = read_mnist(label, split, folder, fetch)
    elif name == "cifar10":
        images, labels, classes = read_cifar10(split, folder, fetch)
    else:
        path = resolve(name)
        if not os.path.exists(path) and (named := os.fspath(name)) in NAMES:
            raise ValueError(f"data set {name!r} is the path of no folder: give the name {named!r} as text")
        if not os.fspath(name) or not os.path.exists(path):
            raise ValueError(
                f"unknown data set {os.fspath(name)!r}: choose one of {', '.join(NAMES)}, or give the path "
                f"of a folder with train/<class>/ and test/<class>/ (there is none at {path})"
            )
        label = folder_label(path.resolve().name)
        images, labels, classes = read_image_folder(unpack(path) if path.is_file() else path, split, target)

    if target is not None and tuple(images.shape[2:]) != target:
        check_room(len(images), images.shape[1], target)
        images = F.interpolate(images, size=target, mode="bilinear", antialias=True)
    if window is not None:
        images = _centre(images, window)
    dataset = Dataset(label, split, images, labels, classes)
    return dataset if limit is None else dataset.subset(min(limit, len(dataset)))


def folder_label(name: str) -> str:
    """What results call the image folder of this name: "folder mnist" is not MNIST, whatever it is called."""
    return f"folder {name}" if _letters(name) in map(_letters, NAMES) else name


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _balanced_order(labels: torch.Tensor) -> torch.Tensor:
    # Shuffled within each class, then one sample of every class in turn.
    random = np.random.RandomState(_SEED)
    shuffled = random.permutation(len(labels))
    shuffled = shuffled[np.argsort(labels.numpy()[shuffled], kind="stable")]
    grouped = labels.numpy()[shuffled]
    turn = np.arange(len(labels)) - np.searchsorted(grouped, grouped)
    return torch.from_numpy(shuffled[np.lexsort((grouped, turn))])


def _part(training: Dataset, split: str, held_out: int, limit: int | None) -> Dataset:
    if held_out >= len(training):
        raise ValueError(
            f"held_out={held_out}: {training.name!r} has {len(training)} training images; hold out fewer"
        )
    order = _balanced_order(training.labels)
    chosen = training.subset(order[:held_out] if split == "test" else order[held_out:].sort().values)
    _warn_of_held_out_copies(training, order[:held_out], order[held_out:])
    part = replace(chosen, name=f"{chosen.name}, {held_out} held out", split=split)
    return part if limit is None else part.subset(min(limit, len(part)))


def _warn_of_held_out_copies(training: Dataset, held_out: torch.Tensor, others: torch.Tensor) -> None:
    """Warn of held-out images that are pixel by pixel among those that are left to train with."""
    pixels = training.images.flatten(1).numpy()
    left = {hash(pixels[index].tobytes()) for index in others.tolist()}
    copies = sum(hash(pixels[index].tobytes()) in left for index in held_out.tolist())
    if copies:
        warnings.warn(
            f"{copies:,} of {len(held_out):,} images held out of {training.name!r} are training images too: "
            "accuracy on them says little; leave copies out of the folder",
            stacklevel=4,
        )


def _centre(images: torch.Tensor, window: tuple[int, int]) -> torch.Tensor:
    margins = [whole - side for whole, side in zip(images.shape[2:], window, strict=True)]
    if min(margins) < 0:
        raise ValueError(f"crop={window}: images have {tuple(images.shape[2:])} pixels; give a crop within them")
    top, left = (margin // 2 for margin in margins)
    return images[:, :, top : top + window[0], left : left + window[1]].contiguous()


# What may narrow the data set that a file names, beside its name: arguments of `load_dataset`.
SOURCE_OPTIONS = ("limit", "size", "crop", "held_out")


def source_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `load_splits` that a run's parameters name; 0 there is None here, a path is absolute."""
    options = {name: parameters.get(name) or None for name in SOURCE_OPTIONS}
    return {"name": absolute_dataset(parameters["dataset"])} | options


def load_splits(name: str, **options: Any) -> tuple[Dataset, Dataset]:
    """The training and the test set; the test images are cropped, the training images are not.

    Training takes its crops at random places. Raises what `load_dataset` raises.
    """
    uncropped = {option: value for option, value in options.items() if option != "crop"}
    return load_dataset(name, "train", **uncropped), load_dataset(name, "test", **options)


def identity_of(training: Dataset, test: Dataset) -> dict[str, Any]:
    """Which images two sets hold, as files record it: {"training": digest, "test": digest, "classes": [names]}.

    The digests are `Dataset.sha256`: of pixels, shapes, labels and class names.
    """
    return {"training": training.sha256, "test": test.sha256, "classes": list(test.classes)}


def data_identity(source: Mapping[str, Any]) -> dict[str, Any]:
    """`identity_of` the two sets that a source names, as `load_splits` loads them.

    Taken once in a process, and again where a file of the data set has been replaced, moved or written since.
    Raises what `load_dataset` raises.
    """
    # As text, so that nobody who is given it can change what is kept.
    return json.loads(_identity(json.dumps(source, sort_keys=True), _stamps(source["name"])))


@functools.lru_cache(maxsize=64)
def _identity(source: str, stamps: str) -> str:
    return json.dumps(identity_of(*load_splits(**json.loads(source))))


def load_recorded(
    metadata: Mapping[str, Any],
    split: str = "test",
    dataset: str | os.PathLike[str] | None = None,
    fetch: bool = True,
) -> Dataset:
    """The training ("train") or test set that a network was made with, as its file records it.

    metadata  of a network: its "source", and in "data" its `identity_of`, which files of earlier versions lack.
    dataset   where the same images lie now; default: where they lay, or else in the folder of that name in
              $ANN_SNN_DATA.
    fetch     whether a named set that is missing may be fetched.

    Raises ValueError where the images found are other ones, naming both, FileNotFoundError where there are none,
    and what `load_dataset` raises.
    """
    if "source" not in metadata:
        raise ValueError("the network does not say what data it was trained on: convert its run again")
    source, recorded = dict(metadata["source"]), metadata.get("data")
    lay, remedy = source["name"], "say where the same images lie now (--dataset PATH, or dataset= in Python)"
    if dataset is not None:
        source["name"] = absolute_dataset(os.fspath(dataset))
        if recorded is None:
            warnings.warn(f"no digest is recorded: {dataset} is taken for {lay}", stacklevel=2)
    name = source["name"]
    if name not in NAMES and not os.path.exists(resolve(name)):
        name = source["name"] = str(data_folder(None) / Path(name).name)
        if not recorded or not os.path.exists(name):
            gone = f"the images of this network lay in {lay}, which is not there"
            if dataset is not None:
                gone = f"there is no folder {dataset}"
            raise FileNotFoundError(f"{gone}: {remedy}, or put their folder into $ANN_SNN_DATA")
    if split == "train":
        source.pop("crop", None)
    found = load_dataset(split=split, fetch=fetch, **source)
    if recorded is None:
        return found
    wanted = recorded["training" if split == "train" else "test"]
    if wanted != found.sha256:
        was, now = tuple(recorded["classes"]), found.classes
        told = f"; its classes were {', '.join(was):.80} and are {', '.join(now):.80}" if was != now else ""
        raise ValueError(
            f"the {split} images of {name} are not those that this network was made with: their digest is "
            f"{found.sha256[:12]}, recorded is {wanted[:12]}{told}. Put the recorded images back, {remedy}, or "
            "train again"
        )
    return found


def _stamps(name: str) -> str:
    """Digest of the stamps of all files of a data set."""
    place = data_folder(None) / FOLDERS.get(name, name) if name in NAMES else resolve(name)
    files = [place, *(Path(top, file) for top, _, names in os.walk(place) for file in names)]
    stamps = [(file, stamp(file)) for file in sorted(files) if file.exists()]
    return hashlib.sha256(repr(stamps).encode()).hexdigest()
