"""Figures show the numbers they were given, in one template, with axes that say what they measure."""

from __future__ import annotations

import base64
import inspect
import io
import json
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from networks import random_ann, random_images
from PIL import Image

from ann_snn_utils import figures
from ann_snn_utils.bench.benchmark import newest_file
from ann_snn_utils.figures.look import layer_colors
from ann_snn_utils.hardware.circuit import hardware
from ann_snn_utils.hardware.cost import cost_report
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert

HISTORY = [
    {"epoch": 1, "loss": 2.5, "train_accuracy": 0.25, "accuracy": 0.5},
    {"epoch": 2, "loss": 1.0, "train_accuracy": 0.75},
]
COSTS = {"k = 0": [(2000.0, 0.9)], "k = 1": [(3000.0, 0.8), (4000.0, 0.95)]}
VERDICT = {
    "one": {"rival": {"int8": 4.0, "ternary": 0.5}, "membranes": {"each step": 4.0, "each spike": 2.0}},
    "two": {"rival": {"int8": 2.0, "ternary": 2.0}},
}
CHANGES = [
    {"varies": "clip", "setting": "clip 2", "seed": "0", "T = 2": -1.0, "silence": 0.5},
    {"varies": "clip", "setting": "clip 2", "seed": "1", "T = 2": 1.0, "silence": 0.0},
    {"varies": "clip", "setting": "clip 4", "seed": "0", "T = 2": 30.0, "silence": 0.1},
    {"varies": "k", "setting": "k = 1", "seed": "0", "T = 2": float("nan"), "silence": -0.2},
]

# Their rows are names.
SELF_TOLD = ("setting_effects", "energy_bars", "addition_bars", "speed_dots", "verdict_bars", "break_even_spikes")


def snn(form: str = "exact"):
    return convert(random_ann(3, clip=2), form)


def record():
    return simulate(snn(), random_images(3, (1, 8, 8), samples=4), 6, labels=torch.arange(4) % 3, trace=[0, 2])


def report() -> dict:
    images = random_images(3, (1, 8, 8), samples=4)
    return cost_report(snn(), hardware(snn()), images, simulate(snn(), images))


@pytest.fixture(scope="module")
def all_figures() -> dict[str, go.Figure]:
    run = record()
    layer, names = snn().layers[2], run.layer_names
    mismatches = {"exact": [0] * 4, "published": [1, 2, 0, 4]}
    _, speed = newest_file()
    return {
        "speed_dots": figures.speed_dots(speed["rows"][:6]),
        "cost_curves": figures.cost_curves(speed["sweeps"], 0.02),
        "addition_bars": figures.addition_bars(speed["distance"], speed["limits"]),
        "training_curves": figures.training_curves(HISTORY),
        "weight_histogram": figures.weight_histogram({"a": np.linspace(-1, 1, 99), "b": torch.ones(3, 2)}),
        "activation_staircase": figures.activation_staircase(2, clip=1),
        "sample_images": figures.sample_images(random_images(0, (3, 8, 8), 12), torch.zeros(12), ["x"], 11),
        "kernels": figures.kernels(torch.linspace(-1, 1, 90).reshape(5, 2, 3, 3)),
        "class_pictures": figures.class_pictures(
            random_images(0, (3, 8, 8), 2), torch.linspace(-1, 1, 384).reshape(2, 3, 8, 8), "ab"
        ),
        "count_histogram": figures.count_histogram(run.counts, names),
        "threshold_staircase": figures.threshold_staircase(
            layer, [0, 2], snn("float").layers[2], snn("published").layers[2]
        ),
        "mismatch_bars": figures.mismatch_bars(mismatches, names, run.neurons),
        "bit_widths": figures.bit_widths({"membrane": [17, 9, 9, 8], "count": [3, 2, 2, 2]}, names),
        "accuracy_over_time": figures.accuracy_over_time({"exact": [0.1, 0.9]}, 0.95, run.pending, names),
        "spikes_over_time": figures.spikes_over_time(run),
        "settling_histogram": figures.settling_histogram(run.settled_at, run.time_steps),
        "operations_bars": figures.operations_bars(names, run.sops[0], run.effective_sops[0], [9] * 4),
        "energy_bars": figures.energy_bars({"SNN": {"hidden": 5.0, "encoder": 2.0}, "ANN": {"hidden": 50.0}}),
        "energy_parts": figures.energy_parts(
            ["a", "b"],
            {"weights": np.ones((2, 3)), "arithmetic": np.zeros((2, 3))},
            {"weights": [2, 9]},
            "int8",
            "Where",
        ),
        "verdict_bars": figures.verdict_bars(VERDICT, "int8"),
        "break_even_spikes": figures.break_even_spikes(
            {"carried": 0.3},
            {"this network": 0.5, "costs too much": -0.1},
            {"one": (0.15, 1.38), "two": (1.7, 1.7)},
        ),
        "accuracy_per_energy": figures.accuracy_per_energy(
            {"one": COSTS, "two": COSTS},
            {name: {"k = 0": (1500.0, 0.9), "k = 1": (3500.0, 1.0)} for name in ("one", "two")},
        ),
        "memory_bars": figures.memory_bars(report()),
        "cycles_bars": figures.cycles_bars(report()),
        "break_even": figures.break_even(report()),
        "cost_over_time": figures.cost_over_time([1, 3], [1, 2], [500.0, 900.0], 5, 2000.0, 2),
        "robustness": figures.robustness([0, 0.5], {"T = 2": [0.5, 0.25]}),
        "accuracy_of_settings": figures.accuracy_of_settings({"k=0": [[0.5, 0.9], [0.4, 0.8, 1.0]]}, (2, 0.9)),
        "accuracy_vs_cost": figures.accuracy_vs_cost(COSTS, COSTS),
        "setting_effects": figures.setting_effects(CHANGES),
        "confusion_matrix": figures.confusion_matrix([0, 1, 1], [0, 1, 2], ["a", "b", "c"]),
        "neuron_trace": figures.neuron_trace([1, 5, 2], [0, 1, -1], [3, 6], 0, 3),
    }


