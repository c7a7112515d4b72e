"""Explorers answer every setting with what the package's functions say, and stand on a page by themselves."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import zlib

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from networks import random_ann, random_images
from PIL import Image
from toy_notebooks import write_notebook

from ann_snn_utils import explore, figures
from ann_snn_utils.ann.graph import Branch, Node, graph_text
from ann_snn_utils.ann.reference import codes, predict
from ann_snn_utils.data.dataset import Dataset, load_dataset
from ann_snn_utils.explore import chooser
from ann_snn_utils.explore.images import own_image
from ann_snn_utils.explore.page import Explorer, Line, packed, remembered
from ann_snn_utils.explore.sample import unused
from ann_snn_utils.explore.trials import described
from ann_snn_utils.measure.equivalence import adder_bits, compare_forms, requantize
from ann_snn_utils.measure.trial import Setting, run_trial
from ann_snn_utils.runs.gallery import Network, open_network
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert

STEPS = 6


@pytest.fixture(autouse=True)
def reader(monkeypatch):
    monkeypatch.delenv("PLOTLY_RENDERER", raising=False)


def network(seed: int = 3, **arguments) -> Network:
    ann = random_ann(seed, clip=2, **arguments)
    samples = Dataset("random", "test", random_images(3, (1, 8, 8), 12), torch.arange(12) % 3, ("a", "b", "c"))
    return Network(f"net{seed}", ann, convert(ann), samples)


def unpacked(value: dict) -> np.ndarray:
    data = zlib.decompress(base64.b64decode(value["data"]))
    return np.frombuffer(data, value["dtype"]).reshape(value["shape"])


def values(shown: Explorer, **moved) -> dict:
    """The values of all controls, some of them moved."""
    known = {control["name"]: control["value"] for control in shown.shown["controls"]}
    assert moved.keys() <= known.keys() | {"pinned"}
    return known | {"pinned": []} | moved


def same(drawn: dict, expected: go.Figure) -> None:
    """A figure of an answer holds every trace of another one, as plotly's JSON has it."""
    wanted = json.loads(expected.to_json())["data"]
    for one, other in zip(drawn["data"], wanted, strict=True):
        for axis in ("name", "x", "y", "z", "customdata"):
            assert one.get(axis) == other.get(axis), (other.get("name"), axis)


