"""Files of other tools say what the network says, to the last code, when those tools execute them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import random_ann
from torch import Tensor, nn

from ann_snn_utils import build_ann, check_equivalence, codes, convert, convert_module, load_pretrained, simulate
from ann_snn_utils.ann.graph import Branch, Node, graph_text
from ann_snn_utils.ann.quantize import Counts
from ann_snn_utils.formats.neurobench_model import SpikingModule, neurobench_model
from ann_snn_utils.formats.nir_export import write_nir
from ann_snn_utils.formats.onnx_export import write_onnx
from ann_snn_utils.formats.qonnx_import import import_qonnx

FILES = Path(__file__).parent / "files"


class Residual(nn.Module):
    """Everything that a graph can have: a residual addition, max pooling, signed counts, concatenation, a mean."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.inner = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.first, self.second = nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(6, 8, 1, 2)
        self.linear, self.classifier = nn.Conv2d(8, 4, 1), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = nn.functional.max_pool2d(torch.relu(self.inner(x) + x), 3, 2, 1)
        x = torch.relu(self.first(x) + self.second(x))
        return self.classifier(torch.cat([x, self.linear(x)], 1).mean((2, 3)))


IMAGES = torch.randint(0, 256, (5, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def networks():
    deep = build_ann("6C3-P2-12", (1, 12, 12), 5, k=1, clip=2).eval()
    return {"residual": convert_module(Residual(), IMAGES, levels=5), "chain, k = 1": (deep, convert(deep))}


@pytest.mark.parametrize("batch", [0, -1, "x", 1.5, True])
def test_a_number_of_images_that_is_none_is_refused_and_nothing_is_written(batch, tmp_path):
    with pytest.raises(ValueError, match=f"batch={batch!r}: give a number of images"):
        write_onnx(convert(random_ann(0)), tmp_path / "network.onnx", batch=batch)
    assert not any(tmp_path.iterdir())


def test_a_file_tells_where_counts_end_that_an_image_could_drive_further(tmp_path):
    onnx = pytest.importorskip("onnx")
    snn = convert(random_ann(1, k=2), max_levels=3)
    ends = {f"{index} {layer.name}": 3 for index, layer in enumerate(snn.layers) if layer.saturates}
    with pytest.warns(UserWarning, match=f"counts end with their threshold tables .*{next(iter(ends))} at 3"):
        path = write_onnx(snn, tmp_path / "network.onnx")
    told = {one.key: one.value for one in onnx.load(path).metadata_props}
    assert json.loads(told["counts_end"]) == ends


@pytest.mark.parametrize("name", ["residual", "chain, k = 1"])
def test_onnx_runtime_computes_every_code_and_score(networks, name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    ann, snn = networks[name]
    file = write_onnx(snn, tmp_path / "network.onnx", codes=True)
    scores, *counts = onnxruntime.InferenceSession(file).run(None, {"image": IMAGES.numpy().astype(np.float32)})
    wanted, logits = codes(ann, IMAGES)
    amplitude = [snn.spec.amplitude(index) for index in range(len(wanted))]
    for count, code in zip(counts, wanted, strict=True):
        np.testing.assert_array_equal(count, code.numpy())
    assert amplitude[0] == 2**snn.k
    np.testing.assert_allclose(scores * snn.metadata["logit_scale"], logits.numpy(), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(scores, simulate(snn, IMAGES).logits[-1].numpy())


@pytest.mark.parametrize("name", ["residual", "chain, k = 1"])
def test_qonnx_executes_its_file_with_thresholds_and_types_to_the_same_codes(networks, name, tmp_path):
    pytest.importorskip("qonnx")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    ann, snn = networks[name]
    model = ModelWrapper(str(write_onnx(snn, tmp_path / "network.onnx", "qonnx", batch=len(IMAGES))))
    values = execute_onnx(model, {"image": IMAGES.numpy().astype(np.float32)}, return_full_exec_context=True)
    for index, code in enumerate(codes(ann, IMAGES)[0]):
        np.testing.assert_array_equal(values[f"count_{index}"], code.numpy())
    np.testing.assert_array_equal(values["scores"], simulate(snn, IMAGES).logits[-1].numpy())
    kinds = [node.op_type for node in model.graph.node]
    neurons = [layer for layer in snn.layers if layer.spec.kind == "neurons"]
    assert kinds.count("MultiThreshold") == len(neurons)
    types = {str(model.get_tensor_datatype(one.name)) for one in model.graph.initializer if "weight" in one.name}
    assert types <= {"TERNARY", "INT8"} and "INT8" in types
    assert str(model.get_tensor_datatype("image")) == "UINT8"


def test_a_file_holds_integers_below_2_to_the_24_only(networks, tmp_path):
    pytest.importorskip("onnx")
    ann, snn = networks["chain, k = 1"]
    with pytest.raises(ValueError, match="thresholds='float'.*'exact'"):
        write_onnx(convert(ann, "float"), tmp_path / "no.onnx")
    with pytest.raises(ValueError, match="dialect='tflite'.*onnx, qonnx"):
        write_onnx(snn, tmp_path / "no.onnx", "tflite")
    layers = list(snn.layers)
    layers[1] = replace(layers[1], highest=layers[1].highest + 2**24)
    snn = replace(snn, layers=tuple(layers))
    with pytest.raises(ValueError, match="2\\^24"):
        write_onnx(snn, tmp_path / "no.onnx", "qonnx")
    assert not (tmp_path / "no.onnx").exists()


def quant(name: str, inputs: list[str], output: str, **settings):
    from onnx import helper

    settings = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"} | settings
    return helper.make_node("Quant", inputs, [output], name, domain="qonnx.custom_op.general", **settings)


def quantized_file(path, step: float, rounding: str = "ROUND", bias: float = 0.0, **changed):
    """A convolution with 3-bit weights of step 1/4, a ReLU of 2 bits and a linear layer, as a QONNX file."""
    from onnx import TensorProto, helper, numpy_helper, save

    generator = np.random.default_rng(0)
    constants = {
        "weight": changed.get("weight", generator.normal(0, 0.5, (3, 1, 3, 3))),
        "scale": np.array(changed.get("scale", 0.25)),
        "quarter": np.array(0.25),
        "zero": np.array(changed.get("zero", 0.0)),
        "bits": np.array(changed.get("bits", 3.0)),
        "bias": np.full(3, bias),
        "step": np.array(step),
        "two": np.array(changed.get("levels", 2.0)),
        "shape": np.array(changed.get("shape", (1, 108))),
        "dense": generator.normal(0, 0.5, (4, 108)),
    }
    pool = changed.get("pool", {})
    nodes = [
        quant(
            "w",
            ["weight", "scale", "zero", "bits"],
            "whole",
            narrow=changed.get("narrow", 1),
            rounding_mode=rounding,
        ),
        helper.make_node("Conv", ["image", "whole", "bias"], ["sum"], "conv", kernel_shape=[3, 3]),
        helper.make_node(changed.get("activation", "Relu"), ["sum"], ["positive"], "relu"),
        quant("a", ["positive", "step", "zero", "two"], "code", signed=0, rounding_mode=rounding),
        helper.make_node(
            changed.get("pooling", "MaxPool") if pool else "Identity", ["code"], ["pooled"], "pool", **pool
        ),
        helper.make_node("Reshape", ["pooled", "shape"], ["flat"], "flatten"),
        quant("d", ["dense", "quarter", "zero", "bits"], "linear", narrow=1),
        helper.make_node("Gemm", ["flat", "linear"], ["scores"], "gemm", transB=1),
    ]
    if changed.get("scale_as_node"):
        scale = helper.make_node("Constant", [], ["scale"], value_float=float(constants.pop("scale")))
        nodes.insert(0, scale)
    graph = helper.make_graph(
        nodes,
        "file",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, constants["weight"].shape[1], 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4])],
        [
            numpy_helper.from_array(value.astype(np.int64 if name == "shape" else np.float32), name)
            for name, value in constants.items()
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("qonnx.custom_op.general", 1)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


SMALL = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def test_a_qonnx_file_is_taken_exactly(tmp_path):
    pytest.importorskip("qonnx")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    path = quantized_file(tmp_path / "file.onnx", step=0.37, bias=0.123)
    ann = import_qonnx(path, SMALL)
    assert isinstance(ann.layers[0].activation, Counts) and ann.layers[0].spec.step == pytest.approx(0.37)
    (wanted,), logits = codes(ann, SMALL)
    assert set(wanted.unique().tolist()) == {0, 1, 2, 3}
    model = ModelWrapper(str(path)).transform(InferShapes())
    for index, image in enumerate(SMALL.numpy().astype(np.float32) / 255):
        values = execute_onnx(model, {"image": image[None]}, return_full_exec_context=True)
        np.testing.assert_array_equal(np.rint(values["code"][0] / 0.37), wanted[index].numpy())
        np.testing.assert_allclose(values["scores"][0], logits[index].numpy(), rtol=1e-5, atol=1e-5)
    record = simulate(convert(ann), SMALL)
    assert all(torch.equal(count.long(), code) for count, code in zip(record.counts, [wanted], strict=True))


def test_weights_half_way_between_two_numbers_are_rounded_as_their_file_says(tmp_path):
    pytest.importorskip("onnx")
    halves = np.array([0.125, 0.375, -0.125, -0.375, 0.625, 0, 0, 0, 0.1]).reshape(1, 1, 3, 3).repeat(3, 0)
    for rounding, wanted in (("ROUND", [0, 2, 0, -2, 2, 0, 0, 0, 0]), ("HALF_UP", [1, 2, -1, -2, 3, 0, 0, 0, 0])):
        path = quantized_file(tmp_path / "file.onnx", step=0.3, rounding=rounding, weight=halves)
        assert import_qonnx(path, SMALL).layers[0].conv.weight[0].flatten().tolist() == wanted


def test_a_scale_for_each_output_is_not_one_for_each_input(tmp_path):
    pytest.importorskip("onnx")
    weight, scale = np.random.default_rng(1).normal(0, 0.5, (3, 3, 3, 3)), np.array([0.25, 0.5, 0.125])
    images = SMALL.expand(-1, 3, -1, -1)
    made = dict(path=tmp_path / "file.onnx", step=0.37, weight=weight)
    ann = import_qonnx(quantized_file(**made, scale=scale.reshape(3, 1, 1, 1)), images)
    expected = np.clip(np.rint(weight / scale.reshape(3, 1, 1, 1)), -3, 3)
    assert np.array_equal(ann.layers[0].conv.weight.detach().numpy(), expected)
    with pytest.raises(ValueError, match="Conv conv: scales of shape .*one for each output"):
        import_qonnx(quantized_file(**made, scale=scale.reshape(1, 3, 1, 1)), images)


def test_a_network_that_brevitas_wrote_is_taken_exactly():
    # Brevitas 0.13: 4-bit weights with a scale for each channel, QuantReLUs of 3 and 4 bits, max pooling.
    pytest.importorskip("qonnx")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    path = FILES / "brevitas.onnx"
    ann = import_qonnx(path, SMALL)
    wanted, logits = codes(ann, SMALL)
    model = ModelWrapper(str(path)).transform(InferShapes())
    rounded = {node.output[0] for node in model.graph.node if node.op_type in ("Quant", "MaxPool")}
    maps = [
        name for name in model.get_all_tensor_names() if name in rounded and model.get_tensor_shape(name)[0] == 1
    ]
    maps.sort(key=[node.output[0] for node in model.graph.node].index)
    assert len(maps) == len(wanted) == 5
    for index, image in enumerate(SMALL[:6].numpy().astype(np.float32) / 255):
        values = execute_onnx(model, {"x": image[None]}, return_full_exec_context=True)
        for number, name in enumerate(maps):
            count = np.rint(values[name][0] / ann.spec.step(number))
            np.testing.assert_array_equal(count.ravel(), wanted[number][index].numpy().ravel())
        np.testing.assert_allclose(
            values[model.graph.output[0].name][0], logits[index].numpy(), rtol=1e-4, atol=1e-3
        )
    assert check_equivalence(ann, convert(ann), SMALL[:6]).exact


def test_levels_that_rounding_to_even_would_move_are_refused(tmp_path):
    pytest.importorskip("onnx")
    # In quarters of 1/255 every sum is whole: 255 · 4 · 0.125 is 127.5, half way between two counts of 0.25.
    halves = quantized_file(tmp_path / "file.onnx", step=4 / 255)
    with pytest.raises(ValueError, match="half way between two counts.*HALF_UP"):
        import_qonnx(halves, SMALL)
    upwards = quantized_file(tmp_path / "up.onnx", step=4 / 255, rounding="HALF_UP")
    assert import_qonnx(upwards, SMALL).spec.levels == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"activation": "Tanh"}, "Tanh relu: cannot be converted"),
        ({"zero": 1.0}, "Quant w: a zero point other than 0"),
        ({"bits": 1.0}, "Quant w: 1 bits: give whole bits, and at least 2 where values are signed"),
        ({"levels": 2.5}, "Quant a: 2.5 bits: give whole bits"),
        ({"rounding": "CEIL"}, "Quant w: rounding_mode=CEIL"),
        ({"shape": (1, 3, 6, 6)}, "Reshape flatten: only whole maps can be flattened"),
        ({"scale": np.full((1, 1, 3, 1), 0.25)}, "Conv conv: scales of shape \\(1, 1, 3, 1\\): give"),
        (
            {"pool": {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}},
            "MaxPool pool: .*auto_pad: pad all sides alike",
        ),
        (
            {"pooling": "AveragePool", "pool": {"kernel_shape": [2, 2], "dilations": [2, 2]}},
            "AveragePool pool: dilations=\\(2, 2\\): average values that lie side by side",
        ),
    ],
)
def test_what_a_qonnx_file_cannot_have_is_refused_with_its_node(tmp_path, changed, message):
    pytest.importorskip("onnx")
    with pytest.raises(ValueError, match=message):
        import_qonnx(quantized_file(tmp_path / "file.onnx", **{"step": 0.3} | changed), SMALL)


