"""A torch model of anyone's making becomes a quantized network and a spiking one that agree in every code."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import brevitas_like
import pytest
import torch
import torch.nn.functional as F
from networks import random_images
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from ann_snn_utils import (
    ANN,
    SNN,
    build_ann,
    check_equivalence,
    codes,
    convert,
    convert_module,
    copy_weights,
    layer_losses,
    load_ann,
    load_pretrained,
    quantize,
    quantize_ends,
    save_ann,
)
from ann_snn_utils.ann import calibrate
from ann_snn_utils.ann.layers import LayerReader
from ann_snn_utils.ann.network import Layer, raw_weight
from ann_snn_utils.ann.quantize import Counts, Int8, QuantReLU, Ternary
from ann_snn_utils.ann.quantized import Scaled
from ann_snn_utils.ann.store import save_pretrained
from ann_snn_utils.files import save_tensors

IMAGES = torch.randint(0, 256, (24, 2, 10, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PROVED = IMAGES[:4]


class Of(nn.Module):
    """A stem of 6 channels, what a function makes of it, and a classifier over all of that."""

    def __init__(self, function: Callable[[Of, Tensor], Tensor], features: int) -> None:
        super().__init__()
        self.function = function
        self.stem, self.inner, self.wide = (
            nn.Conv2d(2, 6, 3, padding=1),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.Conv2d(6, 8, 1),
        )
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.strided, self.around = nn.Conv2d(6, 8, 3, 2, 1, bias=False), nn.Conv2d(6, 8, 1, 2)
        self.norm, self.norm8, self.flat = nn.BatchNorm2d(6), nn.BatchNorm2d(8), nn.BatchNorm1d(6)
        self.linear, self.grouped = nn.Linear(600, 6), nn.Conv2d(12, 6, 1, groups=3)
        self.classifier = nn.Linear(features, 5)
        self.offset, self.row = nn.Parameter(torch.randn(6, 1, 1)), nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.function(self, F.relu(self.stem(x))), 1))


def trained(model: nn.Module) -> nn.Module:
    """The model with batch norms that know some statistics, not only 0 and 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.weight, -0.5, 1.5)
            nn.init.normal_(module.bias, 0.2, 0.2)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(IMAGES / 255)
    return model.eval()


def proved(model: nn.Module, **settings) -> tuple[ANN, SNN]:
    """Both networks, after the proof."""
    ann, snn = convert_module(model, IMAGES, **settings)
    proof = check_equivalence(ann, snn, PROVED)
    assert snn.integer and proof.exact, proof.examples
    return ann, snn


def twice(x: Tensor) -> Tensor:
    return F.relu(x) + x


PATHS: dict[str, tuple[Callable, int]] = {
    "batch norm": (lambda m, x: F.relu(m.norm(m.inner(x))), 600),
    "ReLU6": (lambda m, x: F.relu6(9 * m.inner(x)), 600),
    "clamp": (lambda m, x: m.inner(x).clamp(0, 0.3), 600),
    "clamp from below": (lambda m, x: torch.clamp_min(m.norm(m.inner(x).clamp_min(min=0)), 0), 600),
    "depthwise": (lambda m, x: torch.relu(m.depthwise(x)), 600),
    "stride": (lambda m, x: m.strided(x).relu(), 200),
    "no activation": (lambda m, x: F.relu(m.wide(m.norm(m.inner(x)))), 800),
    "max pooling": (lambda m, x: F.max_pool2d(m.inner(x).relu(), 3, 2, 1), 150),
    "max pooling before the activation": (lambda m, x: F.relu(F.max_pool2d(m.norm(m.inner(x)), 2)), 150),
    "max pooling of signed counts": (lambda m, x: F.max_pool2d(m.inner(x), 2), 150),
    "average pooling": (lambda m, x: F.relu(m.wide(F.avg_pool2d(x, 2))), 200),
    "overlapping averages": (lambda m, x: F.relu(m.wide(F.avg_pool2d(x, 3, 2, 1))), 200),
    "sum pooling": (lambda m, x: F.relu(m.wide(F.avg_pool2d(x, 2, divisor_override=1))), 200),
    "global averages": (lambda m, x: F.adaptive_avg_pool2d(x, 1), 6),
    "a mean": (lambda m, x: m.inner(x).relu().mean((2, 3)), 6),
    "adaptive averages without windows": (lambda m, x: F.adaptive_avg_pool2d(x, 7), 294),
    "identity shortcut": (lambda m, x: F.relu(m.norm(m.inner(x)) + x), 600),
    "projected shortcut": (lambda m, x: F.relu(m.norm8(m.strided(x)) + m.around(x)), 200),
    "shortcut without ReLU": (lambda m, x: m.norm(m.inner(x)) + x, 600),
    "a sum of three": (lambda m, x: F.relu(m.inner(x) + m.depthwise(x) + x), 600),
    "a sum of plain maps": (lambda m, x: F.relu(m.inner(x)) + x, 600),
    "concatenation": (lambda m, x: F.relu(m.grouped(torch.cat([x, m.inner(x)], 1))), 600),
    "concatenation at the end": (lambda m, x: torch.cat([x, F.relu(m.inner(x))], 1), 1200),
    "normalised concatenation": (lambda m, x: torch.cat([F.relu(m.norm(x)), x], 1), 1200),
    "a hidden linear layer": (lambda m, x: F.relu(m.flat(m.linear(F.dropout(x.flatten(1), 0.5, m.training)))), 6),
    "view": (lambda m, x: F.relu(m.linear(x.view(x.size(0), -1))), 6),
    "view of a product": (lambda m, x: F.relu(m.linear(x.view(-1, x.size(1) * x.size(2) * x.size(3)))), 6),
    "arguments by name": (lambda m, x: F.relu(input=torch.add(m.inner(input=x), other=x)), 600),
    "constants": (lambda m, x: F.relu(m.inner(2 * x) / 3 - 0.1), 600),
    "a constant of each channel": (lambda m, x: F.relu(m.inner(x) + m.offset), 600),
    "flattened maps side by side": (lambda m, x: torch.cat([x.flatten(1), m.inner(x).relu().flatten(1)], 1), 1200),
    "a pooled sum and maps": (lambda m, x: F.relu(F.max_pool2d(m.inner(x), 2) + F.max_pool2d(x, 2)), 150),
    "averages of a pooled sum over one axis": (
        lambda m, x: F.adaptive_avg_pool2d(F.max_pool2d(m.inner(x), 2), (None, 5)),
        150,
    ),
    "one sum in two activations": (lambda m, x: twice(m.inner(x)), 600),
}