class TestOneImage:
    def test_a_run_holds_every_spike_score_and_code_of_the_image(self):
        net = network()
        run = explore.one_image(net, STEPS).answer({"sample": 5}, print)["run"]
        record = simulate(net.snn, net.samples.images[5][None], STEPS, trace=[0])
        expected, logits = codes(net.ann, net.samples.images[5][None])
        for index in range(len(net.snn.layers)):
            assert np.array_equal(unpacked(run["spikes"][index]), record.traces.spikes[index][:, 0])
            assert np.array_equal(unpacked(run["codes"][index]), expected[index].flatten())
        assert np.array_equal(unpacked(run["scores"]), record.logits[:, 0])
        assert run["answers"] == record.predictions[:, 0].tolist() and run["settled"] == int(record.settled_at[0])
        assert run["ann"] == int(logits.argmax())

    def test_its_page_knows_what_every_image_is_answered_and_when_it_settles(self):
        net = network()
        images = explore.one_image(net, STEPS, samples=8).shown["images"]
        record = simulate(net.snn, net.samples.images[:8], STEPS)
        assert np.array_equal(unpacked(images["pixels"]), net.samples.images[:8])
        assert np.array_equal(unpacked(images["answers"]), record.predictions)
        assert (
            images["settled"] == record.settled_at.tolist() and images["labels"] == net.samples.labels[:8].tolist()
        )

    def test_without_a_kernel_the_runs_of_several_images_are_in_the_page(self, monkeypatch):
        assert list(explore.one_image(network(), STEPS).shown["runs"]) == ["0"]
        monkeypatch.setenv("PLOTLY_RENDERER", "json")
        assert len(explore.one_image(network(), STEPS).shown["runs"]) == 12

    def test_a_picture_of_ones_own_is_run_as_an_image(self):
        net = network()
        picture = np.zeros((1, 20, 30), np.uint8)
        picture[0, 4:16, 10] = 255
        pixels = base64.b64encode(picture.tobytes()).decode()
        found = explore.one_image(net, STEPS).answer({"pixels": pixels, "shape": [1, 20, 30]}, print)
        image = own_image(picture, (1, 8, 8))
        assert np.array_equal(unpacked(found["pixels"]), image)
        assert found["run"]["answers"] == simulate(net.snn, image[None], STEPS).predictions[:, 0].tolist()

    def test_an_image_is_saved_in_the_working_directory_over_no_other_file(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        shown = explore.one_image(network(), STEPS)
        paths = [shown.answer({"save": suffix, "sample": 5}, print)["path"] for suffix in (".gif", ".gif", ".html")]
        assert unused("./mine-image-5", ".gif").name == "mine-image-5.gif"
        names = ["net3-image-5.gif", "net3-image-5-2.gif", "net3-image-5.html"]
        assert paths == [str(tmp_path / name) for name in names]
        with Image.open(paths[1]) as gif:
            assert gif.n_frames == STEPS
        assert (tmp_path / names[2]).read_text(encoding="utf-8").startswith("<!doctype html>")


class TestOwnImages:
    @pytest.mark.parametrize(("ink", "paper"), [(255, 0), (30, 220)])
    def test_a_stroke_is_white_on_black_centred_and_as_large_as_a_digit_of_mnist(self, ink, paper):
        picture = np.full((1, 100, 160), paper, np.uint8)
        picture[0, 20:60, 30:40] = ink
        image = own_image(picture, (1, 28, 28))[0]
        rows, columns = image.sum(1).nonzero().flatten(), image.sum(0).nonzero().flatten()
        assert image.dtype == torch.uint8 and image.max() == 255
        assert (rows[0], rows[-1]) == (4, 23) and (columns[0], columns[-1]) == (12, 16)

    def test_a_colour_picture_is_cut_to_its_middle(self):
        picture = np.zeros((3, 40, 80), np.uint8)
        picture[:, :, 20:60] = np.array([200, 100, 50])[:, None, None]
        image = own_image(picture, (3, 8, 8))
        assert (image == torch.tensor([200, 100, 50])[:, None, None]).all()

    def test_an_empty_sheet_is_refused(self):
        with pytest.raises(ValueError, match="the picture is empty: draw something"):
            own_image(np.zeros((1, 50, 50), np.uint8), (1, 28, 28))


class TestAccuracyLab:
    def lab(self, net: Network) -> Explorer:
        return explore.accuracy_lab(net, size=8, time_steps=STEPS, seed=3)

    @pytest.mark.parametrize(
        ("moves", "setting"),
        [
            ({}, {}),
            ({"step": 2}, {}),
            ({"scale": 1.2}, {"threshold_scale": 1.2}),
            ({"noise": 0.8}, {"noise_ratio": 0.8}),
            ({"rate": 0.1}, {}),
            ({"fault": "flip", "rate": 0.1}, {"fault": "flip", "fault_rate": 0.1}),
            ({"per_layer": True, "layer 1": 0.7}, {"threshold_scale": (1.0, 0.7, 1.0, 1.0)}),
            ({"size": 12, "scale": 0.9}, {"samples": 12, "threshold_scale": 0.9}),
        ],
    )
    def test_figures_show_the_trial_of_the_setting(self, moves, setting):
        net, wanted = network(), Setting(**{"samples": 8, "seed": 3} | setting)
        shown = self.lab(net)
        answer, step = shown.answer(values(shown, **moves), print), moves.get("step", STEPS)
        found, plain = (
            run_trial(net.snn, net.samples, s, STEPS) for s in (wanted, Setting(wanted.samples, seed=3))
        )
        labels = net.samples.labels[: wanted.samples]
        right = float((predict(net.ann, net.samples.images[: wanted.samples]) == labels).double().mean())
        curves = {"undisturbed": plain.accuracy, "this setting": found.accuracy}
        same(answer["figures"]["accuracy"], figures.accuracy_over_time(curves, right, step=step, from_zero=True))
        said = found.record.predictions[step - 1]
        same(answer["figures"]["confusion"], figures.confusion_matrix(labels, said, net.samples.classes))
        same(answer["figures"]["spikes"], figures.spikes_over_time(found.record))
        assert len(answer["at"]) == STEPS
        for t, at in enumerate(answer["at"], 1):
            said = found.record.predictions[t - 1]
            assert f"<b>{found.accuracy[t - 1]:.2%}</b>" in at["line"]
            assert wanted.command("net3", t) in at["below"].replace("&#x27;", "'")
            moved = figures.confusion_matrix(labels, said, net.samples.classes, f"Answers at step {t}")
            changes = at["changes"]["confusion"]
            assert changes["title"] == moved.layout.title.text
            assert all(np.array_equal(moved.data[0][name], value) for name, value in changes["trace"].items())
            flipped = (said != plain.record.predictions[t - 1]).nonzero().flatten().tolist()
            images = (at["images"] or {"images": []})["images"]
            assert [one["sample"] for one in images] == flipped
            if flipped:
                pixels = unpacked(answer["pixels"])[[one["place"] for one in images]]
                assert np.array_equal(pixels, net.samples.images[flipped])

    def test_time_is_in_the_page_and_a_setting_seen_before_runs_nothing_again(self, monkeypatch):
        shown = self.lab(network())
        shown.answer(values(shown, scale=0.8), print)
        monkeypatch.setattr("ann_snn_utils.explore.trials.run_trial", None)
        shown.answer(values(shown, scale=0.8, step=1), print)
        assert [c["name"] for c in shown.shown["controls"] if c.get("in_page")] == ["step"]

    def test_pinned_settings_stand_beside_the_next_one(self):
        shown = self.lab(network())
        pins = [values(shown, scale=0.8), values(shown, noise=1.0)]
        answer = shown.answer(values(shown, scale=1.3, pinned=pins), print)
        names = [trace["name"] for trace in answer["figures"]["accuracy"]["data"]][:4]
        assert names == ["undisturbed", "pinned A", "pinned B", "this setting"]
        cells = re.findall(r"<tr><td>([^<]*)</td><td>([^<]*)</td>", answer["at"][0]["below"])
        settings = ["8 images", "θ × 0.8, 8 images", "noise 1, 8 images", "θ × 1.3, 8 images"]
        assert cells == list(zip(names, settings, strict=True))

    def test_zero_samples_are_all_of_them(self):
        shown = explore.accuracy_lab(network(), size=0, time_steps=STEPS)
        assert values(shown)["size"] == 12

    def test_controls_that_do_nothing_say_what_they_need(self):
        controls = {control["name"]: control for control in self.lab(network()).shown["controls"]}
        assert controls["rate"]["enabled_by"] == "fault" and controls["scale"]["disabled_by"] == "per_layer"
        assert controls["layer 2"]["shown_by"] == "per_layer"

    def test_progress_is_told_while_a_trial_runs(self):
        shown, told = self.lab(network()), []
        shown.answer(values(shown, scale=0.7), told.append)
        assert told[0] == 0 and told[-1] == 1

    def test_a_setting_is_told_by_what_differs_from_the_network_as_it_was_converted(self):
        told = {
            "5 images": Setting(5, threshold_scale=(1.0, 1.0), fault="flip"),
            "θ × 1, 1.1, 5 images": Setting(5, threshold_scale=(1.0, 1.1)),
            "noise 0.1, flip 0.5, 5 images": Setting(5, noise_ratio=0.1, fault="flip", fault_rate=0.5),
        }
        assert [described(setting) for setting in told.values()] == list(told)

    def test_layers_of_maxima_have_no_thresholds_to_scale(self):
        net = network(network="2C3-M2-4", in_shape=(1, 8, 8))
        shown = self.lab(net)
        assert [c["name"] for c in shown.shown["controls"] if "shown_by" in c] == ["layer 0", "layer 2"]
        found = shown.answer(values(shown, per_layer=True, **{"layer 2": 0.7}), print)
        wanted = run_trial(net.snn, net.samples, Setting(8, (1.0, 1.0, 0.7), seed=3), STEPS)
        assert found["figures"]["accuracy"]["data"][1]["y"] == [100 * share for share in wanted.accuracy]


class TestTwoNetworks:
    def test_answers_of_both_are_counted_on_the_same_images(self, monkeypatch):
        one, other = network(3), network(8)
        monkeypatch.setattr("ann_snn_utils.explore.trials.open_network", lambda name, stand_ins: other)
        shown = explore.compare_networks(one, "net8", size=10, time_steps=STEPS)
        answer = shown.answer({"other": "net8", "step": 3}, print)
        runs = [run_trial(net.snn, one.samples, Setting(10), STEPS) for net in (one, other)]
        ours, theirs = (run.record.predictions[2] for run in runs)
        same(answer["figures"]["agreement"], figures.confusion_matrix(ours, theirs, "abc"))
        differ = (ours != theirs).nonzero().flatten().tolist()
        assert len(differ) and [one["sample"] for one in answer["at"][2]["images"]["images"]] == differ
        assert f"{len(differ)} answers differ" in answer["at"][2]["line"]

    def test_a_network_that_was_trained_anew_is_run_anew(self, monkeypatch):
        one, opened = network(3), [network(8), network(5)]
        monkeypatch.setattr("ann_snn_utils.explore.trials.open_network", lambda name, stand_ins: opened.pop(0))
        shown = explore.compare_networks(one, "mine", size=10, time_steps=STEPS)
        found = shown.answer({"other": "mine", "step": 3}, print)
        again = run_trial(network(5).snn, one.samples, Setting(10), STEPS)
        assert found["figures"]["accuracy"]["data"][1]["y"] == [100 * share for share in again.accuracy]

    def test_networks_of_other_images_are_refused_by_name(self, monkeypatch):
        one, other = network(), network()
        ann = random_ann(1, in_shape=(3, 8, 8))
        other = Network("coloured", ann, convert(ann), one.samples)
        monkeypatch.setattr("ann_snn_utils.explore.trials.open_network", lambda name, stand_ins: other)
        with pytest.raises(
            ValueError, match=r"coloured sees images \(3, 8, 8\) of 3 classes, net3 sees \(1, 8, 8\)"
        ):
            explore.compare_networks(one, "coloured", time_steps=STEPS)


class TestConversionBench:
    @pytest.mark.parametrize("moves", [{}, {"k": 1}, {"levels": 2}, {"clip": 0}, {"size": 12}])
    def test_figures_compare_the_three_forms_until_all_images_are_silent(self, moves):
        net, parts = network(), []
        shown = explore.conversion_bench(net, size=8)
        wanted = values(shown, **moves)
        answer = shown.answer(wanted, parts.append)
        samples = net.samples.subset(range(wanted["size"]))
        ann = requantize(net.ann, wanted["k"], wanted["levels"], wanted["clip"] or None)
        found = compare_forms(ann, samples, None)
        bars = figures.mismatch_bars(found.mismatches, found.layer_names, found.compared)
        same(answer["figures"]["mismatches"], bars)
        same(
            answer["figures"]["accuracy"],
            figures.accuracy_over_time(found.accuracy, found.ann_accuracy, from_zero=True),
        )
        bits = adder_bits(found.networks["exact"], found.networks["float"])
        assert [list(go.Figure(answer["figures"]["bits"]).data[i].y) for i in range(len(bits))] == list(
            bits.values()
        )
        # The comparison does not wait for the proof of the bits.
        assert parts[-1]["figures"].keys() == {"mismatches", "accuracy"}
        assert found.accuracy["exact"][-1] == pytest.approx(found.ann_accuracy)

    def test_a_graph_whose_counts_are_given_has_no_k_and_clip_to_change(self):
        nodes = [Node("a", (Branch((-1,), (3, 3)),), 2, step=0.5), Node("b", (Branch((0,), (2, 2)),), 3, step=0.3)]
        net = network(network=graph_text(nodes), ternary=False)
        shown = explore.conversion_bench(net, size=8)
        assert list(values(shown)) == ["levels", "size", "pinned"]
        found = compare_forms(requantize(net.ann, 0, 4, 2), net.samples.subset(range(8)), None)
        assert shown.shown["figures"]["mismatches"]["data"][1]["y"] == pytest.approx(
            [
                100 * wrong / all_of
                for wrong, all_of in zip(found.mismatches["published"], found.compared, strict=True)
            ]
        )


EXPLORERS = {
    "image": lambda net: explore.one_image(net, STEPS),
    "lab": lambda net: explore.accuracy_lab(net, 8, STEPS),
    "two": lambda net: explore.compare_networks(net, net.name, 8, STEPS),
    "bench": lambda net: explore.conversion_bench(net, 8),
}


@pytest.mark.parametrize("name", EXPLORERS)
def test_headless_an_explorer_leaves_no_widget(name, monkeypatch):
    import ipywidgets

    monkeypatch.setenv("PLOTLY_RENDERER", "json")
    before = len(ipywidgets.widget._instances)
    shown, displayed = EXPLORERS[name](network()), []
    monkeypatch.setattr("ann_snn_utils.explore.page.display", displayed.append)
    shown._ipython_display_()
    assert len(ipywidgets.widget._instances) == before and shown.caption
    if shown.figures:
        assert shown.caption in displayed[0].data and "make lab" in displayed[0].data
        words, *drawn = displayed[1:]
        assert drawn == list(shown.figures.values())
        assert "8 images" in words.data or name == "bench"
    else:
        assert "snn-explorer" in displayed[0].data


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_control_has_a_name_and_a_help(name):
    for control in EXPLORERS[name](network()).shown.get("controls", []):
        assert control["label"] and control["help"]


def test_a_page_holds_its_code_and_data_and_nothing_in_them_ends_it():
    net = network()
    net = Network("</script><b>", net.ann, net.snn, net.samples, note="<i>a note</i></script>")
    text = explore.one_image(net, STEPS).html()
    assert text.count("</script>") == 1 and text.endswith("</script>")
    assert not re.search(r"""\b(src|href)\s*=\s*["']|https?://(?!www\.w3\.org)""", text)


def test_an_explorer_can_be_saved_as_a_page_of_its_own(tmp_path):
    path = explore.one_image(network(), STEPS).save(tmp_path / "one.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int8).reshape(2, 3),
        np.array([1.5, -2]),
        *(np.array([end + off, 5]) for bits in (7, 15, 31) for end in (-(2**bits), 2**bits) for off in (-1, 0)),
    ],
)
def test_packed_arrays_keep_shape_and_values(array):
    found = packed(array)
    assert found["dtype"] in ("int8", "int16", "int32", "float64")
    assert unpacked(found).shape == array.shape and (unpacked(found) == array).all()


