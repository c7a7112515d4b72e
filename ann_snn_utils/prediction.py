"""Which class a network names for each image, and how many are right."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from .data import Dataset
from .models import ANN, in_float64, reference_maps


@torch.no_grad()
def predict(ann: ANN, images: Tensor, dtype: torch.dtype | None = None, batch_size: int = 250) -> Tensor:
    """Give the class of each uint8 image, int64 [N].

    dtype: None evaluates a quantized network in float64 on the CPU, where its codes are those that a spiking
    network must reach, and a full-precision one in float32 where it lies.
    """
    if dtype == torch.float64 or (dtype is None and ann.spec.quantized):
        reference = in_float64(ann)
        forward = _reference_logits if ann.spec.quantized else ANN.forward
        logits = [forward(reference, batch.cpu()) for batch in images.split(batch_size)]
    else:
        mode, device = ann.training, ann.layers[0].norm.weight.device
        ann.eval()
        logits = [ann(batch.to(device)).double().cpu() for batch in images.split(batch_size)]
        ann.train(mode)
    # NumPy promises the first of equal maxima; torch does not.
    return torch.from_numpy(torch.cat(logits).numpy().argmax(1))


def _reference_logits(reference: ANN, images: Tensor) -> Tensor:
    return reference.classifier(deque(reference_maps(reference, images), maxlen=1).pop())


def evaluate(ann: ANN, dataset: Dataset, dtype: torch.dtype | None = None) -> int:
    """Give the number of images of a data set that the network classifies correctly; dtype as in `predict`."""
    return int((predict(ann, dataset.images, dtype) == dataset.labels).sum())