PUBLIC = sorted({name for name, value in vars(figures).items() if inspect.isfunction(value)} - {"draw_in_pages"})


def trace_named(figure: go.Figure, name: str):
    (found,) = [trace for trace in figure.data if trace.name == name]
    return found


def test_every_public_function_is_drawn_here(all_figures):
    assert sorted(all_figures) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_figure_renders_to_json_in_the_house_template(all_figures, name):
    figure = all_figures[name]
    layout = json.loads(figure.to_json())["layout"]
    template = layout["template"]["layout"]
    assert template["paper_bgcolor"] == template["modebar"]["bgcolor"] == "rgba(0,0,0,0)"
    assert layout["title"]["text"] and layout["height"] >= 150 and "width" not in layout


@pytest.mark.parametrize("name", PUBLIC)
def test_no_coordinate_is_nan(all_figures, name):
    for trace in all_figures[name].data:
        for axis in ("x", "y"):
            values = getattr(trace, axis, None)
            numbers = [v for v in (values if values is not None else []) if not isinstance(v, (str, type(None)))]
            assert np.isfinite(np.asarray(numbers, dtype=np.float64)).all()


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - {"sample_images", "kernels", "class_pictures"}))
def test_every_axis_with_ticks_has_a_title_in_its_row_or_column(all_figures, name):
    layout = all_figures[name].layout.to_plotly_json()
    for kind in "xy":
        axes = [v for k, v in layout.items() if k.startswith(f"{kind}axis") and v.get("showticklabels", True)]
        titles = [axis["title"]["text"] for axis in axes if axis.get("title", {}).get("text")]
        named = kind == "y" and name in SELF_TOLD
        assert titles or not axes or named, "only categories say themselves what they are"


def test_training_curves_show_loss_and_percent_and_skip_epochs_without_validation():
    figure = figures.training_curves(HISTORY)
    assert list(trace_named(figure, "training loss").y) == [2.5, 1.0]
    assert list(trace_named(figure, "training accuracy").y) == [25.0, 75.0]
    assert list(trace_named(figure, "validation accuracy").x) == [1]
    with pytest.raises(ValueError, match="history is empty"):
        figures.training_curves([])