def test_a_constant_may_be_a_node_that_holds_a_number(tmp_path):
    pytest.importorskip("onnx")
    made = [quantized_file(tmp_path / f"{one}.onnx", 0.3, scale_as_node=one) for one in (False, True)]
    plain, node = (codes(import_qonnx(path, SMALL), SMALL)[1] for path in made)
    assert plain.equal(node)


def test_what_is_no_onnx_file_is_refused(tmp_path):
    pytest.importorskip("onnx")
    with pytest.raises(FileNotFoundError, match="give the path"):
        import_qonnx(tmp_path / "none.onnx", SMALL)
    (tmp_path / "text.onnx").write_text("no protobuf")
    with pytest.raises(ValueError, match="no ONNX file"):
        import_qonnx(tmp_path / "text.onnx", SMALL)


# Dilated, grouped and averaged, the classifier with a bias.
ODD_CHAIN = graph_text(
    [
        Node("a", (Branch((-1,), (3, 3), dilation=2),), 4),
        Node("b", (Branch((0,), (3, 3), groups=2, padding=1),), 6, highest=1),
        Node("c", (Branch((1,), (2, 2), average=2),), 8, highest=1),
    ],
    average=3,
    bias=True,
)


def test_a_weight_of_minus_128_is_named(tmp_path):
    weight = np.full((3, 1, 3, 3), 0.5)
    weight[0, 0, 0, 0] = -1.0
    made = {"step": 0.3, "weight": weight, "scale": 1 / 128, "bits": 8.0}
    with pytest.raises(
        ValueError, match="has a whole weight beyond ±127: quantize its weights to 8 bits of a narrow"
    ):
        import_qonnx(quantized_file(tmp_path / "file.onnx", narrow=0, **made), SMALL)
    import_qonnx(quantized_file(tmp_path / "narrow.onnx", **made), SMALL)