@pytest.mark.parametrize("weights", ["int8", pytest.param("ternary", marks=pytest.mark.slow)])
@pytest.mark.parametrize("path", PATHS)
def test_every_kind_of_layer_settles_on_the_quantized_networks_codes(path, weights):
    torch.manual_seed(0)
    model = trained(Of(*PATHS[path]))
    ann, _ = proved(model, levels=5, weights=weights)
    if weights == "ternary":
        hidden = [layer.conv.weight for layer in ann.layers[1:] if isinstance(layer, Layer)]
        assert all(weight.abs().max() <= 1 for weight in hidden)


CLAMPED: dict[str, Callable] = {
    "behind a ReLU": lambda m, x: torch.cat([F.relu(9 * m.inner(x)).clamp(0, 0.3), F.relu(m.depthwise(x))], 1),
    "beside larger values": lambda m, x: torch.cat([m.inner(x).clamp(0, 0.05), F.relu(9 * m.depthwise(x))], 1),
    "of the encoder": lambda m, x: torch.cat([x, F.relu(3 * m.inner(x))], 1),
}


@pytest.mark.parametrize("path", CLAMPED)
def test_a_clamp_holds_in_the_step_that_a_layer_shares(path):
    class Clamped(Of):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).clamp(0, 0.1 if path == "of the encoder" else 9)
            return self.classifier(self.function(self, x).flatten(1))

    torch.manual_seed(0)
    model = Clamped(CLAMPED[path], 1200)
    found, wanted = quantize(model, IMAGES, levels=255)(IMAGES), model(IMAGES / 255)
    assert (found - wanted).abs().max() < 0.1 * wanted.std(0).mean()
    proved(model, levels=15)


@pytest.mark.parametrize("path", PATHS)
def test_with_many_counts_the_quantized_network_is_the_model(path):
    torch.manual_seed(0)
    model = trained(Of(*PATHS[path]))
    ann = quantize(model, IMAGES, levels=255, percentile=100)
    with torch.no_grad():
        wanted, found = model(IMAGES / 255), ann(IMAGES)
    assert float((wanted - found).abs().max()) < 0.06 * float(wanted.std() + wanted.abs().mean())


def test_a_layer_loses_less_with_more_counts():
    torch.manual_seed(0)
    model = trained(Of(*PATHS["identity shortcut"]))
    few, many = (layer_losses(model, quantize(model, IMAGES, levels=n), IMAGES) for n in (3, 63))
    assert [loss.layer for loss in few] == [loss.layer for loss in many] == ["stem", "add"]
    assert all(more.error < less.error / 4 for more, less in zip(many, few, strict=True))
    assert [(loss.lowest, loss.highest) for loss in few] == [(0, 3)] * 2


def test_losses_of_layers_that_share_a_sum_are_each_layers_own():
    torch.manual_seed(0)
    model = trained(Of(*PATHS["one sum in two activations"]))
    losses = layer_losses(model, quantize(model, IMAGES, levels=63), IMAGES)
    assert [(loss.layer, loss.lowest) for loss in losses] == [("stem", 0), ("inner", -63), ("add", -63)]
    assert all(loss.error < 0.05 for loss in losses), losses


def test_losses_against_another_model_are_refused():
    one, other = (trained(Of(*PATHS[name])) for name in ("depthwise", "stride"))
    with pytest.raises(ValueError, match="the model has layers .*'strided'.*: give its own model"):
        layer_losses(other, quantize(one, IMAGES), IMAGES)


def test_steps_are_chosen_by_values_from_all_over_the_map(monkeypatch):
    torch.manual_seed(0)
    model = trained(Of(*PATHS["batch norm"]))
    images = IMAGES.clone()
    images[:, :, :, 0] = 0
    whole = quantize(model, images)
    # As many values as would be every tenth, that is the dark column of each map.
    monkeypatch.setattr(calibrate, "_SAMPLE", 24 * 6 * 10)
    few = quantize(model, images)
    for one, other in zip(few.layers, whole.layers, strict=True):
        assert one.spec.step == pytest.approx(other.spec.step, rel=0.1)


@pytest.mark.slow
def test_what_prepares_images_goes_into_the_weights():
    from torchvision.transforms import Normalize  # which takes seconds to import

    torch.manual_seed(0)
    inner = trained(
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    )
    ann, _ = proved(nn.Sequential(Normalize((0.4, 0.6), (0.2, 0.3)), inner), levels=255, percentile=100.0)
    with torch.no_grad():
        wanted = inner(
            (IMAGES / 255 - torch.tensor([0.4, 0.6])[:, None, None]) / torch.tensor([0.2, 0.3])[:, None, None]
        )
    assert float((ann(IMAGES) - wanted).abs().max()) < 0.05 * float(wanted.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize(("mean", "padding", "warned"), [(0.5, 1, 1), (0.0, 1, 0), (0.5, 0, 0)])
def test_padding_of_images_from_which_a_mean_was_subtracted_is_warned_of(mean, padding, warned, recwarn):
    from torchvision.transforms import Normalize

    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=padding), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    model(IMAGES / 255)
    quantize(nn.Sequential(Normalize(mean, 0.2), model), IMAGES)
    found = [str(one.message) for one in recwarn if "sums at the border differ" in str(one.message)]
    assert len(found) == warned and all(one.startswith("1.0 of the model pads") for one in found)


