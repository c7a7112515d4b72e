"""Scaled thresholds: what happens when the thresholds of a converted network are off by a factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from .snn import SNN, SpikingLayer


def scale_thresholds(snn: SNN, scale: float | Sequence[float]) -> SNN:
    """Give the network with every threshold multiplied by `scale`, or by its layer's one, encoder first.

    Integer thresholds are rounded up, as ⌈θ⌉ is. Entries that every or no membrane in reach passes stay as
    they are. Raises ValueError for a factor that is not above 0, or not one for each layer.
    """
    scales = [float(scale)] * len(snn.layers) if isinstance(scale, int | float) else [float(s) for s in scale]
    if len(scales) != len(snn.layers):
        raise ValueError(f"threshold scale: {len(scales)} factors for {len(snn.layers)} layers; give one for each")
    if not all(0 < s < float("inf") for s in scales):
        raise ValueError(f"threshold scale {scale!r}: give a factor above 0")
    return replace(snn, layers=tuple(_scaled(*pair) for pair in zip(snn.layers, scales, strict=True)))


def _scaled(layer: SpikingLayer, scale: float) -> SpikingLayer:
    if scale == 1:
        return layer
    table, lowest, highest = layer.thresholds, layer.lowest[:, None], layer.highest[:, None]
    scaled = table * scale if table.is_floating_point() else (table.double() * scale).ceil().long()
    scaled = torch.where((table > lowest) & (table <= highest), scaled, table)
    return replace(layer, thresholds=scaled.cummax(1).values)
