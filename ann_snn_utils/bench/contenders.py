"""Who takes part in the benchmark: what each contender runs on a workload, and whether its answers are exact.

SpikingJelly and snnTorch, where they are installed, run the same quantized network with batch norms folded into the
weights, in float32 with real-valued thresholds and biases.

What a user would deploy instead of a spiking network takes part too: the network of the same shape with ReLUs, by
torch eager and compiled, and by ONNX Runtime in float32 and in int8, quantized as its documentation advises for
processors with VNNI. Threads that wait do so asleep: those that spin slow whoever runs next.
"""

from __future__ import annotations

import copy
import logging
import shutil
import tempfile
import timeit
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..ann.network import ANN
from ..ann.reference import codes
from ..files import cpu_info
from ..simulator.run import choose_backend, simulate
from .baseline import simulate_numpy
from .workload import Workload

Job = Callable[[], Tensor]
"""A job to be timed: its result is the class of each image, int64 [N]."""

# Images on which exactness is checked; fewer in colour, whose networks take the float64 reference minutes.
EXACT_SAMPLES, EXACT_SAMPLES_IN_COLOUR = 64, 8

# Counts of a layer without a clip stay far below this in every network that is timed.
_LARGEST_COUNT = 63

# Steps in which the converted network of SpikingJelly settles.
SETTLING_STEPS = 64


class Quantizer(nn.Module):
    """The quantized ReLU in the form that SpikingJelly's SpikeZIP recipe looks for: s, sym, pos_max, neg_min."""

    sym, neg_min = False, 0
    # The recipe spreads every bias over so many steps, two at the least.
    level = 2

    def __init__(self, step: float, largest: int) -> None:
        super().__init__()
        self.s, self.pos_max = step, largest

    def forward(self, x: Tensor) -> Tensor:
        return torch.floor(x / self.s + 0.5).clamp(0, self.pos_max) * self.s


@torch.no_grad()
def folded(qann: ANN, activation: Callable[[float, int], nn.Module]) -> nn.Sequential:
    """The network as convolutions with bias and `activation(step, largest count)` behind each."""
    modules: list[nn.Module] = []
    for index, layer in enumerate(qann.layers):
        spec, norm = layer.spec, copy.deepcopy(layer.norm).double().eval()
        conv = nn.Conv2d(spec.in_shape[0], spec.out_shape[0], spec.kernel, spec.stride, spec.padding, bias=False)
        conv.weight.copy_(layer.conv.weight)
        conv = fuse_conv_bn_eval(conv.double().eval(), norm).float()
        k, clip = (qann.spec.k, qann.spec.clip) if index else (0, qann.spec.levels)
        modules += [conv, activation(2.0**-k, (_LARGEST_COUNT if clip is None else clip) * 2**k)]
    read_out = nn.Linear(qann.classifier.in_features, qann.spec.classes, bias=False)
    read_out.weight.copy_(qann.classifier.weight * qann.classifier.scale)
    return nn.Sequential(*modules, nn.Flatten(), read_out).eval()


def spikingjelly(qann: ANN) -> nn.Sequential:
    """The network as SpikingJelly's SpikeZIP recipe converts it. ModuleNotFoundError without SpikingJelly."""
    logging.getLogger("spikingjelly").setLevel(logging.ERROR)
    from spikingjelly.activation_based.ann2snn import ModuleConverter, SpikeZIPTFQANNRecipe

    return ModuleConverter(SpikeZIPTFQANNRecipe(time_steps=SETTLING_STEPS)).convert(folded(qann, Quantizer))


@torch.inference_mode()
def run_spikingjelly(net: nn.Sequential, images: Tensor, time_steps: int, multi_step: bool) -> Tensor:
    """Class scores [N, classes] after `time_steps`: the image at the first step, zeros behind it.

    images: float32 [N, C, H, W] in 0 … 1. multi_step: all steps of a layer at once, SpikingJelly's mode "m".
    """
    from spikingjelly.activation_based import functional

    functional.reset_net(net)
    functional.set_step_mode(net, "m" if multi_step else "s")
    silence = torch.zeros_like(images)
    if not multi_step:
        return sum(net(silence if step else images) for step in range(time_steps))
    x = torch.stack([silence if step else images for step in range(time_steps)])
    for module in net:
        x = x.flatten(2) if isinstance(module, nn.Flatten) else module(x)
    return x.sum(0)


@torch.no_grad()
def spikingjelly_mismatches(net: nn.Sequential, qann: ANN, images: Tensor) -> int:
    """The number of settled counts of SpikingJelly's network that differ from the quantized network's codes."""
    run_spikingjelly(net, images.float() / 255, SETTLING_STEPS, multi_step=False)
    modules: list[Any] = list(net)
    counts: list[Tensor] = [module.acc_q for module in modules if hasattr(module, "acc_q")]
    pairs = zip(counts, codes(qann, images)[0], strict=True)
    return sum(int((count.round().long() != code).sum()) for count, code in pairs)