def test_what_was_computed_is_remembered_and_the_oldest_forgotten():
    computed = []
    look_up = remembered(lambda key, report: computed.append(key) or key * 2, most=2)
    assert [look_up(key, print) for key in (1, 2, 1, 3, 1)] == [2, 4, 2, 6, 2]
    assert computed == [1, 2, 3, 1]


class TestLine:
    def asked(self, explorer: Explorer, monkeypatch, **question) -> list[dict]:
        line, sent = Line(explorer), []
        monkeypatch.setattr(line, "send", lambda message, buffers=None: sent.append(message))
        line._hear(None, {"number": 7, **question}, [])
        assert all(message["number"] == 7 for message in sent)
        return sent

    def test_an_answer_is_json(self, monkeypatch):
        shown = EXPLORERS["lab"](network())
        *progress, answer = self.asked(shown, monkeypatch, ask="answer", values=values(shown, scale=0.9))
        assert all("progress" in message for message in progress) and json.dumps(answer["answer"])

    @pytest.mark.parametrize(
        ("error", "told"),
        [(ValueError("use max_levels=9"), "use max_levels=9"), (KeyError("step"), "KeyError: 'step'")],
    )
    def test_what_fails_is_told_in_the_page(self, monkeypatch, error, told):
        def answer(values, report):
            raise error

        explorer = Explorer("a title", "a caption", {"view": "figures"}, answer)
        assert self.asked(explorer, monkeypatch, ask="answer", values={}) == [{"number": 7, "error": told}]