@pytest.mark.parametrize("network", ["6C3-P2-12", "4C3-D3-A2-8C1", ODD_CHAIN])
def test_a_network_of_one_level_is_the_same_in_nir(network, tmp_path):
    nir = pytest.importorskip("nir")
    clip = {} if network == ODD_CHAIN else {"clip": 1}
    snn = convert(random_ann(2, network=network, in_shape=(1, 12, 12), classes=5, levels=1, **clip))
    graph = nir.read(write_nir(snn, tmp_path / "network.nir"))
    names, x = ["input"], IMAGES.double()
    while names[-1] != "output":
        (following,) = [end for start, end in graph.edges if start == names[-1]]
        names.append(following)
        x = one_step(nir, graph.nodes[following], x)
    assert torch.equal(x.long(), simulate(snn, IMAGES).logits[-1])


def test_snntorch_reads_it_and_sends_the_same_spikes(tmp_path):
    nir = pytest.importorskip("nir")
    pytest.importorskip("nirtorch", reason="snnTorch reads NIR with nirtorch: pip install nirtorch snntorch")
    snntorch = pytest.importorskip("snntorch")
    from snntorch.import_nir import import_from_nir

    snn = convert(random_ann(3, network="6C3-P2-12", in_shape=(1, 12, 12), classes=5, levels=1, clip=1))
    file = write_nir(snn, tmp_path / "network.nir")
    record = simulate(snn, IMAGES, 1, trace=range(len(IMAGES)))
    assert all(0 < spikes.sum() < spikes.numel() for spikes in record.traces.spikes)
    sent: list[Tensor] = []

    def keep(_: nn.Module, __: object, made: tuple[Tensor, Tensor]) -> Tensor:
        # A neuron gives its spikes and its state, and the graph that nirtorch makes takes spikes.
        sent.append(made[0])
        return made[0]

    for index, image in enumerate(IMAGES.float()):
        # Read anew for each image: neurons keep their state, and snnTorch's flattening knows no batch.
        network = import_from_nir(nir.read(file))
        for module in network.modules():
            if isinstance(module, snntorch.Leaky):
                module.register_forward_hook(keep)
        scores, _ = network(image)
        assert torch.equal(scores.long(), record.logits[-1, index])
    for index, spikes in enumerate(record.traces.spikes):
        wanted = sent[index :: len(record.traces.spikes)]
        assert torch.equal(torch.stack(wanted).long(), spikes[0].long())


