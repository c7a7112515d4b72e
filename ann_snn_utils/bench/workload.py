"""What the benchmark times: a network in its three forms, and a batch of images with realistic activity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ann.network import ANN, build_ann, copy_weights
from ..ann.store import list_pretrained, load_pretrained
from ..data.dataset import load_dataset, load_recorded
from ..snn.conversion import convert
from ..snn.network import SNN

# Bundled networks by how their names begin: the first one that is there, with its test images, is taken.
_TRAINED = {
    "lenet": ("mnist-lenet-k0", "digits-lenet-k0"),
    "lenet-few": ("mnist-lenet-k0-clip2",),
    "cifar": ("cifar10-small-k0",),
    "vgg": ("cifar10-vgg",),
}

# Else random weights: notation, levels of the encoder, clip, side of colour images (0: digits).
_RANDOM: dict[str, tuple[str, int, int | None, int]] = {
    "lenet-few": ("lenet", 2, 2, 0),
    "cifar": ("32C3-64C3-P2-128C3-P2-256C3-256C3-P2-256", 2, 3, 32),
    "vgg": ("vgg", 4, None, 24),
    "small": ("6C5-P2-8C5-P2-24", 4, None, 0),
    "small-few": ("6C5-P2-8C5-P2-24", 2, 2, 0),
    "small-vgg": ("4C3-8C3-P2-8C3-P2-16-16", 4, None, 12),
}

# Batches of images from which a network without training takes its batch norms' statistics.
_CALIBRATION = 12

# With this shift of every batch norm, the random VGG does as many synaptic operations per multiply–accumulate as
# the trained LeNet does on MNIST, 0.46 at T = 4.
_SHIFT = -0.1


@dataclass(frozen=True, eq=False)
class Workload:
    """The full-precision `ann`, the quantized `qann` and the `snn` of one shape, and uint8 images for them.

    origin says where weights and images come from.
    """

    ann: ANN
    qann: ANN
    snn: SNN
    images: Tensor
    origin: str

    @property
    def pixels(self) -> Tensor:
        """The images as float32 in 0 … 1."""
        return self.images.float() / 255


def load_workload(name: str, samples: int) -> Workload:
    """The workload of that name with so many images; a set with fewer is repeated.

    "lenet": the bundled MNIST network on MNIST test images where they are, else the digits one on digits;
    "lenet-few": the bundled MNIST network of few levels; "cifar" and "vgg": the bundled CIFAR-10 networks where
    they and their test images are, else random ternary weights, calibrated; "small", "small-few", "small-vgg": a
    few channels of the same, for tests. Raises ValueError for another name.
    """
    torch.manual_seed(0)
    if name not in (known := _TRAINED | _RANDOM):
        raise ValueError(f"workload {name!r}: choose one of {', '.join(known)}")
    trained = next(filter(None, map(_trained, _TRAINED.get(name, ()))), None)
    qann, images, origin = trained or _random(*_RANDOM[name], samples=max(samples, 32))
    spec = qann.spec
    ann = build_ann(spec.network, spec.in_shape, spec.classes, quantized=False, padding=spec.padding)
    rows = torch.arange(samples) % len(images)
    return Workload(copy_weights(qann, ann).eval(), qann, convert(qann), images[rows], origin)


def _trained(begins: str) -> tuple[ANN, Tensor, str] | None:
    name = next((name for name in sorted(list_pretrained()) if name.startswith(begins)), None)
    if name is None:
        return None
    qann = load_pretrained(name)
    try:
        dataset = load_recorded(qann.metadata)
    except OSError:
        return None
    images = dataset.subset(len(dataset)).images
    return qann, images, f"trained weights ({name}) on test images of {dataset.name}"


def _random(network: str, levels: int, clip: int | None, side: int, samples: int) -> tuple[ANN, Tensor, str]:
    if side:
        images, seen = textures(samples, side), "random textures"
        qann = build_ann(network, (3, side, side), 10, levels=levels, clip=clip, padding="same")
    else:
        images, seen = load_dataset("digits").images, "digits"
        qann = build_ann(network, (1, 28, 28), 10, levels=levels, clip=clip)
    return calibrated(qann, images[:120]), images, f"random ternary weights, batch norms calibrated on {seen}"


def textures(samples: int, side: int) -> Tensor:
    """Random smooth colour images, uint8 [N, 3, side, side]: noise at three scales, stretched to 0 … 255."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(samples, 3, side, side)
    for cells in (2, 4, side):
        noise = torch.randn(samples, 3, cells, cells, generator=generator)
        images += F.interpolate(noise, (side, side), mode="bilinear", align_corners=False)
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return ((images - low) / (high - low) * 255).round().to(torch.uint8)


@torch.no_grad()
def calibrated(ann: ANN, images: Tensor) -> ANN:
    """`ann` with the batch norms' statistics of these images, in evaluation mode.

    Every layer's inputs are then standardised and shifted, so that about as many neurons fire as in a trained
    network; nothing is learned.
    """
    for layer in ann.layers:
        layer.norm.momentum = None  # the plain average over all batches
        layer.norm.reset_running_stats()
        layer.norm.bias.fill_(_SHIFT)
    ann.train()
    for batch in images.repeat(-(-_CALIBRATION * 32 // len(images)), 1, 1, 1).split(32)[:_CALIBRATION]:
        ann(batch)
    return ann.eval()