def test_weight_histogram_gives_the_share_of_each_ternary_value():
    # mean |w| = 1, so the threshold is 0.7: one of five becomes −1, three become 0, one becomes +1.
    figure = figures.weight_histogram({"layer": np.array([-2.0, 0.5, 0.5, 0.0, 2.0])})
    assert figure.layout.annotations[0].text == "layer: 20 / 60 / 20 %"
    for name, total in (("−1", 20), ("0", 60), ("+1", 20)):
        assert sum(trace_named(figure, name).y) == pytest.approx(total)


def test_activation_staircase_jumps_at_half_steps_up_to_the_clip():
    figure = figures.activation_staircase(1, clip=1)
    stairs = trace_named(figure, "k = 1: steps of 1/2")
    assert list(stairs.x) == [-1, 0.25, 0.25, 0.75, 0.75, 2]
    assert list(stairs.y) == [0, 0, 0.5, 0.5, 1, 1]


def test_sample_images_hold_the_pixels_and_the_class_names():
    images = random_images(1, (1, 6, 6), 3)
    figure = figures.sample_images(images, [2, 0, 1], ["zero", "one", "two"], n=2)
    assert [note.text for note in figure.layout.annotations] == ["two", "zero"]
    png = base64.b64decode(figure.data[0].source.split(",")[1])
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    assert np.array_equal(sheet[:6, :6, 0], images[0, 0].numpy())
    assert np.array_equal(sheet[:6, 7:13, 2], images[1, 0].numpy())


def test_threshold_staircase_counts_the_thresholds_that_the_membrane_has_reached():
    layer = snn().layers[2]
    figure = figures.threshold_staircase(layer, [1])
    x, y = (np.asarray(v) for v in (figure.data[0].x, figure.data[0].y))
    table = layer.thresholds[1].numpy()
    for u in range(int(x[0]), int(x[-1]) + 1):
        assert y[x <= u][-1] == (table <= u).sum()


def test_threshold_staircase_begins_with_the_least_count_and_jumps_up_to_its_right_end():
    layer = snn().layers[2]
    # Without a ReLU, thresholds are those of the counts from −1 on; the seventh lies within the window of six.
    table = torch.arange(-3, 6).expand(len(layer.thresholds), -1)
    reach = dict(lowest=torch.full_like(layer.lowest, -9), highest=torch.full_like(layer.highest, 9))
    layer = replace(layer, spec=replace(layer.spec, lowest=-2), thresholds=table, **reach)
    stairs, diamonds = figures.threshold_staircase(layer, [0], replace(layer, thresholds=table + 0.5)).data
    x, y = np.asarray(stairs.x), np.asarray(stairs.y)
    assert [y[x <= u][-1] for u in (-5, -3, 0, 3, 4)] == [-2, -1, 2, 5, 6]
    assert dict(zip(diamonds.x, diamonds.y, strict=True))[-2.5] == -1.5


def test_mismatch_bars_are_percent_of_the_codes():
    bars = figures.mismatch_bars({"published": [0, 5]}, ["3C3", "3C3"], [10, 40]).data[0]
    assert list(bars.x) == ["0 · 3C3", "1 · 3C3"] and list(bars.y) == [0.0, 12.5]


def test_bit_widths_are_the_bits():
    figure = figures.bit_widths({"membrane": [17, 9]}, ["a", "b"])
    assert list(figure.data[0].y) == [17, 9] and list(figure.data[0].text) == ["17", "9"]


def test_accuracy_is_in_percent_beside_the_ann_and_the_pending_neurons():
    pending = np.array([[5, 3], [1, 0]])
    figure = figures.accuracy_over_time({"exact": [0.5, 0.75]}, 0.8, pending, ["a", "b"])
    assert list(trace_named(figure, "exact").x) == [1, 2]
    assert list(trace_named(figure, "exact").y) == [50, 75]
    assert list(trace_named(figure, "quantized ANN").y) == [80, 80]
    assert list(trace_named(figure, "0 · a").y) == [5, 1] and list(trace_named(figure, "1 · b").y) == [3, 0]
    assert figure.layout.yaxis.range[0] <= 48


def test_of_curves_that_coincide_the_one_below_is_wider():
    figure = figures.accuracy_over_time({name: [0.5, 0.75] for name in ("exact", "published", "float")})
    widths = [trace_named(figure, name).line.width for name in ("exact", "published", "float")]
    assert widths == sorted(set(widths), reverse=True)