def integers(module: nn.Module, how: nn.Module) -> nn.Module:
    parametrize.register_parametrization(module, "weight", how)
    return module


@pytest.mark.parametrize("k", [0, 2])
def test_a_model_of_our_quantizers_is_taken_to_the_last_code(k):
    torch.manual_seed(0)
    model = nn.Sequential(
        integers(nn.Conv2d(2, 6, 3, bias=False), Int8()),
        nn.BatchNorm2d(6, eps=1e-3),
        QuantReLU(0, 4),
        integers(nn.Conv2d(6, 8, 3, bias=False), Ternary()),
        nn.BatchNorm2d(8),
        QuantReLU(k, 3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        integers(nn.Linear(72, 5, bias=False), Int8(per_channel=False)),
    )
    trained(model)
    ann, _ = proved(model)
    reference, values = copy.deepcopy(model).double().eval(), []
    x = IMAGES.double() / 255
    for module in reference:
        x = module(x)
        values += [x] if isinstance(module, QuantReLU) else []
    found = [
        count for count, layer in zip(codes(ann, IMAGES)[0], ann.layers, strict=True) if isinstance(layer, Layer)
    ]
    for count, value, step in zip(found, values, (1, 2.0**-k), strict=True):
        assert torch.equal(count * step, value) and value.max() > value.min()


@pytest.mark.parametrize(
    ("first", "activation", "last", "place"),
    [
        (Int8(), nn.ReLU(), Int8(per_channel=False), "_0"),
        (None, QuantReLU(0, 3), Int8(per_channel=False), "_0"),
        (Ternary(), QuantReLU(0, 3), None, "the classifier"),
    ],
)
def test_a_model_that_our_quantizers_round_in_part_is_refused_by_the_place(first, activation, last, place):
    conv, linear = nn.Conv2d(2, 4, 3), nn.Linear(256, 5)
    for module, how in ((conv, first), (linear, last)):
        if how is not None:
            integers(module, how)
    with pytest.raises(ValueError, match=f"{place} of the model is not quantized, and others are"):
        quantize(nn.Sequential(conv, activation, nn.Flatten(), linear), IMAGES)


def test_half_away_from_zero_is_refused_where_a_negative_sum_can_lie_half_way():
    # Sums are whole, and in steps of 2 those of −1 and +1 lie half way between counts; in steps of 3 none does.
    def model(halves: str, step: float) -> nn.Module:
        stem, signed = (integers(nn.Conv2d(n, 4, 1, bias=False), Ternary()) for n in (2, 4))
        last = integers(nn.Linear(400, 5, bias=False), Int8(per_channel=False))
        return nn.Sequential(stem, QuantReLU(0, 3), signed, Counts(step, -3, 3, halves), nn.Flatten(), last).eval()

    torch.manual_seed(1)
    proved(model("up", 2.0))
    for halves in ("away", "even"):
        with pytest.raises(ValueError, match="half way between two counts"):
            quantize(model(halves, 2.0), IMAGES)
    proved(model("away", 3.0))
    counts = Counts(1.0, -2, 2, "away")(torch.tensor([-1.5, -0.5, 0.5, 1.4]))
    assert counts.tolist() == [-2, -1, 1, 1]


class SideBySide(nn.Module):
    """A quantized network whose classifier, or a layer before it, reads two layers with steps of their own."""

    def __init__(self, k: int, last: bool) -> None:
        super().__init__()
        self.last = last
        self.stem, self.norm = integers(nn.Conv2d(2, 6, 3, bias=False), Int8()), nn.BatchNorm2d(6)
        self.one, self.other = (integers(nn.Conv2d(6, 4, 1, bias=False), Ternary()) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))
        self.steps = nn.ModuleList(QuantReLU(*of) for of in ((0, 4), (0, 3), (k, 3), (0, 3)))
        self.both = integers(nn.Conv2d(8, 4, 3, bias=False), Ternary())
        self.classifier = integers(nn.Linear(512 if last else 144, 5, bias=False), Int8(per_channel=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.steps[0](self.norm(self.stem(x)))
        one, other = self.steps[1](self.norms[0](self.one(x))), self.steps[2](self.norms[1](self.other(x)))
        x = torch.cat([one, other], 1)
        return self.classifier((x if self.last else self.steps[3](self.norms[2](self.both(x)))).flatten(1))


@pytest.mark.parametrize(("k", "last"), [(0, True), (0, False), (1, False)])
def test_layers_side_by_side_keep_the_steps_that_a_model_gives_them(k, last):
    torch.manual_seed(0)
    model = trained(SideBySide(k, last))
    ann, _ = proved(model)
    assert [ann.spec.step(index) for index in range(3)] == [1, 1, 2.0**-k] and ann.spec.levels == 4
    with torch.no_grad():
        assert torch.allclose(codes(ann, IMAGES)[1], model.double()(IMAGES.double() / 255))


@pytest.mark.parametrize("eps", [(None, 1e-5), (1e-5, None), (1e-5, 1e-3), (1e-3, 1e-3)])
@pytest.mark.parametrize("bias", [False, True])
def test_branches_of_whole_weights_keep_what_each_of_them_adds(eps, bias):
    def whole(layer: nn.Module) -> nn.Module:
        nn.init.uniform_(layer.weight, -3, 3).data.round_()
        return layer

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(whole(nn.Conv2d(2, 3, 3, bias=False)), Counts(0.5, 0, 7))
            self.ways = nn.ModuleList(
                nn.Sequential(
                    whole(nn.Conv2d(3, 3, 1, bias=bias and one is None)),
                    nn.Identity() if one is None else nn.BatchNorm2d(3, one),
                )
                for one in eps
            )
            self.end = nn.Sequential(Counts(0.5, 0, 7), nn.Flatten(), whole(nn.Linear(192, 5, bias=False)))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.end(self.ways[0](x) + self.ways[1](x))

    torch.manual_seed(0)
    model = trained(Branches())
    ann = quantize(model, IMAGES)
    with torch.no_grad():
        assert torch.allclose(codes(ann, IMAGES)[1], model.double()(IMAGES.double() / 255))


def test_averages_that_a_model_rounds_are_rounded():
    torch.manual_seed(0)
    conv, classifier = nn.Conv2d(2, 3, 3, bias=False), nn.Linear(48, 5, bias=False)
    for layer in (conv, classifier):
        nn.init.uniform_(layer.weight, -3, 3).data.round_()
    model = nn.Sequential(conv, Counts(0.5, 0, 7), nn.AvgPool2d(2), Counts(0.5, 0, 7), nn.Flatten(), classifier)
    ann, _ = proved(model)
    with torch.no_grad():
        assert torch.allclose(codes(ann, IMAGES)[1], model.double()(IMAGES.double() / 255))


def test_counts_of_two_steps_are_not_classified_side_by_side():
    with pytest.raises(ValueError, match="counts in steps of \\[0.5, 1.0\\] are read out together: use one"):
        quantize(SideBySide(1, last=True).eval(), IMAGES)


@pytest.mark.parametrize(
    ("scale", "taken"), [((0.3, 0.3, 0.3), True), ((0.5, -2.0, 0.25), True), ((0.3, 0.2, 0.25), False)]
)
def test_scales_of_classes_are_taken_where_whole_scores_can_be_compared(scale, taken):
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(2, 3, 3, bias=False), nn.Linear(192, 3, bias=False)
    for layer in (conv, linear):
        nn.init.uniform_(layer.weight, -3, 3).data.round_()
    model = nn.Sequential(conv, Counts(0.5, 0, 7), nn.Flatten(), Scaled(linear, torch.tensor(scale), None))
    if not taken:
        with pytest.raises(ValueError, match="has a scale for each class, .* give its weights one scale"):
            quantize(model, IMAGES)
        return
    ann, _ = proved(model)
    with torch.no_grad():
        assert torch.allclose(codes(ann, IMAGES)[1], model.double()(IMAGES.double() / 255))


def of_brevitas(modules: ModuleType) -> nn.Sequential:
    return nn.Sequential(
        modules.QuantConv2d(2, 6, 3, padding=1, bias=False, weight_bit_width=4),
        nn.BatchNorm2d(6),
        modules.QuantReLU(bit_width=2),
        nn.MaxPool2d(2),
        modules.QuantConv2d(6, 4, 3, bias=True, weight_bit_width=4),
        modules.QuantIdentity(bit_width=3),
        nn.Flatten(),
        modules.QuantLinear(36, 5, bias=True, weight_bit_width=4),
    )


@pytest.mark.parametrize("modules", ["stand-ins", "brevitas"])
def test_a_model_of_brevitas_is_taken_to_the_last_code(modules):
    named = brevitas_like if modules == "stand-ins" else pytest.importorskip("brevitas.nn", reason="needs Brevitas")
    torch.manual_seed(0)
    model = trained(of_brevitas(named))
    ann, _ = proved(model)
    x, values = IMAGES / 255, []
    with torch.no_grad():
        for module in model:
            x = module(x)
            values += [x] if type(module).__name__ in ("QuantReLU", "QuantIdentity", "MaxPool2d") else []
    found, scores = codes(ann, IMAGES)
    assert [bool((count < 0).any()) for count in found] == [False, False, True]
    for index, (count, value) in enumerate(zip(found, values, strict=True)):
        assert torch.equal(count.double(), (value / ann.spec.step(index)).round().double()) and count.any()
    # The bias of the classifier is a whole score.
    assert float((scores - x).abs().max()) <= 0.51 * float(ann.classifier.unit) * ann.classifier.count


def without_quantizer(name: str) -> brevitas_like.QuantConv2d:
    layer = brevitas_like.QuantConv2d(2, 4, 3, weight_bit_width=4)
    setattr(layer, name, SimpleNamespace(is_quant_enabled=name == "bias_quant"))
    return layer


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            (brevitas_like.QuantConv2d(2, 4, 3, weight_bit_width=4), nn.ReLU()),
            "not quantized, and others are: quantize all layers",
        ),
        ((nn.Conv2d(2, 4, 3), brevitas_like.QuantReLU(2)), "_0 of the model is not quantized, and others are"),
        (
            (without_quantizer("weight_quant"), brevitas_like.QuantReLU(2)),
            "0 of the model: Brevitas leaves its weights",
        ),
        (
            (without_quantizer("bias_quant"), brevitas_like.QuantReLU(2)),
            "0 of the model: its bias is rounded.*import_qonnx",
        ),
    ],
)
def test_a_model_of_brevitas_is_quantized_throughout_or_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        quantize(
            nn.Sequential(*layers, nn.Flatten(), brevitas_like.QuantLinear(256, 5, weight_bit_width=4)), IMAGES
        )


