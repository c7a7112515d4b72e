"""A torch model of anyone's making becomes a list of layers that this project can hold.

torch.fx follows one image through the model. What its operations mean for a network of whole numbers stands in
`layers`; what cannot be followed, or is no network for images, is refused here. In the end the layers, in real
numbers, have to give the model's own scores, unless it rounds its activations itself or the border differs.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from .layers import LayerReader
from .network import check_finite, convolve, taken
from .notation import LARGEST_PIXEL
from .quantize import Counts, QuantReLU
from .quantized import check_quantized, without_brevitas
from .traced import IMAGE, Term, Trace


@torch.inference_mode(False)
def trace(model: nn.Module, images: Tensor) -> Trace:
    """The layers of a model that classifies images of the shape of these, uint8 [N, C, H, W] on the CPU.

    The model sees pixels divided by 255, as a copy in float64 and evaluation mode. What prepares them further, such
    as `torchvision.transforms.Normalize`, belongs into the model, in front.

    Raises ValueError that names the place in the model and the remedy, for anything that layers of whole numbers
    cannot be, for weights that are not finite and for images of another kind.
    """
    # What torch.compile made holds the model that it was given.
    model = getattr(model, "_orig_mod", model)
    model = model.module if isinstance(model, nn.DataParallel) else model
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: {type(model).__name__}; give a torch.nn.Module")
    _check_values(model)
    # Brevitas rounds in float32: its integers are taken before.
    model = without_brevitas(_copied(model).cpu().eval()).double()
    check_finite(model, "model")
    graph_module = _followed(model)
    _check_channels(graph_module, images)
    if next(graph_module.parameters(), None) is None:
        raise ValueError(f"model: {type(model).__name__} has no weights: give a trained network")
    shapes: dict[str, tuple[int, ...]] = {}
    watch(graph_module, images[:1], lambda name, value: shapes.update({name: tuple(value.shape[1:])}))
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()
    _check_same(graph_module, model, images[:1].double() / LARGEST_PIXEL)
    reader = LayerReader(graph_module, shapes)
    traced = reader.read((images.shape[1], images.shape[2], images.shape[3]))
    check_quantized(model, traced)
    # Of one image alone, its axis could be taken for another one of size 1.
    pixels = images[:2].double() / LARGEST_PIXEL
    scores = _scores(model, pixels)
    # Where a model rounds, the last digit of a sum may decide.
    if not reader.differs_at_border and all(layer.step is None for layer in traced.layers):
        _check_read(traced, pixels, scores)
    return traced


@torch.inference_mode(False)
@torch.no_grad()
@torch.autocast("cpu", enabled=False)
def watch(model: fx.GraphModule, images: Tensor, seen: Callable[[str, Tensor], object]) -> None:
    """Run a traced model on uint8 images and hand the name and value of each operation to `seen`, as it is made.

    Raises ValueError for images that it does not take, and where an operation reads what another one has changed in
    place since it was made: by the graph, it would read what was there before.
    """
    dtype = next(model.parameters()).dtype
    try:
        _Watched(model, seen).run(images.to(dtype) / LARGEST_PIXEL)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        casts = [node.name for node in model.graph.nodes if node.target in _CASTS]
        if casts and "type" in reason:
            raise ValueError(
                f"{casts[0]} of the model gives maps another type than its weights have ({reason:.200}): leave it "
                "out, as pixels come in that of the weights"
            ) from None
        raise ValueError(f"the model does not take images of {list(images.shape[1:])}: {reason:.200}") from None


# Methods of a tensor that change its type.
_CASTS = ("float", "double", "half", "bfloat16", "to", "type", "type_as")


class _Watched(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, seen: Callable[[str, Tensor], object]) -> None:
        super().__init__(module)
        self.seen, self.extra_traceback = seen, False
        self.versions: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        for source in n.all_input_nodes:
            if source in self.versions and self.env[source]._version != self.versions[source]:
                raise ValueError(
                    f"{n.name} of the model reads {source.name}, which was changed in place after it was made: "
                    "compute a new value instead, with ReLU(inplace=False), a = a + b or a.clamp(…)"
                )
        value = super().run_node(n)
        if isinstance(value, Tensor):
            # Each change of a tensor adds 1 to its version.
            self.versions[n] = value._version
            self.seen(n.name, value)
        return value


# Modules that torch's own quantization puts in; its stubs and its fused modules change nothing.
_OF_TORCH_QUANTIZATION = re.compile(r"torch\.ao\..*(qat|quantized|fake_quantize|observer)")


def _check_values(model: nn.Module) -> None:
    """Raise ValueError for modules that hide what they compute, and for weights that are not there."""
    for name, module in model.named_modules():
        place, kind = name or "the model", type(module).__name__
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{place} is a torch.jit.ScriptModule, whose forward cannot be followed: give the module that was "
                "scripted or traced, with its weights (load_state_dict)"
            )
        if any(base.__module__.startswith("torch.export.") for base in type(module).__mro__):
            raise ValueError(
                f"{place} is what torch.export made, whose layers are no modules: give the module that was "
                "exported, with its weights (load_state_dict)"
            )
        if _OF_TORCH_QUANTIZATION.match(type(module).__module__):
            raise ValueError(
                f"{place} is a {kind} of torch's own quantization: give the model as it was before prepare or "
                "convert, with its trained weights (load_state_dict), which is quantized here"
            )
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(value):
            raise ValueError(f"{name} of the model has no shape yet: run the model on an image once, and train it")
        if value.is_meta:
            raise ValueError(
                f"{name} of the model is on the meta device and has no values: build the model on the CPU, or call "
                "to_empty(device='cpu'), and load its weights (load_state_dict)"
            )


def _copied(model: nn.Module) -> nn.Module:
    for name, module in model.named_modules():
        hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
        if hooks and not isinstance(module, LazyModuleMixin):
            kind = getattr(hooks[0], "__name__", type(hooks[0]).__name__)
            raise ValueError(
                f"{name or 'the model'} has a hook ({kind}) that may change what it computes: remove it; "
                "torch.nn.utils.prune.remove(module, 'weight') and remove_weight_norm(module) keep what theirs made"
            )
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise ValueError(
            f"the model cannot be copied ({error!s:.100}): let no module keep a tensor of its last run"
        ) from None


@torch.no_grad()
def _check_same(followed: fx.GraphModule, model: nn.Module, image: Tensor) -> None:
    """Raise ValueError where what was followed computes something else than the model."""
    scores = []
    for one in (model, followed):
        with torch.random.fork_rng(devices=[]):
            # A dropout that nobody switched off draws the same twice.
            torch.manual_seed(0)
            scores.append(one(image.clone()))
    own, found = scores
    if isinstance(own, Tensor) and not torch.allclose(own, found, equal_nan=True):
        raise ValueError(
            f"the forward of {type(model).__name__} does something that its results do not show, such as a.add_(b) "
            "as a statement of its own: use what such operations return, as in a = a + b"
        )


@torch.no_grad()
def _scores(model: nn.Module, images: Tensor) -> Tensor:
    """Scores [N, classes] of a model, float64; ValueError where they are not finite."""
    try:
        scores: Tensor = model(images.clone())
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"the model takes one image and not two ({reason:.200}): keep the first axis, as x.flatten(1) does"
        ) from None
    return _finite(scores.double().flatten(1))


def _finite(scores: Tensor) -> Tensor:
    if not torch.isfinite(scores).all():
        raise ValueError(
            "the model has scores that are not finite: look for pooling windows that see nothing but padding, or "
            "train it again"
        )
    return scores


@torch.no_grad()
def _check_read(traced: Trace, images: Tensor, scores: Tensor) -> None:
    """Raise ValueError where the layers that were read, in real numbers, give other scores than the model did."""
    values = {IMAGE: images}

    def summed(term: Term) -> Tensor:
        maps = taken(term.branch, values)
        maps = maps if term.weight is None else convolve(maps, term.weight.double(), term.branch)
        return maps * term.scale[:, None, None]

    for number, layer in enumerate(traced.layers):
        if layer.pool is not None:
            values[number] = F.max_pool2d(values[layer.terms[0].sources[0]], *layer.pool)
        else:
            total = sum(map(summed, layer.terms)) + layer.shift[:, None, None]
            values[number] = total.clamp(layer.low, layer.high)
    # Scores may have been rounded to float32.
    found = _finite(summed(traced.classifier).flatten(1) + traced.bias)
    if found.shape != scores.shape or not torch.allclose(found, scores, 1e-6, 1e-6 * float(scores.abs().max())):
        raise ValueError(
            "the model computes other scores than the layers that were read of it, for a reason that is not known: "
            "please report it; ann_snn_utils.ann.layers says what a model may hold"
        )


def _check_channels(model: fx.GraphModule, images: Tensor) -> None:
    # In the order of computation, in which modules need not be defined.
    called = (model.get_submodule(str(node.target)) for node in model.graph.nodes if node.op == "call_module")
    first = next((m for m in called if isinstance(m, nn.Conv2d | nn.Linear)), None)
    if isinstance(first, nn.Conv2d) and images.shape[1] != first.in_channels:
        swapped = images.shape[3] == first.in_channels
        remedy = "they are channels-last: pass images.permute(0, 3, 1, 2)" if swapped else "give images that fit"
        raise ValueError(
            f"images: {list(images.shape)}, and the model takes {first.in_channels} channels: {remedy}"
        )


class _Follower(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        kind = type(m)
        # Of torchvision: others may give the same name to something else.
        known = kind.__name__ in ("Normalize", "StochasticDepth") and kind.__module__.startswith("torchvision.")
        return known or isinstance(m, QuantReLU | Counts) or super().is_leaf_module(m, module_qualified_name)


def _followed(model: nn.Module) -> fx.GraphModule:
    kind = type(model).__name__
    try:
        graph = _Follower().trace(model)
    except Exception as error:  # whatever a forward raises that meets a stand-in for its maps
        raise ValueError(
            f"torch.fx cannot follow the forward of {kind} ({error!s:.200}): write it without branches and loops "
            "that depend on the values of maps"
        ) from None
    inputs = [node.name for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        raise ValueError(f"{kind} takes {len(inputs)} inputs ({', '.join(inputs)}): a network sees one image")
    return fx.GraphModule(model, graph)