def snntorch(qann: ANN) -> nn.Sequential:
    """The network with snnTorch's Leaky neurons: no leak, a reset that subtracts the threshold of 1.

    The nearest that snnTorch has, and another neuron: it sends no −1, so nothing is ever taken back, and the
    image is shown, with all biases, at every step. Raises ValueError for k > 0 (its spikes are worth 1), and
    ModuleNotFoundError without snnTorch.
    """
    from snntorch import Leaky

    if qann.spec.k:
        raise ValueError(f"k={qann.spec.k}: spikes of snnTorch are worth 1, so only k=0 can be compared")
    return folded(qann, lambda *_: Leaky(beta=1.0, reset_mechanism="subtract", init_hidden=True))


@torch.inference_mode()
def run_snntorch(net: nn.Sequential, images: Tensor, time_steps: int) -> Tensor:
    """Class scores [N, classes] after `time_steps` of a constant float32 image [N, C, H, W]."""
    modules: list[Any] = list(net)
    for module in modules:
        if hasattr(module, "reset_mem"):
            module.reset_mem()
    return sum(net(images) for _ in range(time_steps))


def onnx_model(ann: ANN) -> Any:
    """The network in full precision as an ONNX model: convolutions with bias, batch norms folded in, and ReLUs."""
    net, example = folded(ann, lambda *_: nn.ReLU()), torch.zeros(2, *ann.spec.in_shape)
    batch: Any = ({0: torch.export.Dim("N")},)
    program = torch.onnx.export(net, (example,), input_names=["images"], dynamic_shapes=batch, verbose=False)
    assert program is not None
    return program.model_proto


def quantized_onnx(model: Any, batches: Iterable[np.ndarray]) -> Any:
    """An ONNX model in int8: static, weights per channel, QDQ. batches: float32 images to calibrate with.

    Without VNNI, pairs of products saturate at 16 bits: weights keep to 7 bits there, as its documentation advises.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        left = iter([{"images": batch} for batch in batches])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder:
        # As files: a model in memory would be changed.
        given, made = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, given)
        how = dict(activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True)
        how["reduce_range"] = not any("vnni" in line for line in cpu_info())
        quantize_static(given, made, Reader(), quant_format=QuantFormat.QDQ, **how)
        return onnx.load(made)


def onnx_job(model: Any, images: np.ndarray) -> Job:
    """A job that runs a model: on one thread or on all, whichever is faster for so many images."""
    from onnxruntime import InferenceSession, SessionOptions

    def session(threads: int) -> InferenceSession:
        options = SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def seconds(one: InferenceSession) -> float:
        return min(timeit.repeat(lambda: one.run(None, {"images": images}), number=1, repeat=6))

    fastest = min(map(session, {1, torch.get_num_threads()}), key=seconds)
    return lambda: torch.from_numpy(fastest.run(None, {"images": images})[0].argmax(1))


def _onnx(int8: bool, work: Workload, _: int) -> Job:
    model, images = onnx_model(work.ann), work.pixels.numpy()
    if int8:
        # The images that are timed: as good a range as there is.
        model = quantized_onnx(model, np.array_split(images[:256], -(-min(len(images), 256) // 32)))
    return onnx_job(model, images)


def _ours(backend: str | None, work: Workload, time_steps: int | None, device: str | None = None) -> Job:
    def run() -> Tensor:
        record = simulate(work.snn, work.images, time_steps, backend=backend, device=device)
        return torch.from_numpy(record.logits.numpy()[-1].argmax(1))

    return run


def _ann(
    layout: torch.memory_format,
    compiled: bool,
    work: Workload,
    _: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Job:
    net = folded(work.ann, lambda *_: nn.ReLU()) if compiled else copy.deepcopy(work.ann)
    net = net.to(device, dtype).to(memory_format=layout)
    batch = work.pixels.to(device, dtype).contiguous(memory_format=layout)
    forward = torch.compile(net) if compiled else net

    @torch.inference_mode()
    def run() -> Tensor:
        return forward(batch).argmax(1)

    return run


def _numpy(work: Workload, time_steps: int) -> Job:
    pixels = work.images.numpy()
    return lambda: torch.from_numpy(simulate_numpy(work.snn, pixels, time_steps)[-1].argmax(1))


def _spikingjelly(multi_step: bool, work: Workload, time_steps: int, device: str = "cpu") -> Job:
    net, images = spikingjelly(work.qann).to(device), work.pixels.to(device)
    return lambda: run_spikingjelly(net, images, time_steps, multi_step).argmax(1)


def _snntorch(work: Workload, time_steps: int, device: str = "cpu") -> Job:
    net, images = snntorch(work.qann).to(device), work.pixels.to(device)
    return lambda: run_snntorch(net, images, time_steps).argmax(1)


@dataclass(frozen=True)
class Contender:
    """One that takes part: its name in tables, and `prepare(work, time_steps)`, which gives its job.

    timeless: its time does not depend on a number of steps. slow: timed on small networks only, as a VGG takes it
    minutes. package: what must be installed for it. command: what must be on the path.
    """

    label: str
    prepare: Callable[[Workload, int], Job]
    timeless: bool = False
    slow: bool = False
    package: str = ""
    command: str = ""


CONTENDERS = {
    "events": Contender("this project, events", partial(_ours, "events")),
    "dense": Contender("this project, dense", partial(_ours, "dense")),
    "silence": Contender("this project, until silence", lambda work, _: _ours(None, work, None), timeless=True),
    "ann-contiguous": Contender(
        "float32 ANN, contiguous", partial(_ann, torch.contiguous_format, False), timeless=True
    ),
    "ann-channels-last": Contender(
        "float32 ANN, channels last", partial(_ann, torch.channels_last, False), timeless=True
    ),
    "ann-compiled": Contender(
        "float32 ANN, torch.compile", partial(_ann, torch.channels_last, True), timeless=True, command="g++"
    ),
    "onnx-float32": Contender(
        "float32 ANN, ONNX Runtime", partial(_onnx, False), timeless=True, package="onnxruntime"
    ),
    "onnx-int8": Contender("int8 ANN, ONNX Runtime", partial(_onnx, True), timeless=True, package="onnxruntime"),
    "numpy": Contender("NumPy im2col, float64", _numpy, slow=True),
    "spikingjelly": Contender(
        "SpikingJelly SpikeZIP, step by step", partial(_spikingjelly, False), slow=True, package="spikingjelly"
    ),
    "spikingjelly-multi": Contender(
        "SpikingJelly SpikeZIP, multi-step", partial(_spikingjelly, True), slow=True, package="spikingjelly"
    ),
    "snntorch": Contender("snnTorch Leaky, another neuron", _snntorch, slow=True, package="snntorch"),
}


def contenders_on(device: str) -> dict[str, Contender]:
    """Who takes part on a device other than the CPU; all but this project's simulator have their images there."""
    ann, bf16 = partial(_ann, torch.channels_last, device=device), torch.bfloat16
    peers = {
        "spikingjelly": partial(_spikingjelly, False, device=device),
        "spikingjelly-multi": partial(_spikingjelly, True, device=device),
        "snntorch": partial(_snntorch, device=device),
    }
    return {
        "dense": Contender("this project, dense", partial(_ours, "dense", device=device)),
        "ann-channels-last": Contender("float32 ANN, channels last", partial(ann, False), timeless=True),
        "ann-bf16": Contender("bf16 ANN, channels last", partial(ann, False, dtype=bf16), timeless=True),
        "ann-compiled": Contender("bf16 ANN, torch.compile", partial(ann, True, dtype=bf16), timeless=True),
        **{name: replace(CONTENDERS[name], prepare=prepare) for name, prepare in peers.items()},
    }