def test_other_modules_of_brevitas_are_refused_by_name():
    other = type("QuantHardTanh", (nn.Module,), {"__module__": "brevitas.nn.quant_activation"})
    with pytest.raises(ValueError, match="1 of the model: Brevitas's QuantHardTanh .*export_qonnx"):
        quantize(nn.Sequential(nn.Conv2d(2, 4, 3), other()), IMAGES)


def test_the_quantized_network_trains_on_and_stays_exact():
    torch.manual_seed(0)
    model = trained(Of(*PATHS["identity shortcut"]))
    labels = torch.randint(0, 5, (len(IMAGES),))
    ann = quantize(model, IMAGES, levels=7, weights="ternary")
    before = F.cross_entropy(ann(IMAGES), labels).item()
    optimizer = torch.optim.Adam(ann.train().parameters(), 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(ann(IMAGES), labels).backward()
        optimizer.step()
    assert F.cross_entropy(ann.eval()(IMAGES), labels).item() < before / 2
    assert check_equivalence(ann, convert(ann), PROVED).exact


def grown(sign: int) -> ANN:
    """A quantized network, its batch norms of this sign, whose first weights training has moved beyond −127."""
    torch.manual_seed(0)
    ann = quantize(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)), IMAGES)
    with torch.no_grad():
        ann.layers[0].norm.weight.mul_(sign)
        raw = raw_weight(ann.layers[0].conv)
        raw.copy_(-1.01 * raw.abs())
    return ann