def one_step(nir, node, x: Tensor) -> Tensor:
    """NIR's definitions of its nodes, for the first step from rest."""
    match node:
        case nir.Conv2d():
            weight, bias = (torch.as_tensor(np.array(one)).double() for one in (node.weight, node.bias))
            numbers = [tuple(np.atleast_1d(one).tolist()) for one in (node.stride, node.padding, node.dilation)]
            return nn.functional.conv2d(x, weight, bias, *numbers, node.groups)
        case nir.IF():
            return (torch.as_tensor(node.r) * x > torch.as_tensor(node.v_threshold)).double()
        case nir.Flatten():
            return x.flatten(1)
        case nir.Affine():
            return x @ torch.as_tensor(np.array(node.weight)).double().T + torch.as_tensor(np.array(node.bias))
    return x


def test_nir_says_what_it_cannot_hold(tmp_path):
    pytest.importorskip("nir")
    two = convert(build_ann("4C3", (1, 12, 12), 5, levels=2, clip=1).eval())
    with pytest.raises(ValueError, match="levels=2.*never take one back"):
        write_nir(two, tmp_path / "no.nir")
    residual = convert(build_ann("4C3-[4C3-4C3]", (1, 12, 12), 5, levels=1, clip=1, padding="same").eval())
    with pytest.raises(ValueError, match="layer 2 .* is not one convolution of the layer before it"):
        write_nir(residual, tmp_path / "no.nir")
    wide = convert(build_ann("4", (3, 64, 64), 5, levels=1, clip=1).eval())
    with pytest.raises(ValueError, match="layer 0 \\(4\\) has membranes that reach 2\\^23"):
        write_nir(wide, tmp_path / "no.nir")
    exact = convert(build_ann("4C3", (1, 12, 12), 5, k=0, levels=1, clip=1).eval())
    with pytest.raises(ValueError, match="scores of the classes reach 2\\^24"):
        write_nir(replace(exact, bias=torch.full((5,), 2**24 + 1)), tmp_path / "no.nir")
    assert not list(tmp_path.iterdir())
    oblong = convert(build_ann("4C3-6", (1, 12, 10), 5, levels=1, clip=1).eval())
    with pytest.raises(ValueError, match="layer 1 \\(6\\) has a kernel of 10×8, and nir takes square ones only"):
        write_nir(oblong, tmp_path / "no.nir")
    more = convert(build_ann("4C3-4C3", (1, 12, 12), 5, levels=1, clip=3).eval())
    with pytest.raises(ValueError, match="layer 1 \\(4C3\\) counts to 3"):
        write_nir(more, tmp_path / "no.nir")