ANNS = ("ann-contiguous", "ann-channels-last", "ann-compiled", "onnx-float32")

# They answer another question than the quantized network's codes.
OTHERS = (*ANNS, "onnx-int8", "snntorch")


def available(names: Iterable[str], work: Workload) -> tuple[list[str], list[str]]:
    """Those contenders that can take part, and a line for each that cannot, with the reason.

    Raises ValueError for a name that is no contender's.
    """
    taking, skipped = [], []
    for name in names:
        if name not in CONTENDERS:
            raise ValueError(f"contender {name!r}: choose from {', '.join(CONTENDERS)}")
        package, reason = CONTENDERS[name].package, ""
        if package and not find_spec(package):
            reason = f"{package} is not installed: pip install -c constraints.txt '.[bench,formats]'"
        command = CONTENDERS[name].command
        if command and not shutil.which(command):
            reason = f"there is no {command} on the path"
        if name == "events" and choose_backend(work.snn, None) != "events":
            reason = "the kernel cannot be compiled here: pip install ziglang"
        if reason:
            skipped.append(f"{CONTENDERS[name].label}: skipped, {reason}")
        else:
            taking.append(name)
    return taking, skipped


def exactness(name: str, work: Workload, time_steps: int) -> bool | None:
    """Whether a contender's answers are exact, on some of the images.

    Simulators of this project: class scores of every step equal those of the NumPy baseline, and counts at
    silence the quantized network's codes. NumPy: the same scores. SpikingJelly: its counts once settled.
    None for the float32 network and for another neuron, which answer another question.
    """
    images = work.images[: EXACT_SAMPLES if work.images.shape[1] == 1 else EXACT_SAMPLES_IN_COLOUR]
    if CONTENDERS[name].package == "spikingjelly":
        return not spikingjelly_mismatches(spikingjelly(work.qann), work.qann, images)
    if name in OTHERS:
        return None
    backend = name if name in ("events", "dense") else None
    settled = simulate(work.snn, images, backend=backend)
    if not all(map(torch.equal, (count.long() for count in settled.counts), codes(work.qann, images)[0])):
        return False
    scores = torch.from_numpy(simulate_numpy(work.snn, images.numpy(), time_steps))
    return bool((scores == simulate(work.snn, images, time_steps, backend=backend).logits).all())
