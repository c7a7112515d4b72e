"""Random small networks, and how hypothesis draws them."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import strategies as st

from ann_snn_utils.ann.graph import Branch, Node, graph_text
from ann_snn_utils.ann.network import ANN, build_ann, raw_weight
from ann_snn_utils.snn.network import SpikingLayer


def random_ann(seed: int = 0, **arguments) -> ANN:
    """A quantized network with random weights and batch norms: γ of both signs and zero, β, μ, var spread."""
    generator = torch.Generator().manual_seed(seed)
    ann = build_ann(**{"network": "3C3-P2-4C2-5", "in_shape": (1, 8, 8), "classes": 3} | arguments)

    def normal(like, scale=1.0, shift=0.0):
        return torch.randn(like.shape, generator=generator) * scale + shift

    given = ann.spec.is_graph
    with torch.no_grad():
        for index, part in enumerate(ann.parts):
            raw, norm = raw_weight(part.conv), part.norm
            raw.copy_((normal(raw) * 2).round() if given else normal(raw))
            fan_in = raw[0].numel()
            spread = (60.0 if not given and (index == 0 or not ann.spec.ternary) else 1.0) * fan_in**0.5
            norm.weight.copy_(normal(norm.weight, 1.0, 1.0))
            norm.weight[torch.rand(norm.weight.shape, generator=generator) < 0.15] = 0.0
            norm.bias.copy_(normal(norm.bias, 0.7, 0.2))
            norm.running_mean.copy_(normal(norm.running_mean, 0.3 * spread))
            norm.running_var.copy_((normal(norm.running_var, 0.3, 1.0).abs() + 0.05) * (0.5 * spread) ** 2)
        raw = raw_weight(ann.classifier)
        raw.copy_((normal(raw) * 20).round() if given else normal(raw))
        if ann.classifier.bias is not None:
            ann.classifier.bias.copy_((normal(ann.classifier.bias) * 20).round())
    return ann.eval()


def with_weight(layer: SpikingLayer, weight: torch.Tensor) -> SpikingLayer:
    """The layer with other weights in its only synapses."""
    (one,) = layer.synapses
    return replace(layer, synapses=(replace(one, weight=weight),))


def random_images(seed: int, shape: tuple[int, int, int], samples: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randint(0, 256, (samples, *shape), generator=generator, dtype=torch.uint8)


def networks() -> st.SearchStrategy[ANN]:
    """Chains of convolutions, residual networks in notation, and any graph."""
    return st.one_of(chains(), residual_networks(), graphs())


@st.composite
def residual_networks(draw) -> ANN:
    """What notation can say beyond chains."""
    first = draw(st.sampled_from(["2C3", "3C3-M2", "2C3-A2", "3C3-M3s2"]))
    block = draw(st.sampled_from(["[2C3-3C1]", "[3C3s2-D3]", "2[3C1]", "[D3-4C1]", "D3s2-[3C3-3C3]"]))
    last = draw(st.sampled_from(["", "-A", "-2C1d2-M3s1", "-A3-4"]))
    return random_ann(
        seed=draw(st.integers(0, 10**6)),
        network=f"{first}-{block}{last}" if "s2" not in block or last != "-A3-4" else f"{first}-{block}-4",
        in_shape=(draw(st.sampled_from([1, 2])), 6, 6),
        padding="same",
        k=draw(st.integers(0, 2)),
        clip=draw(st.sampled_from([None, 1, 2])),
        levels=draw(st.integers(1, 3)),
        ternary=draw(st.booleans()),
    )


@st.composite
def graphs(draw) -> ANN:
    """Layers that read, add, concatenate and pool layers before them, with steps and signs of all kinds."""
    steps = st.sampled_from([0.25, 0.3, 1.0])
    first = Branch((-1,), (3, 3), padding=1, stride=draw(st.sampled_from([1, 2])))
    nodes, shapes = [Node("0", (first,), 2, step=draw(steps))], [(2, 6 // first.stride)]
    while len(nodes) < draw(st.integers(2, 5)):
        # The layer before is always read, so that no layer is left out.
        source = len(nodes) - 1
        channels, side = shapes[source]
        alike = [i for i, shape in enumerate(shapes[:-1]) if shape[1] == side]
        kind = draw(st.sampled_from(["convolution", "depthwise", "maximum", "sum", "concatenation"]))
        node = {"name": str(len(nodes)), "channels": draw(st.integers(1, 3)), "step": draw(steps)}
        node |= {"lowest": draw(st.sampled_from([0, 0, -2])), "highest": draw(st.integers(1, 3))}
        if kind == "maximum":
            shapes.append((channels, side))
            nodes.append(Node(node["name"], (Branch((source,), (3, 3), padding=1),), kind="maximum"))
            continue
        if kind == "depthwise":
            node["channels"], branches = (
                channels,
                [Branch((source,), (3, 3), padding=2, dilation=2, groups=channels)],
            )
        elif kind == "concatenation" and alike:
            branches = [Branch((draw(st.sampled_from(alike)), source), (1, 1))]
        elif kind == "convolution" and side % 2 == 0 and draw(st.booleans()):
            branches, side = [Branch((source,), (3, 3), padding=1, average=2)], side // 2
        else:
            branches = [Branch((source,), (3, 3), padding=1)]
        if kind == "sum":
            other = draw(st.sampled_from([source, *alike]))
            identity = shapes[other][0] == node["channels"] and draw(st.booleans())
            branches.append(Branch((other,), identity=True) if identity else Branch((other,), (1, 1)))
        shapes.append((node["channels"], side))
        nodes.append(Node(branches=tuple(branches), **node))
    average = draw(st.sampled_from([1, shapes[-1][1]]))
    text = graph_text(nodes, average, bias=draw(st.booleans()))
    seed, levels = draw(st.integers(0, 10**6)), draw(st.integers(1, 3))
    return random_ann(seed, network=text, in_shape=(1, 6, 6), levels=levels, ternary=False)


@st.composite
def chains(draw) -> ANN:
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