def test_spikes_over_time_draw_negative_spikes_below_zero_per_image():
    run = record()
    figure = figures.spikes_over_time(run)
    depth = len(run.layer_names)
    for layer in range(depth):
        assert np.array_equal(figure.data[layer].y, run.positive[:, layer] / 4)
        assert np.array_equal(figure.data[depth + layer].y, -run.negative[:, layer] / 4)


def test_settling_histogram_counts_samples_and_those_not_yet_silent():
    figure = figures.settling_histogram([2, 2, 0, 4], 4)
    assert list(figure.data[0].y) == [0, 2, 0, 1] and list(figure.data[1].y) == [1]
    assert list(figure.data[0].customdata) == [0, 50, 50, 75]


def test_settling_histogram_of_the_first_steps_counts_those_that_settle_later_as_active():
    figure = figures.settling_histogram([2, 9, 0, 4], 4)
    assert list(figure.data[0].y) == [0, 1, 0, 1] and list(figure.data[1].y) == [2]


def test_settling_histogram_has_no_room_for_later_where_all_samples_settle():
    figure = figures.settling_histogram([1, 2], 2)
    assert len(figure.data) == 1 and list(figure.layout.xaxis.ticktext) == ["1", "2"]


def test_a_networks_own_curve_of_accuracy_and_energy_is_drawn_above_all_others():
    curves = {"model": {"mine": [(1.0, 0.5)], "other": [(2.0, 0.6)]}}
    figure = figures.accuracy_per_energy(curves, {"model": {"mine": (1.0, 0.5), "other": (2.0, 0.6)}}, own="mine")
    lines = [trace for trace in figure.data if trace.line.width]
    assert [line.name for line in lines] == ["other", "mine"] and lines[1].line.width > lines[0].line.width


def test_operations_and_energy_bars_hold_the_numbers_in_a_readable_unit():
    bars = figures.operations_bars(["a", "b"], [0, 3], [0, 2], [7, 9])
    assert [list(trace.y) for trace in bars.data] == [[7, 9], [0, 3], [0, 2]]
    energy = figures.energy_bars({"SNN": {"hidden": 500.0}, "ANN": {"hidden": 4000.0, "encoder": 1000.0}})
    assert dict(zip(energy.data[0].y, energy.data[0].x, strict=True)) == {"SNN": 0.5, "ANN": 4.0}
    assert "nJ" in energy.layout.xaxis.title.text
    assert list(energy.data[-1].text) == [" 5 nJ", " 0.5 nJ"]


def test_the_bars_of_memory_and_cycles_hold_the_report():
    costs = report()
    memory = {trace.name: list(trace.y) for trace in figures.memory_bars(costs).data}
    assert memory["weights"][0] * 1000 == pytest.approx(costs["layers"][0]["memory_bits"]["weights"])
    assert len(memory["int8 ANN"]) == len(costs["layers"]) + 1
    cycles = {trace.name: list(trace.y) for trace in figures.cycles_bars(costs).data}
    assert cycles["worst case"] == [layer["cycles"]["worst_case"] for layer in costs["layers"]]


def test_the_lines_of_energy_meet_at_the_break_even():
    costs = report()
    drawn = {trace.name: trace for trace in figures.break_even(costs).data}
    (start, end), (low, high) = drawn["SNN, were every step as busy"].x, drawn["SNN, were every step as busy"].y
    steps = costs["energy"][0]["ann_int8"]["break_even_steps"]
    assert low + (high - low) * (steps - start) / (end - start) == pytest.approx(drawn["int8 ANN"].y[0])


def test_cost_over_time_shows_operations_and_nanojoules_beside_the_anns():
    figure = figures.cost_over_time([10, 30], [5, 20], [1000.0, 1500.0], 50, 4000.0, step=2)
    assert list(trace_named(figure, "synaptic operations").y) == [10, 30]
    assert list(trace_named(figure, "… with a weight other than 0").y) == [5, 20]
    assert list(trace_named(figure, "energy").y) == [1.0, 1.5]
    assert list(trace_named(figure, "ANN's multiply–accumulates, hidden layers").y) == [50, 50]
    assert list(trace_named(figure, "int8 ANN's energy").y) == [4, 4]
    assert [(mark.name, mark.x0, mark.x1, mark.xref) for mark in figure.layout.shapes] == [
        ("step", 2, 2, "x"),
        ("step", 2, 2, "x2"),
    ]