class TestNetworks:
    @pytest.fixture
    def chosen(self, monkeypatch):
        def opened(name="", stand_ins=None):
            if name == "broken":
                raise FileNotFoundError("broken/snn.safetensors is missing: notebook 03_convert makes it")
            return network(int((name or "net3")[3:]))

        monkeypatch.setattr(chooser, "network_names", lambda: ["net3", "net4", "broken"])
        monkeypatch.setattr(chooser, "open_network", opened)
        return explore.networks()

    def test_explorers_are_told_and_are_made_anew_when_they_ask(self, chosen, monkeypatch):
        built, sent = [], []
        shown = chosen.show(lambda net: built.append(net.name) or EXPLORERS["bench"](net))
        line = Line(shown)
        shown.opened(line)
        monkeypatch.setattr(line, "send", lambda message, buffers=None: sent.append(message))
        answer = chosen.page.answer({"name": "net4"}, print)
        assert sent == [{"stale": True}] and built == ["net3"] and "net4" in answer["line"]
        line._hear(None, {"number": 1, "ask": "rebuild"}, [])
        assert built == ["net3", "net4"] and sent[-1]["answer"]["view"] == "figures"
        assert line.explorer.rebuild is not None

    def test_a_network_that_cannot_be_opened_leaves_all_as_it_is(self, chosen):
        with pytest.raises(FileNotFoundError, match="03_convert makes it"):
            chosen.choose("broken")
        assert chosen.current.name == "net3"


