"""Random small networks, and how hypothesis draws them."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from ann_snn_utils.ann.network import ANN, build_ann


def random_ann(seed: int = 0, **arguments) -> ANN:
    """A quantized network with random weights and batch norms: γ of both signs and zero, β, μ, var spread."""
    generator = torch.Generator().manual_seed(seed)
    ann = build_ann(**{"network": "3C3-P2-4C2-5", "in_shape": (1, 8, 8), "classes": 3} | arguments)

    def normal(like, scale=1.0, shift=0.0):
        return torch.randn(like.shape, generator=generator) * scale + shift

    with torch.no_grad():
        for index, layer in enumerate(ann.layers):
            raw = layer.conv.parametrizations.weight.original
            raw.copy_(normal(raw))
            norm = layer.norm
            fan_in = raw[0].numel()
            spread = (60.0 if index == 0 or not ann.spec.ternary else 1.0) * fan_in**0.5
            norm.weight.copy_(normal(norm.weight, 1.0, 1.0))
            norm.weight[torch.rand(norm.weight.shape, generator=generator) < 0.15] = 0.0
            norm.bias.copy_(normal(norm.bias, 0.7, 0.2))
            norm.running_mean.copy_(normal(norm.running_mean, 0.3 * spread))
            norm.running_var.copy_((normal(norm.running_var, 0.3, 1.0).abs() + 0.05) * (0.5 * spread) ** 2)
        raw = ann.classifier.parametrizations.weight.original
        raw.copy_(normal(raw))
    return ann.eval()


def random_images(seed: int, shape: tuple[int, int, int], samples: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randint(0, 256, (samples, *shape), generator=generator, dtype=torch.uint8)


@st.composite
def networks(draw) -> ANN:
    """Shapes, padding, k, clip, levels, ternary or int8, and the numbers."""
    padding = draw(st.sampled_from(["valid", "same"]))
    first = draw(st.sampled_from(["2C3", "3C1", "2C3-P2", "3"]))
    rest = draw(st.sampled_from(["", "-3C1", "-4", "-2C3-3", "-2C1-P2-3"]))
    shape = (draw(st.sampled_from([1, 3])), 6, 6)
    if padding == "valid" and first == "2C3":
        shape = (shape[0], 8, 8)
    if first.startswith("3") and first.isdigit() and rest not in ("", "-4", "-3C1"):
        rest = "-4-3"
    if first == "2C3-P2" and padding == "valid":
        rest = rest.replace("2C3-3", "2C2-3")
    if "P2-3" in rest and first == "2C3-P2":
        rest = rest.replace("-P2-3", "-3")
    return random_ann(
        seed=draw(st.integers(0, 10**6)),
        network=first + rest,
        in_shape=shape,
        padding=padding if "2C2" not in rest else "valid",
        k=draw(st.integers(0, 2)),
        clip=draw(st.sampled_from([None, 1, 2])),
        levels=draw(st.integers(1, 4)),
        ternary=draw(st.booleans()),
    )