def test_robustness_draws_a_line_for_each_name():
    figure = figures.robustness([0, 0.2], {"T = 2": [0.9, 0.5], "T = 4": [1, 0.8]}, "spikes lost")
    assert list(trace_named(figure, "T = 4").y) == [100, 80] and list(figure.data[0].x) == [0, 0.2]
    assert figure.layout.xaxis.title.text == "spikes lost"


def test_the_front_leaves_out_points_that_another_beats_in_both():
    figure = figures.accuracy_vs_cost(COSTS, COSTS)
    energy, sops = (trace for trace in figure.data if str(trace.name).startswith("no other is better for its"))
    assert list(energy.x) == [2, 4] and list(energy.y) == pytest.approx([10, 5])
    assert list(sops.x) == [0.002, 0.004] and energy.showlegend and not sops.showlegend
    assert [list(trace.x) for trace in figure.data if trace.name == "k = 1"] == [[3, 4], [0.003, 0.004]]


def test_a_network_that_never_fires_has_its_place_beside_no_operations():
    figure = figures.accuracy_vs_cost({"mute": [(5.0, 0.1), (6.0, 0.1)]}, {"mute": [(0.0, 0.1), (0.0, 0.1)]})
    assert [list(trace.x) for trace in figure.data if trace.name == "mute"] == [[5, 6], [0, 0]]


def test_five_settings_are_in_colour_and_the_others_grey():
    curves = {f"k = {k}": [[0.1 * k, 0.9]] for k in range(7)}
    figure = figures.accuracy_of_settings(curves, coloured=["k = 6", "k = 5", "k = 4", "k = 3", "k = 2", "k = 1"])
    assert [note.text for note in figure.layout.annotations] == [f"k = {k}" for k in (6, 5, 4, 3, 2)]
    colours = {trace.name: trace.line.color for trace in figure.data}
    assert colours["k = 0"] == colours["k = 1"] and len(set(colours.values())) == 6
    beside = figures.accuracy_vs_cost({name: [(1, 0.5)] for name in curves}, {}, coloured=["k = 6", "k = 5"])
    assert trace_named(beside, "k = 6").line.color == colours["k = 6"]


def test_names_of_lines_that_begin_together_do_not_touch():
    figure = figures.accuracy_of_settings({f"k = {k}": [[0.5, 0.9]] for k in range(4)})
    low, high = sorted(figure.layout.yaxis.range)
    places = [(note.y - low) / (high - low) * (figure.layout.height - 96) for note in figure.layout.annotations]
    assert all(below - above >= 16.9 for above, below in zip(places, places[1:], strict=False))


def test_effects_are_a_point_for_each_run_and_their_mean_spread_out_around_zero():
    figure = figures.setting_effects(CHANGES)
    points = [trace for trace in figure.data if trace.name == "clip"]
    assert [[change for _, change in trace.customdata] for trace in points] == [[-1.0, 1.0, 30.0], [0.5, 0.0, 0.1]]
    assert list(points[0].y) == ["clip 2", "clip 2", "clip 4"] and points[0].x[0] == -points[0].x[1]
    means = [trace for trace in figure.data if trace.name == "mean of clip"]
    assert list(means[0].customdata) == [0.0, 30.0] and list(means[1].customdata) == [0.25, 0.1]
    (nothing,) = (trace for trace in figure.data if trace.name == "k" and trace.xaxis == "x")
    assert list(nothing.x) == [], "a run that did not record a step has no point there"


def test_settings_are_lines_of_means_over_runs_that_keep_what_they_settled_on():
    figure = figures.accuracy_of_settings({"k=0": [[0.5, 0.9], [0.4, 0.8, 1.0]], "k=1": [[0.7]]}, (2, 0.95))
    assert list(trace_named(figure, "k=0").customdata) == pytest.approx([45, 85, 95])
    assert list(trace_named(figure, "k=0").y) == pytest.approx([55, 15, 5])
    assert list(trace_named(figure, "k=1").customdata) == pytest.approx([70] * 3)
    assert list(trace_named(figure, "published").x) == [2] and trace_named(figure, "published").customdata[0] == 95