class TestStandIns:
    @pytest.fixture(autouse=True)
    def nothing_here(self, monkeypatch, tmp_path, runs):
        monkeypatch.setenv("ANN_SNN_DATA", str(tmp_path))
        monkeypatch.setattr("ann_snn_utils.data.published.tempfile.mkdtemp", None)

    def test_a_network_of_handwritten_digits_is_shown_those_of_scikit_learn(self):
        net = explore.networks("bundled:mnist-lenet-k0").current
        digits = load_dataset("digits")
        assert net.samples.in_shape == (1, 28, 28) and len(net.samples) == len(digits)
        assert "scikit-learn's digits" in net.samples.name and "in place of mnist" in net.note
        assert "load_dataset('mnist'" in net.note.replace("&#x27;", "'")
        few = net.samples.subset(range(60))
        right = simulate(net.snn, few).predictions[-1] == few.labels
        assert float(right.double().mean()) > 0.8

    def test_a_network_of_colour_images_is_shown_photographs_which_it_answers_itself(self):
        net = explore.networks("bundled:cifar10-small-k0-clip3").current
        assert net.samples.in_shape == net.snn.spec.in_shape
        assert "photographs, which have no class: right is what the quantized network says" in net.note
        assert torch.equal(net.samples.labels[:4], predict(net.ann, net.samples.images[:4]))
        assert len(net.samples.classes) == 10

    def test_where_no_stand_in_is_asked_for_a_missing_data_set_is_an_error(self, monkeypatch):
        with pytest.raises(FileNotFoundError, match="mnist is not in"):
            open_network("bundled:mnist-lenet-k0", stand_ins=_refuse)


def _refuse(ann, missing):
    raise missing


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
