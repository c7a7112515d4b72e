"""Every control is wired: after it moves, the live figures hold what the package's functions say."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from networks import random_ann, random_images
from toy_notebooks import write_notebook

from ann_snn_utils import explore, figures
from ann_snn_utils.ann.reference import codes
from ann_snn_utils.data.dataset import Dataset
from ann_snn_utils.explore import chooser
from ann_snn_utils.measure.equivalence import compare_forms, requantize
from ann_snn_utils.measure.trial import Setting, run_trial
from ann_snn_utils.runs.gallery import Network
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert

pytestmark = pytest.mark.slow

STEPS = 6


@pytest.fixture(autouse=True)
def reader(monkeypatch):
    monkeypatch.delenv("PLOTLY_RENDERER", raising=False)


def network(seed: int = 3) -> Network:
    ann = random_ann(seed, clip=2)
    samples = Dataset("random", "test", random_images(3, (1, 8, 8), 12), torch.arange(12) % 3, ("a", "b", "c"))
    return Network(f"net{seed}", ann, convert(ann), samples)


def same(live: go.Figure, expected: go.Figure) -> None:
    """The live figure shows what a figure made anew shows: every trace, and what the axes and titles say."""
    for one, other in zip(live.data, expected.data, strict=True):
        for name in ("x", "y", "z", "text", "customdata", "hovertemplate", "name"):
            left, right = getattr(one, name, None), getattr(other, name, None)
            left, right = ([] if value is None else value for value in (left, right))
            if len(right) and np.asarray(right).dtype.kind in "iuf":
                assert np.array_equal(np.asarray(left, float), np.asarray(right, float), equal_nan=True), name
            elif name in ("text", "hovertemplate", "name"):
                assert str(left) == str(right), name
            else:
                assert list(np.asarray(left, object).ravel()) == list(np.asarray(right, object).ravel()), name
    for path in ("title.text", "xaxis.range", "yaxis.range", "yaxis2.range", "xaxis.title.text"):
        axis = path.split(".")[0]
        if axis in expected.layout:
            assert live.layout[path] == expected.layout[path], path
    texts = [note.text for note in expected.layout.annotations]
    assert [note.text for note in live.layout.annotations] == texts


class TestMicroscope:
    def expected(self, net: Network, sample: int, layer: int, place: tuple[int, int, int], step: int):
        run = simulate(net.snn, net.samples.images[sample][None], STEPS, trace=[0])
        channel, row, column = place
        code = codes(net.ann, net.samples.images[sample][None])[0][layer][0]
        name = f"{layer} · {net.snn.layers[layer].name}"
        at = (slice(None), 0, channel, row, column)
        neuron = figures.neuron_trace(
            run.traces.membranes[layer][at],
            run.traces.spikes[layer][at],
            net.snn.layers[layer].thresholds[channel],
            int(code[place]),
            int(run.settled_at[0]),
            step,
            encoder=layer == 0,
            name=f"sample {sample}, layer {name}, channel {channel}, ({row}, {column})",
        )
        counts = run.traces.spikes[layer][:step, 0].sum(0)
        return neuron, figures.layer_map(net.samples.images[sample], counts, place, name, step)

    def check(self, net, shown, *setting):
        neuron, layer_map = self.expected(net, *setting)
        same(shown.figures["neuron"], neuron)
        same(shown.figures["map"], layer_map)

    def test_it_opens_on_the_liveliest_neuron_of_the_first_hidden_layer(self):
        net = network()
        shown = explore.neuron_microscope(net.snn, net.samples, net.ann, STEPS)
        place = tuple(shown.controls[name].value for name in ("channel", "row", "column"))
        spikes = simulate(net.snn, net.samples.images[:1], STEPS, trace=[0]).traces.spikes[1][:, 0]
        lively = ((spikes != 0) + 3 * (spikes < 0)).sum(0)
        assert lively[place] == lively.max()
        self.check(net, shown, 0, 1, place, STEPS)

    def test_every_control_moves_the_figures(self):
        net = network()
        shown = explore.neuron_microscope(net.snn, net.samples, net.ann, STEPS)
        controls = shown.controls
        controls["sample"].value = 5
        controls["layer"].value = 2
        for name, value in (("channel", 3), ("row", 1), ("column", 0), ("step", 3)):
            controls[name].value = value
            place = tuple(controls[n].value for n in ("channel", "row", "column"))
            self.check(net, shown, 5, 2, place, controls["step"].value)
        controls["layer"].value = 0
        place = tuple(controls[n].value for n in ("channel", "row", "column"))
        self.check(net, shown, 5, 0, place, 3)
        assert controls["row"].max == net.snn.layers[0].spec.out_shape[1] - 1

    def test_a_click_on_the_map_chooses_the_neuron_and_one_between_channels_does_not(self):
        net = network()
        shown = explore.neuron_microscope(net.snn, net.samples, net.ann, STEPS)
        shape = net.snn.layers[1].spec.out_shape
        trace = shown.figures["map"].data[1]
        points = type("Points", (), {"point_inds": [figures.mosaic_cell((2, 1, 0), shape)]})
        for callback in trace._click_callbacks:
            callback(trace, points, None)
        assert [shown.controls[n].value for n in ("channel", "row", "column")] == [2, 1, 0]
        self.check(net, shown, 0, 1, (2, 1, 0), STEPS)
        between = type("Points", (), {"point_inds": [(shape[1], 0)]})
        for callback in trace._click_callbacks:
            callback(trace, between, None)
        assert [shown.controls[n].value for n in ("channel", "row", "column")] == [2, 1, 0]

    def test_without_the_ann_no_code_is_drawn(self):
        net = network()
        shown = explore.neuron_microscope(net.snn, net.samples, time_steps=STEPS)
        (code,) = [trace for trace in shown.figures["neuron"].data if trace.name == "ANN's code"]
        assert len(code.y) == 0


class TestNetworkOverTime:
    @pytest.mark.parametrize(("sample", "step", "show"), [(0, 1, "spikes"), (4, 5, "spikes"), (7, 6, "counts")])
    def test_figures_show_the_run_of_the_sample_at_the_step(self, sample, step, show):
        net = network()
        shown = explore.network_over_time(net.snn, net.samples, net.ann, STEPS)
        for name, value in (("sample", sample), ("step", step), ("show", show)):
            shown.controls[name].value = value
        run = simulate(net.snn, net.samples.images[sample][None], STEPS, trace=[0])
        names = run.layer_names
        same(shown.figures["maps"], figures.spike_maps(run.traces, names, step, show=show))
        same(shown.figures["raster"], figures.raster(run.traces, names, step=step))
        label = int(net.samples.labels[sample])
        same(shown.figures["scores"], figures.class_scores(run.logits[step - 1, 0], ("a", "b", "c"), label, step))

    def test_moving_in_time_runs_nothing_again(self, monkeypatch):
        net = network()
        shown = explore.network_over_time(net.snn, net.samples, net.ann, STEPS)
        monkeypatch.setattr("ann_snn_utils.explore.network_view.simulate", None)
        for step in range(1, STEPS + 1):
            shown.controls["step"].value = step


class TestAccuracyLab:
    def check(self, net: Network, shown: explore.Explorer, setting: Setting, step: int):
        found, plain = (
            run_trial(net.snn, net.samples, s, STEPS)
            for s in (setting, Setting(setting.samples, seed=setting.seed))
        )
        _, logits = codes(net.ann, net.samples.images[: setting.samples])
        right = (logits.argmax(1) == net.samples.labels[: setting.samples]).double().mean()
        curves = {"undisturbed": plain.accuracy, "this setting": found.accuracy}
        same(shown.figures["accuracy"], figures.accuracy_over_time(curves, float(right), step=step))
        spent = (found.sops, found.effective_sops, found.energy)
        macs = shown.figures["cost"].data[3].y[0]
        same(shown.figures["cost"], figures.cost_over_time(*spent, macs, found.ann_energy, step))
        same(shown.figures["spikes"], figures.spikes_over_time(found.record))

    def lab(self, net: Network) -> explore.Explorer:
        return explore.accuracy_lab(net.snn, net.samples, net.ann, net.name, size=8, time_steps=STEPS, seed=3)

    @pytest.mark.parametrize(
        ("moves", "setting"),
        [
            ({}, {}),
            ({"step": 2}, {}),
            ({"scale": 1.2}, {"threshold_scale": 1.2}),
            ({"noise": 0.8}, {"noise_ratio": 0.8}),
            ({"fault": "flip", "rate": 0.1}, {"fault": "flip", "fault_rate": 0.1}),
            ({"per_layer": True, "layer 1": 0.7}, {"threshold_scale": (1.0, 0.7, 1.0, 1.0)}),
            ({"size": 12, "scale": 0.9}, {"samples": 12, "threshold_scale": 0.9}),
        ],
    )
    def test_figures_show_the_trial_of_the_setting(self, moves, setting):
        net = network()
        shown = self.lab(net)
        for name, value in moves.items():
            shown.controls[name].value = value
        self.check(net, shown, Setting(**{"samples": 8, "seed": 3} | setting), moves.get("step", STEPS))

    def test_zero_samples_are_all_of_them(self):
        net = network()
        shown = explore.accuracy_lab(net.snn, net.samples, size=0, time_steps=STEPS)
        assert shown.controls["size"].value == len(net.samples)

    def test_reset_goes_back_to_the_undisturbed_network(self):
        net = network()
        shown = self.lab(net)
        for name, value in {"per_layer": True, "layer 2": 0.6, "noise": 1.0, "step": 2, "size": 12}.items():
            shown.controls[name].value = value
        shown.controls["reset"].click()
        self.check(net, shown, Setting(8, seed=3), STEPS)
        assert not shown.controls["per_layer"].value and shown.controls["layer 2"].value == 1

    def test_the_time_step_slider_runs_nothing_again(self, monkeypatch):
        shown = self.lab(network())
        monkeypatch.setattr("ann_snn_utils.explore.lab.run_trial", None)
        shown.controls["step"].value = 1

    def test_the_command_on_the_page_is_that_of_the_setting(self):
        shown = self.lab(network())
        shown.controls["noise"].value, shown.controls["step"].value = 0.4, 3
        (text,) = [text for text in _words(shown) if "papermill" in text]
        line = text.split("<code>")[1].split("</code>")[0]
        assert line == Setting(8, noise_ratio=0.4, seed=3).command("net3", 3) and shlex.split(line)

    def test_a_setting_that_cannot_run_says_why(self, monkeypatch):
        shown = self.lab(network())

        def broken(*arguments):
            raise ValueError("convert the network with max_levels=9")

        monkeypatch.setattr("ann_snn_utils.explore.lab.run_trial", broken)
        shown.controls["scale"].value = 0.5
        assert any("max_levels=9" in text for text in _words(shown))


class TestConversionBench:
    @pytest.mark.parametrize("moves", [{}, {"k": 1}, {"levels": 2}, {"clip": 0}, {"size": 12}])
    def test_figures_compare_the_three_forms(self, moves):
        net = network()
        shown = explore.conversion_bench(net.ann, net.samples, size=8, time_steps=STEPS)
        for name, value in moves.items():
            shown.controls[name].value = value
        k, levels, clip, size = (shown.controls[name].value for name in ("k", "levels", "clip", "size"))
        samples = net.samples.subset(range(size))
        found = compare_forms(requantize(net.ann, k, levels, clip or None), samples, STEPS)
        bars = figures.mismatch_bars(found.mismatches, found.layer_names, found.compared)
        same(shown.figures["mismatches"], bars)
        same(shown.figures["accuracy"], figures.accuracy_over_time(found.accuracy, found.ann_accuracy))
        for trace, bits in zip(shown.figures["bits"].data, found.fractional_bits.values(), strict=True):
            assert list(trace.y) == bits


EXPLORERS = {
    "microscope": lambda net: explore.neuron_microscope(net.snn, net.samples, net.ann, STEPS),
    "network": lambda net: explore.network_over_time(net.snn, net.samples, net.ann, STEPS),
    "lab": lambda net: explore.accuracy_lab(net.snn, net.samples, net.ann, net.name, 8, STEPS),
    "bench": lambda net: explore.conversion_bench(net.ann, net.samples, 8, STEPS),
}


@pytest.mark.parametrize("name", EXPLORERS)
def test_headless_an_explorer_is_a_caption_and_plain_figures_without_any_widget(name, monkeypatch, capsys):
    import ipywidgets

    monkeypatch.setenv("PLOTLY_RENDERER", "json")
    before = len(ipywidgets.widget._instances)
    shown = EXPLORERS[name](network())
    assert shown.box is None and shown.caption and len(ipywidgets.widget._instances) == before
    assert all(type(figure) is go.Figure for figure in shown.figures.values())
    displayed = []
    monkeypatch.setattr("IPython.display.display", displayed.append)
    shown._ipython_display_()
    assert shown.caption in displayed[0].data and "make lab" in displayed[0].data
    assert displayed[1:] == list(shown.figures.values())


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_control_has_a_name_and_a_line_of_help(name):
    shown = EXPLORERS[name](network())
    for control in shown.controls.values():
        assert control.description
    text = json.dumps([w.get_state().get("value", "") for w in _all_widgets(shown.box)], default=str)
    helped = [c for n, c in shown.controls.items() if not n.startswith("layer ")]
    assert text.count('class=\\"snn-help') == len(helped)


def test_all_explorers_together_bring_one_copy_of_plotly():
    widgets = {w.model_id: w for make in EXPLORERS.values() for w in _all_widgets(make(network()).box)}
    code = [name for w in widgets.values() for name, value in w.get_state().items() if len(str(value)) > 1e6]
    assert code == ["source"] and sum(isinstance(w, go.FigureWidget) for w in widgets.values()) == 11


def _words(shown: explore.Explorer) -> list[str]:
    return [str(w.value) for w in _all_widgets(shown.box) if hasattr(w, "value")]


def _all_widgets(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _all_widgets(child)


def test_a_program_that_executes_the_notebook_gets_still_figures(monkeypatch):
    def shell(allow_stdin):
        parent = {"content": {"allow_stdin": allow_stdin}}
        return type("Shell", (), {"kernel": type("Kernel", (), {"get_parent": lambda self, _: parent})()})()

    monkeypatch.setattr("IPython.get_ipython", lambda: shell(False))
    assert not explore.live()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell(True))
    assert explore.live()
    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype")
    assert not explore.live()


@pytest.mark.slow
def test_the_page_that_nbconvert_makes_of_a_notebook_has_its_figures(tmp_path):
    shown = "figures.training_curves([{'epoch': 1, 'loss': 1.0, 'train_accuracy': 0.5}])"
    code = f"from ann_snn_utils import figures\n{shown}"
    notebook = write_notebook(tmp_path / "01_x.ipynb", "run = ''", code)
    environment = {name: value for name, value in os.environ.items() if name != "PLOTLY_RENDERER"}
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--execute", notebook, "--output-dir", tmp_path]
    subprocess.run(command, env=environment | {"PYTHONPATH": os.getcwd()}, check=True, capture_output=True)
    page = (tmp_path / "01_x.html").read_text(encoding="utf-8")
    assert page.count("Plotly.newPlot(") == 1 and "plotly.js v" in page


class TestNetworks:
    @pytest.fixture
    def chosen(self, monkeypatch):
        monkeypatch.setattr(chooser, "network_names", lambda: ["net3", "net4", "broken"])

        def opened(name=""):
            if name == "broken":
                raise FileNotFoundError("broken/snn.safetensors is missing: notebook 03_convert makes it")
            return network(int((name or "net3")[3:]))

        monkeypatch.setattr(chooser, "open_network", opened)
        return explore.networks()

    def test_explorers_follow_the_drop_down(self, chosen):
        built = []
        shown = chosen.show(lambda net: built.append(net.name) or EXPLORERS["network"](net))
        before = shown.box.children
        chosen.control.value = "net4"
        assert built == ["net3", "net4"] and shown.box.children != before and chosen.current.name == "net4"

    def test_a_network_that_cannot_be_opened_is_named_and_the_old_one_stays(self, chosen):
        shown = chosen.show(EXPLORERS["network"])
        before = shown.box.children
        chosen.control.value = "broken"
        assert "03_convert makes it" in chosen.line.value
        assert shown.box.children == before and chosen.current.name == "net3"