def test_accuracy_over_time_takes_one_setting_at_least():
    with pytest.raises(ValueError, match="those of one setting at least"):
        figures.accuracy_of_settings({})


def test_an_axis_of_errors_shows_accuracies_with_the_best_on_top():
    figure = figures.accuracy_of_settings({"k=0": [[0.5, 1.0]]})
    axis = figure.layout.yaxis
    assert axis.type == "log" and axis.range[0] > axis.range[1]
    assert dict(zip(axis.tickvals, axis.ticktext, strict=True))[1] == "99 %"
    assert min(trace_named(figure, "k=0").y) > 0, "no error has its place on the axis too"


@pytest.mark.parametrize("height", [270, 340, 600])
@pytest.mark.parametrize("worst", [0.1, 0.95, 0.995])
def test_ticks_of_errors_leave_room_for_their_words(worst, height):
    figure = figures.accuracy_of_settings({"k=0": [[worst, 1.0]]}, height=height)
    axis, margin = figure.layout.yaxis, figure.layout.margin
    pixel = (axis.range[0] - axis.range[1]) / (height - margin.t - margin.b)
    places = np.log10(axis.tickvals) / pixel
    assert np.diff(places).min() >= 17, "a line of text is 17 pixels high"


def test_the_axis_reaches_to_the_published_step_and_settled_runs_with_it():
    figure = figures.accuracy_of_settings({"k=0": [[0.5, 0.9]]}, (4, 0.9))
    assert list(figure.data[0].x) == [1, 2, 3, 4] and 10 ** figure.layout.xaxis.range[1] > 4


def test_long_names_of_settings_take_lines_rather_than_the_width_of_the_figure():
    name = "6 + 20 epochs, 2 levels, clip 2, label smoothing 0.1"
    (note,) = figures.accuracy_of_settings({name: [[0.5]]}).layout.annotations
    assert note.text == "6 + 20 epochs, 2 levels,<br>clip 2, label smoothing 0.1"


def neuron(**arguments) -> go.Figure:
    # Counts: 0, 1, 2, 1; the membrane falls below θ_2 = 6 in the last step.
    return figures.neuron_trace([1, 5, 7, 5], [0, 1, 1, -1], [3, 6], 1, 4, **arguments)


def test_the_thresholds_of_counts_that_go_below_0_begin_with_the_least_count():
    figure = figures.neuron_trace([-5, 4], [-1, 1], [-8, -3, 2, 6], lowest=-2)
    upper = trace_named(figure, "θ<sub>n+1</sub>: +1 from here")
    lower = trace_named(figure, "θ<sub>n</sub>: −1 below")
    # θ_{−1} … θ_2; the counts before are 0 and −1.
    assert list(upper.y) == [2, 2, -3, -3] and list(lower.y) == [-3, -3, -8, -8]


def test_the_thresholds_stand_around_the_count_that_the_neuron_had_before_the_step():
    figure = neuron()
    upper = trace_named(figure, "θ<sub>n+1</sub>: +1 from here")
    lower = trace_named(figure, "θ<sub>n</sub>: −1 below")
    assert list(upper.x) == [0.5, 1.5, 1.5, 2.5, 2.5, 3.5, 3.5, 4.5]
    assert list(upper.y) == [3, 3, 3, 3, 6, 6, None, None]
    assert list(lower.y) == [None, None, None, None, 3, 3, 6, 6]


def test_spikes_and_count_stand_at_their_steps_beside_the_code_and_the_silence():
    figure = neuron()
    assert list(trace_named(figure, "membrane U").y) == [1, 5, 7, 5]
    assert list(trace_named(figure, "spike +1").x) == [2, 3] and list(trace_named(figure, "spike −1").x) == [4]
    assert list(trace_named(figure, "count n").y) == [0, 1, 2, 1]
    assert list(trace_named(figure, "ANN's code").y) == [1, 1]
    assert not len(trace_named(figure, "sample silent").x), "no step without a spike was seen yet"