def of_before(ann: ANN, path: Path) -> ANN:
    """The network as it comes back from a file that was written while −128 was a weight."""
    tensors = {name: one for name, one in ann.state_dict().items() if not name.endswith("lowest")}
    save_tensors(path, tensors, {"spec": ann.spec.to_dict()})
    return load_ann(path).eval()


@pytest.mark.parametrize("sign", [1, -1])
def test_weights_that_grow_in_training_can_be_negated(sign):
    ann = grown(sign)
    assert ann.layers[0].conv.weight.min() == -127
    assert check_equivalence(ann, convert(ann), PROVED).exact


def test_a_network_that_was_saved_with_a_weight_of_minus_128_keeps_it(tmp_path):
    ann = of_before(grown(1), tmp_path / "before.safetensors")
    save_ann(ann, tmp_path / "again.safetensors")
    save_pretrained(ann, "net", tmp_path)
    copied = copy_weights(ann, build_ann(**ann.spec.to_dict())).eval()
    for one in (ann, copied, load_ann(tmp_path / "again.safetensors").eval(), load_pretrained("net", tmp_path)):
        assert one.layers[0].conv.weight.min() == -128
        assert check_equivalence(one, convert(one), PROVED).exact


def test_a_weight_of_minus_128_is_not_negated_in_8_bits(tmp_path):
    ann = of_before(grown(-1), tmp_path / "before.safetensors")
    remedy = "ann.layers[0].conv.parametrizations.weight[0].lowest.fill_(-127)"
    with pytest.raises(ValueError, match=re.escape(f"a weight becomes 128, beyond int8: call {remedy}")):
        convert(ann)
    ann.layers[0].conv.parametrizations.weight[0].lowest.fill_(-127)
    assert check_equivalence(ann, convert(ann), PROVED).exact


def test_a_quantized_network_is_kept_in_a_file(tmp_path):
    ann = quantize(trained(Of(*PATHS["projected shortcut"])), IMAGES, levels=5)
    save_ann(ann, tmp_path / "own.safetensors")
    again = load_ann(tmp_path / "own.safetensors").eval()
    assert again.spec == ann.spec and torch.equal(again(IMAGES), ann(IMAGES))


def test_a_quantized_network_is_copied_in_the_units_of_its_weights(tmp_path):
    torch.manual_seed(0)
    ann = quantize(Of(*PATHS["projected shortcut"]), IMAGES)
    save_pretrained(ann, "net", tmp_path)
    logits = codes(ann, PROVED)[1]
    assert len(logits.unique()) == logits.numel()
    copied = copy_weights(ann, build_ann(**ann.spec.to_dict())).eval()
    for copy_of_it in (copied, quantize_ends(ann), load_pretrained("net", tmp_path)):
        assert torch.equal(codes(copy_of_it, PROVED)[1], logits)


def test_random_numbers_of_the_caller_are_left_as_they_are():
    model, before = Of(*PATHS["identity shortcut"]), torch.get_rng_state()
    convert_module(model, IMAGES)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_itself_is_left_as_it_is():
    model = trained(Of(*PATHS["identity shortcut"])).train()
    before = copy.deepcopy(model.state_dict())
    quantize(model, IMAGES)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Moved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


def spoiled() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = torch.nan
    return model


def stated(m: Of, x: Tensor) -> Tensor:
    y = m.inner(x)
    y.add_(x)
    return F.relu(y)


def also(m: Of, x: Tensor) -> Tensor:
    y = x
    y += m.inner(x)
    return F.relu(m.inner(x))


class Doubling(nn.Module):
    """A ReLU of twice its input, whose product nobody takes."""

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        return F.relu(x)


class Raising(nn.Module):
    """Returns the scores, which it has changed."""

    def forward(self, x: Tensor) -> Tensor:
        x.add_(torch.arange(5))
        return x


def pruned() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def keeping() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    model.seen = model(torch.rand(1, 2, 10, 10))
    return model