def test_neurobench_counts_our_effective_operations():
    pytest.importorskip("neurobench")
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.workload import ClassificationAccuracy, SynapticOperations
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    snn = convert(build_ann("4C3-P2-12", (1, 12, 12), 5, clip=3).eval())
    record = simulate(snn, IMAGES, 6)
    labels = record.predictions[-1]
    loader = DataLoader(TensorDataset(IMAGES, labels), batch_size=2)
    metrics = [[], [ClassificationAccuracy, SynapticOperations]]
    bench = Benchmark(neurobench_model(snn, 6), loader, [], [lambda scores: scores.argmax(1)], metrics)
    found = bench.run(quiet=True)
    traced = simulate(snn, IMAGES, 6, trace=range(len(IMAGES))).traces
    last = traced.spikes[-1].abs().sum((0, 1)).double()  # spikes of each neuron of the last layer
    classifier = float((last * (snn.classifier != 0).sum(0)).sum())
    ours = (record.effective_sops.sum() + classifier) / len(IMAGES)
    assert found["SynapticOperations"]["Effective_ACs"] == pytest.approx(ours)
    assert found["ClassificationAccuracy"] == 1


def test_neurobench_is_not_given_normalised_images(networks):
    module = SpikingModule(networks["chain, k = 1"][1], 3)
    assert torch.equal(module(IMAGES / 255), module(IMAGES))
    with pytest.raises(ValueError, match="images hold values -128…"):
        module(IMAGES / 255 - 0.5)


@pytest.mark.slow
def test_a_bundled_network_goes_through_onnx_runtime(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    ann = load_pretrained("mnist-lenet-k0")
    images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    with pytest.warns(UserWarning, match="counts end with their threshold tables"):
        file = write_onnx(convert(ann), tmp_path / "network.onnx", codes=True)
    _, *counts = onnxruntime.InferenceSession(file).run(None, {"image": images.numpy().astype(np.float32)})
    for count, code in zip(counts, codes(ann, images)[0], strict=True):
        np.testing.assert_array_equal(count, code.numpy())