def test_the_star_marks_the_first_silent_step_not_the_last_spike():
    figure = figures.neuron_trace([1, 5, 7, 5, 5], [0, 1, 1, -1, 0], [3, 6], 1, settled_at=4)
    assert list(trace_named(figure, "sample silent").x) == [5] and list(trace_named(figure, "spike −1").x) == [4]


def test_the_encoders_threshold_climbs_by_itself_and_ends_with_its_table():
    figure = figures.neuron_trace([5, 5, 5], [1, 0, 0], [3, 6], encoder=True)
    assert list(trace_named(figure, "θ<sub>t</sub>: climbs").y) == [3, 3, 6, 6, None, None]
    assert set(trace_named(figure, "θ<sub>n</sub>: −1 below").y) == {None}


def test_a_threshold_that_is_never_reached_does_not_flatten_the_membrane():
    figure = figures.neuron_trace([1, 5, 2], [0, 0, 0], [10**6])
    assert figure.layout.yaxis.range[1] < 20


def test_the_confusion_matrix_counts_every_pair_and_colours_errors_only():
    figure = figures.confusion_matrix([0, 1, 1, 2], [0, 2, 2, 2], ["a", "b", "c"], "Answers at step 3")
    assert figure.data[0].customdata.tolist() == [[1, 0, 0], [0, 0, 2], [0, 0, 1]]
    assert figure.data[0].z.tolist() == [[0, 0, 0], [0, 0, 2], [0, 0, 0]]
    assert figure.layout.title.text == "Answers at step 3: 2 of 4 off the diagonal"


def test_a_form_of_thresholds_has_one_colour_in_every_figure_and_in_any_order():
    net = snn()
    bars = figures.mismatch_bars({"float": [1], "published": [2], "exact": [0]}, ["a"], [9])
    curves = figures.accuracy_over_time({"published": [0.5], "float": [0.5], "exact": [0.5]})
    colours = {trace.name: trace.marker.color for trace in bars.data}
    assert len(set(colours.values())) == 3
    assert {trace.name: trace.line.color for trace in curves.data if trace.name in colours} == colours
    stairs = figures.threshold_staircase(net.layers[2], [0], published=snn("published").layers[2])
    assert stairs.data[0].line.color == colours["exact"] and stairs.data[1].line.color == colours["published"]


def test_a_verdict_spans_from_the_least_to_the_greatest_answer_and_names_both(all_figures):
    figure = all_figures["verdict_bars"]
    bars = [trace for trace in figure.data if trace.line.width == 9]
    assert [list(bar.x) for bar in bars] == [[0.5, 4.0], [2.0, 4.0], [2.0, 2.0]]
    assert [note.text.strip() for note in figure.layout.annotations] == [
        "ternary",
        "int8",
        "each spike",
        "each step",
        "makes no difference",
    ]
    own = [trace.x[0] for trace in figure.data if trace.line.dash == "dot"]
    assert own == [4.0, 2.0], "the model's own answers save the same whatever is asked"


def test_energy_is_told_in_one_unit_by_layer_and_by_step():
    spiking = {"weights": np.full((2, 3), 500.0), "membranes": np.full((2, 3), 100.0)}
    figure = figures.energy_parts(["a", "b"], spiking, {"weights": np.array([1000.0, 2000.0])}, "int8", "Where")
    by_layer, by_step, rival = figure.data[:3]
    assert list(by_layer.y) == [1.5, 1.5] and list(by_step.y) == [1.0, 1.0, 1.0] and list(rival.y) == [1.0, 2.0]
    assert by_layer.x[0] == "0 · a" and "nJ" in figure.layout.yaxis.title.text


def test_spikes_that_no_network_could_afford_have_no_place_on_the_axis(all_figures):
    figure = all_figures["break_even_spikes"]
    assert not any(trace.name == "costs too much" for trace in figure.data)
    assert list(trace_named(figure, "carried").x) == [0.3] * 4


def test_an_axis_that_starts_at_zero_stays_where_it_is():
    low, high = (
        figures.accuracy_over_time({"a": [share]}, from_zero=True).layout.yaxis.range for share in (0.3, 0.99)
    )
    assert low == high == (0, 104)


@pytest.mark.parametrize("layers", [1, 7, 8, 21])
def test_every_layer_of_a_deep_network_has_a_colour_of_its_own(layers):
    assert len(set(layer_colors(layers))) == layers