class Normalize(nn.Module):
    """Another one than torchvision's."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=1, keepdim=True)


def rounding_weights() -> nn.Module:
    rounded = torch.ao.quantization.QConfig(nn.Identity, torch.ao.quantization.default_weight_fake_quant)
    model = nn.Sequential(torch.ao.nn.qat.Conv2d(2, 4, 3, qconfig=rounded), nn.ReLU())
    model(IMAGES / 255)
    return model


def patched() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten())
    model[3].forward = F.gelu
    return model


def mean(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 1)


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "two inputs": (TwoInputs(), "takes 2 inputs \\(x, y\\)"),
    "a branch": (Branching(), "torch.fx cannot follow the forward of Branching"),
    "NaN": (spoiled(), "0.weight of the model holds a value that is not finite"),
    "another activation": (nn.Sequential(nn.Conv2d(2, 4, 3), nn.GELU()), "1 of the model: GELU .* ReLU"),
    "another norm": (nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)), "GroupNorm .* BatchNorm2d"),
    "softmax": (nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Softmax(1)), "Softmax .*leave it out"),
    "stride": (nn.Sequential(nn.Conv2d(2, 4, 3, (1, 2))), "stride=\\(1, 2\\) differs between rows and columns"),
    "border": (nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect")), "padding_mode='reflect'"),
    "no ReLU": (nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3)), "first layer has no activation.*ReLU"),
    "pooled image": (nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2, 4, 3)), "image is pooled .*start with a Conv2d"),
    "maps at the end": (nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU()), "returns maps of \\(4, 8, 8\\)"),
    "one axis": (nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(8, 5)), "put nn.Flatten\\(\\) before it"),
    "hanging windows": (
        nn.Sequential(nn.Conv2d(2, 4, 2), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)),
        "ceil_mode=True .* hang over the border",
    ),
    "averages without padding": (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
        "count_include_pad=True",
    ),
    "products of maps": (Of(lambda m, x: x * m.inner(x), 600), "mul cannot be converted; maps can be added"),
    "moved axes": (nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), Moved()), "permute .*reads whole maps"),
    "no model": ("resnet18", "model: str; give a torch.nn.Module"),
    "hanging windows in one direction": (
        nn.Sequential(nn.Conv2d(2, 4, (2, 3)), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)),
        "ceil_mode=True .* hang over the border",
    ),
    "hanging dilated windows": (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2, 2, dilation=2, ceil_mode=True)),
        "ceil_mode=True .* hang over the border",
    ),
    "a scaled constant": (Of(lambda m, x: F.relu(torch.add(m.inner(x), 1.0, alpha=2)), 600), "alpha .* compute it"),
    "a rounded quotient": (
        Of(lambda m, x: torch.div(x, 0.3, rounding_mode="floor"), 600),
        "rounding_mode .* compute it without",
    ),
    "a constant along the rows": (
        Of(lambda m, x: F.relu(F.avg_pool2d(m.inner(x), 5, 1) + m.row), 216),
        "a constant of shape \\(6,\\) beside a map: use \\(C, 1, 1\\)",
    ),
    "an empty range": (Of(lambda m, x: x.clamp(0, 0), 600), "clamp of the model: max_val"),
    "another type": (
        Of(lambda m, x: m.inner(x.float()), 600),
        "float.* of the model gives maps another type .*leave it",
    ),
    "a cast and another size": (Of(lambda m, x: m.inner(x.double()), 599), "does not take images of .*shapes"),
    "no weights": (nn.Sequential(nn.ReLU(), nn.Flatten()), "Sequential has no weights: give a trained network"),
    "a sum as a statement": (Of(stated, 600), "relu.* reads inner, which was changed in place .*a = a \\+ b"),
    "a sum in place, read by another name": (
        Of(also, 600),
        "the forward of Of does something that its results do not show",
    ),
    "a ReLU in place before a shortcut": (
        Of(lambda m, x: (lambda y: F.relu(m.inner(F.relu(y, inplace=True)) + y))(m.inner(x)), 600),
        "reads inner, which was changed in place after it was made",
    ),
    "a product that nobody takes": (
        nn.Sequential(nn.Conv2d(2, 4, 3), Doubling(), nn.Flatten(), nn.Linear(256, 5)),
        "changed in place",
    ),
    "a sum as the last statement": (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5), Raising()),
        "output of the model reads _3, which was changed in place",
    ),
    "a number computed from a map": (
        Of(lambda m, x: F.avg_pool2d(F.relu(x), 2, divisor_override=x.size(2)), 150),
        "avg_pool2d.* of the model: an argument of .* is computed from a map's size: write the number",
    ),
    "a batch norm of flattened maps": (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(256), nn.Linear(256, 5)),
        "3 of the model: a batch norm of 256 features behind flattened maps .*: put BatchNorm2d before",
    ),
    "an end of a clamp for each channel": (
        Of(lambda m, x: F.relu(m.inner(torch.clamp(x, m.offset, m.offset))), 600),
        "clamp of the model: an end that is a map, or one for each channel: give one number",
    ),
    "an end of a clamp computed from a map": (
        Of(lambda m, x: F.relu(m.inner(F.relu(x).clamp(0, x.shape[1]))), 600),
        "an argument of .* is computed from a map's size",
    ),
    "a third operand": (Of(lambda m, x: F.relu(torch.add(m.inner(x), 2, m.offset)), 600), "a third operand"),
    "places of maxima": (
        Of(lambda m, x: F.max_pool2d(x, 2, return_indices=True)[0], 150),
        "cannot be converted",
    ),
    "places of maxima, of a module": (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2, return_indices=True)),
        "return_indices=True: .* leave it out",
    ),
    "a hook": (pruned(), "0 has a hook \\(L1Unstructured\\) .* remove it"),
    "a value that is kept": (keeping(), "cannot be copied .* keep a tensor of its last run"),
    "a name of torchvision's": (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), Normalize()),
        "norm cannot be converted",
    ),
    "what counts on training to come": (
        rounding_weights(),
        "0 is a Conv2d of torch's own quantization: give the model as it was before",
    ),
    "what a quantization of torch has made": (
        nn.Sequential(torch.ao.nn.quantized.Conv2d(2, 4, 3), nn.ReLU()),
        "0 is a Conv2d of torch's own quantization: .*load_state_dict",
    ),
    "a script": (
        nn.Sequential(torch.jit.script(nn.Conv2d(2, 4, 3)), nn.ReLU()),
        "0 is a torch.jit.ScriptModule, .*: give the module that was scripted",
    ),
    "averages over oblong windows": (
        nn.Sequential(nn.Conv2d(2, 4, (3, 4)), nn.ReLU(), nn.AvgPool2d((8, 7), padding=(1, 1))),
        "kernel_size=\\(8, 7\\) differs between rows and columns: use one number",
    ),
    "weights without values": (
        nn.Sequential(nn.Conv2d(2, 4, 3, device="meta"), nn.ReLU()),
        "0.weight of the model is on the meta device and has no values: .* load its weights",
    ),
    "weights without a shape": (
        nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU()),
        "0.weight of the model has no shape yet: run the model on an image once",
    ),
    "weights that a function is given": (
        Of(lambda m, x: F.relu(F.conv2d(x, m.inner.weight, padding=1)), 600),
        "conv2d cannot be converted; hold its weights in an nn.Conv2d, and call that",
    ),
    "a forward of one's own": (patched(), "3 of the model: its forward is not that of ReLU"),
    "a dropout that stays on": (
        Of(lambda m, x: F.dropout(F.relu(x), 0.5), 600),
        "dropout of the model: it drops values in evaluation too: give training=self.training",
    ),
    "images that are taken for features": (
        Of(lambda m, x: F.relu(m.inner(x)).view(1, -1), 600),
        "the model takes one image and not two .*: keep the first axis",
    ),
    "a window on padding alone, before a ReLU": (
        nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.ReLU(),
            nn.MaxPool2d(8),
            nn.Conv2d(4, 4, 1),
            nn.MaxPool2d(2, 2, 1, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4, 5),
        ),
        "scores that are not finite: look for pooling windows",
    ),
    "a window on padding alone": (
        nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(8), nn.MaxPool2d(2, 2, 1, 2), nn.Flatten(), nn.Linear(4, 5)
        ),
        "scores that are not finite: look for pooling windows that see nothing but padding",
    ),
    "what is flat beside maps": (
        Of(lambda m, x: mean(mean(F.relu(x)).flatten(1) + mean(F.relu(m.inner(x)))), 6),
        "maps and what is flat are added: flatten both",
    ),
    "an average of other windows before a convolution": (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d((3, 5)), nn.Conv2d(4, 4, 2)),
        "3 of the model: the adaptive pooling before it has no square windows .*: let a linear layer follow",
    ),
    "negated maps": (Of(lambda m, x: F.max_pool2d(-1 * x, 2), 150), "a minimum"),
}


def test_a_model_that_would_be_read_as_another_one_is_refused(monkeypatch):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    quantize(model, IMAGES)
    read = LayerReader._linear
    monkeypatch.setattr(LayerReader, "_linear", lambda reader, value, one: read(reader, value, doubled(one)))
    with pytest.raises(ValueError, match="computes other scores than the layers that were read of it"):
        quantize(model, IMAGES)


def doubled(layer: nn.Linear) -> nn.Linear:
    made = copy.deepcopy(layer)
    made.weight.data *= 2
    return made


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: F.dropout(F.relu(m.inner(x)), 0.0),
        lambda m, x: F.relu(m.inner(x)).clip(0, torch.tensor(6.0)),
        lambda m, x: F.relu(torch.add(m.inner(x), x, alpha=1)),
        lambda m, x: F.relu(m.inner(x) - 0.1307),
    ],
)
def test_what_changes_nothing_and_constants_of_any_number_are_taken(function):
    class Casting(Of):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).float()

    assert check_equivalence(*convert_module(Casting(function, 600), IMAGES), PROVED).exact


@pytest.mark.parametrize(
    "end",
    [
        [nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 5, 1), nn.Flatten()],
        [nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
        [nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 5, 1), nn.Flatten()],
        [nn.AvgPool2d((8, 5)), nn.Flatten(), nn.Linear(4, 5)],
        [
            nn.AdaptiveAvgPool2d((3, 2)),
            nn.Conv2d(4, 6, (3, 2), groups=2),
            nn.ReLU(),
            nn.Conv2d(6, 5, 1),
            nn.Flatten(),
        ],
    ],
)
def test_averages_of_averages_and_of_maps_that_are_not_square_end_a_model(end):
    images = IMAGES[:, :, :, : 10 if getattr(end[0], "kernel_size", 0) == 2 else 7]
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), *end)
    # Its modules were made when tests were collected, by whatever had been drawn before.
    torch.manual_seed(1)
    model.apply(lambda module: module.reset_parameters() if hasattr(module, "reset_parameters") else None)
    ann, snn = convert_module(model, images, levels=255)
    assert check_equivalence(ann, snn, images[:4]).exact
    wanted = model(images / 255)
    assert (ann(images) - wanted).std() < 0.1 * wanted.std(0).mean()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exact_is_refused_with_its_place_and_the_remedy(name):
    model, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        quantize(model, IMAGES)


def test_what_torch_export_made_is_refused_as_that():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    exported = torch.export.export(model, (torch.rand(1, 2, 10, 10),))
    for made in (exported.module(), torch.export.unflatten(exported)):
        with pytest.raises(ValueError, match="is what torch.export made, .*: give the module that was exported"):
            quantize(made, IMAGES)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES / 255, "images are float32 .*: give a uint8 tensor"),
        (IMAGES[0], "images have shape \\[2, 10, 10\\]: give a uint8 tensor"),
        (IMAGES.permute(0, 2, 3, 1), "channels-last: pass images.permute"),
        (IMAGES[:, :, :2, :2], "the model does not take images of \\[2, 2, 2\\]"),
        ("images", "images are .*: give a uint8 tensor"),
    ],
)
def test_images_of_another_kind_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        quantize(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)), images)


def test_modules_may_be_defined_in_another_order_than_they_are_called_in():
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.end = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
            self.stem = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.end(self.stem(x))

    assert [layer.spec.token for layer in quantize(Late(), IMAGES).layers] == ["stem_0", "end_0"]
    with pytest.raises(ValueError, match="the model takes 2 channels"):
        quantize(Late(), IMAGES[:, :1])


def test_weights_of_1_and_minus_1_by_chance_are_rounded_as_any_others():
    # Also those of an average over windows that overlap, which are ones.
    average = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(3, 2), nn.Flatten(), nn.Linear(36, 5))
    signs = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    )
    signs[2].weight.data.sign_()
    for model in (average, signs):
        found, wanted = quantize(model, IMAGES, levels=120)(IMAGES), model(IMAGES / 255)
        assert (found - wanted).std() < 0.1 * wanted.std(0).mean()


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.other = nn.Conv2d(2, 4, 3), nn.Linear(256, 5), nn.Linear(256, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x)).flatten(1)
        return self.one(x) + 0.5 * self.other(x)


def test_two_linear_heads_that_are_added_are_one_classifier():
    torch.manual_seed(0)
    model = TwoHeads().double()
    head = nn.Linear(256, 5).double()
    head.weight.data, head.bias.data = (
        getattr(model.one, part).data + 0.5 * getattr(model.other, part).data for part in ("weight", "bias")
    )
    ann, snn = convert_module(model, IMAGES)
    assert [layer.spec.token for layer in ann.layers] == ["stem"] and check_equivalence(ann, snn, PROVED).exact
    assert torch.equal(
        ann(IMAGES), quantize(nn.Sequential(model.stem, nn.ReLU(), nn.Flatten(), head), IMAGES)(IMAGES)
    )


def test_what_is_done_in_place_and_read_by_its_result_is_taken():
    torch.manual_seed(0)
    model = Of(lambda m, x: F.relu_(m.inner(x).add_(1).mul_(2)), 600)
    found, wanted = quantize(model, IMAGES, levels=200)(IMAGES), model(IMAGES / 255)
    assert (found - wanted).std() < 0.1 * wanted.std(0).mean()


def test_wrong_settings_are_refused():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    with pytest.raises(ValueError, match="weights='int4': choose one of int8, ternary"):
        quantize(model, IMAGES, weights="int4")
    with pytest.raises(ValueError, match="percentile=0: "):
        quantize(model, IMAGES, percentile=0)
    with pytest.raises(ValueError, match="percentile='99': "):
        quantize(model, IMAGES, percentile="99")
    with pytest.raises(ValueError, match="levels=0: "):
        quantize(model, IMAGES, levels=0)


def test_batch_norm_that_was_synchronized_in_training_is_batch_norm():
    model = trained(Of(lambda m, x: F.relu(m.flat(m.linear(m.norm(m.inner(x)).relu().flatten(1)))), 6))
    plain, synchronized = (
        quantize(one, IMAGES).state_dict() for one in (model, nn.SyncBatchNorm.convert_sync_batchnorm(model))
    )
    assert all(torch.equal(plain[name], value) for name, value in synchronized.items())


def test_maps_need_not_be_square():
    images = IMAGES[:, :, :, :7]
    model = nn.Sequential(
        nn.Conv2d(2, 4, (3, 1)), nn.ReLU(), nn.AdaptiveAvgPool2d((2, 7)), nn.Flatten(), nn.Linear(56, 5)
    )
    ann, snn = convert_module(model, images, levels=5)
    assert check_equivalence(ann, snn, images[:4]).exact


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg11", "resnet18", "mobilenet_v2"])
def test_models_of_torchvision_are_converted_exactly(name):
    from torchvision import models

    torch.manual_seed(0)
    if name == "vgg11":
        features = models.vgg.make_layers([8, "M", 8, "M", 16, 16, "M", 16, 16, "M", 16, 512, "M"])
        model = models.vgg.VGG(features)
        model.classifier = nn.Sequential(nn.Linear(512 * 49, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10))
    else:
        narrow = {"width_mult": 0.35} if name == "mobilenet_v2" else {}
        model = getattr(models, name)(num_classes=10, **narrow)
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(images / 255)
    ann, snn = convert_module(model, images, levels=5)
    proof = check_equivalence(ann, snn, images[:2])
    assert proof.exact, proof.examples
    assert len(snn.layers) == {"vgg11": 14, "resnet18": 18, "mobilenet_v2": 52}[name]


class AddedCounts(nn.Module):
    """A residual block on counts of 0.5, whose convolutions' weights are multiples of `scales`."""

    def __init__(self, *scales: float) -> None:
        super().__init__()
        self.stem, self.body, self.shortcut = (
            brevitas_like.QuantConv2d(inputs, 2, size, weight_bit_width=4, padding=size // 2, bias=False)
            for inputs, size in ((1, 3), (2, 3), (2, 1))
        )
        self.first, self.last = (brevitas_like.QuantReLU(2) for _ in range(2))
        self.classifier = brevitas_like.QuantLinear(2 * 36, 3, weight_bit_width=4)
        for layer, scale in zip((self.stem, self.body, self.shortcut), (0.3, *scales), strict=True):
            whole = torch.randint(-7, 8, layer.weight.shape, generator=torch.Generator().manual_seed(1))
            whole[:, 0, 0, 0] = 7
            layer.weight.data.copy_(whole * scale)
        for activation in (self.first, self.last):
            activation.act_quant.step = 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.stem(x))
        return self.classifier(self.last(self.body(x) + self.shortcut(x)).flatten(1))


def test_branches_whose_sums_can_lie_half_way_between_counts_are_refused():
    # Sums of 3/16 and of 1/16: levels begin at 4/16 = 3/16 + 1/16, where neither sum alone ever is.
    images = random_images(0, (1, 6, 6), samples=8)
    with pytest.raises(ValueError, match="half way between two counts.*HALF_UP"):
        quantize(AddedCounts(3 / 8, 1 / 8), images)


def test_branches_whose_sums_cannot_are_taken_to_the_last_code():
    # Sums of 3/16 and of 6/16: no level begins at a multiple of 3/16.
    images = random_images(0, (1, 6, 6), samples=8)
    model = AddedCounts(3 / 8, 3 / 4).double()
    ann, snn = convert_module(model, images)
    first = model.first(model.stem(images.double() / 255))
    last = model.last(model.body(first) + model.shortcut(first))
    for count, value in zip(codes(ann, images)[0], (first, last), strict=True):
        assert torch.equal(count.double(), value.detach() / 0.5) and len(count.unique()) > 2
    assert check_equivalence(ann, snn, images).exact
