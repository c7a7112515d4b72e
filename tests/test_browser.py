"""JupyterLab in a headless browser: the explorers open, follow the keyboard, and fit the page.

What the page shows is read back from plotly.js and compared with the package's own functions. Screenshots and
the time from a key to its redrawn figures are kept in tests/artifacts.
"""

from __future__ import annotations

import contextlib
import html
import json
import re
import shutil
import statistics

import lab
import pytest

from ann_snn_utils.explore import plots
from ann_snn_utils.explore.microscope import Sample
from ann_snn_utils.figures import class_scores, layer_map, neuron_trace, raster, spike_maps
from ann_snn_utils.files import ROOT
from ann_snn_utils.measure.equivalence import compare_forms, requantize
from ann_snn_utils.measure.trial import Setting, run_trial
from ann_snn_utils.runs.gallery import open_network
from ann_snn_utils.simulator.run import simulate

pytestmark = pytest.mark.slow

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need `pip install playwright`")
if lab.find_browser() is None:
    pytest.skip(
        "no Chromium here: install it (Debian: apt-get install chromium) or name it in $CHROMIUM",
        allow_module_level=True,
    )

ARTIFACTS = ROOT / "tests" / "artifacts"
NETWORK, SIZE, BENCH_SIZE, STEPS = "bundled:digits-lenet-k0", 256, 64, 8
CHOOSER, MICROSCOPE, OVER_TIME, LAB, BENCH = range(5)
# A page that has plotly.js late, later than anywidget waits for a widget's own code.
LATE = """globalThis.annSnnPlotly = (() => {
    let give; const code = new Promise(resolve => { give = code => setTimeout(() => resolve(code), 5000); });
    return { code, give }; })()"""
# Moves, while the notebook still runs, a slider whose figures the page cannot have drawn yet.
EARLY = 'shown = {0}\nshown.controls["step"].value = 5\nshown'


@pytest.fixture(scope="module")
def network():
    return open_network(NETWORK)


@pytest.fixture(scope="module")
def visit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    notebook = json.loads((ROOT / "notebooks" / "05_explore.ipynb").read_text())
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = f'run = "{NETWORK}"\nsamples = {SIZE}\ntime_steps = {STEPS}\nseed = 0'
        elif cell["cell_type"] == "code" and "neuron_microscope" in source:
            cell["source"] = EARLY.format(source)
    (folder / "05_explore.ipynb").write_text(json.dumps(notebook))
    ARTIFACTS.mkdir(exist_ok=True)
    with lab.jupyterlab(folder) as address, playwright.sync_playwright() as driver:

        def prepare(page) -> None:
            page.add_init_script(LATE)
            lab.run_notebook(page, address, "05_explore.ipynb")
            page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
            page.wait_for_function("() => document.querySelectorAll('.js-plotly-plot .main-svg').length >= 11")

        visit = None
        try:
            visit = lab.Visit(driver, prepare)
            yield visit
        finally:
            if visit:
                with contextlib.suppress(playwright.Error):
                    visit.page.screenshot(path=ARTIFACTS / "last.png")
                visit.close()
            shutil.copy(folder / "jupyterlab.log", ARTIFACTS / "jupyterlab.log")


@pytest.fixture
def page(visit):
    if not visit.alive:
        visit.renew()
    return visit.page


def microscope(page, network) -> None:
    """The page shows the neuron and the step that its sliders name."""
    names = ("sample", "channel", "row", "column", "time step")
    sample, *place, step = (int(lab.value(page, MICROSCOPE, name)) for name in names)
    label = network.samples.classes[int(network.samples.labels[sample])]
    seen = Sample(network.snn, network.samples.images[sample], sample, label, STEPS, network.ann)
    layer = int(lab.explorer(page, MICROSCOPE).locator("select").evaluate("e => e.selectedIndex"))
    lab.draws(page, MICROSCOPE, 0, neuron_trace(**seen.neuron_arguments(layer, tuple(place), step)))
    lab.draws(page, MICROSCOPE, 1, layer_map(**seen.map_arguments(layer, tuple(place), step)))


def over_time(page, network, show: str = "spikes") -> None:
    """The page shows the sample and the step that its sliders name."""
    sample, step = (int(lab.value(page, OVER_TIME, name)) for name in ("sample", "time steps T"))
    record = simulate(network.snn, network.samples.images[sample][None], STEPS, trace=[0])
    names, label = record.layer_names, int(network.samples.labels[sample])
    lab.draws(page, OVER_TIME, 0, spike_maps(record.traces, names, step, show=show))
    lab.draws(page, OVER_TIME, 1, raster(record.traces, names, step=step))
    lab.draws(page, OVER_TIME, 2, class_scores(record.logits[step - 1, 0], network.samples.classes, label, step))


def accuracy_lab(page, network, setting: Setting) -> None:
    """The page shows the trial of this setting, up to the step that its slider names."""
    found = run_trial(network.snn, network.samples, setting, STEPS)
    accuracy, spikes, cost = 0, 1, 2
    lab.shows(page, LAB, accuracy, 1, "y", 100 * found.accuracy)
    lab.shows(page, LAB, spikes, 0, "y", found.record.positive[:, 0] / SIZE)
    lab.shows(page, LAB, cost, 0, "y", found.sops)
    lab.shows(page, LAB, cost, 2, "y", found.energy / 1000)
    step = int(lab.value(page, LAB, "time steps T"))
    lab.shows(page, LAB, accuracy, 3, "x", [step, step])
    command = lab.explorer(page, LAB).locator("code")
    expected = setting.command(NETWORK, step)
    lab.wait_until(page, lambda: html.unescape(command.inner_text()) == expected, expected)


def bench(page, network, k: int, levels: int) -> None:
    """The page shows the comparison of the three forms of the network with these activations."""
    samples = network.samples.subset(range(BENCH_SIZE))
    found = compare_forms(requantize(network.ann, k, levels, None), samples, STEPS)
    for index, form in enumerate(found.mismatches):
        shares = [100 * wrong / all_ for wrong, all_ in zip(found.mismatches[form], found.compared, strict=True)]
        lab.shows(page, BENCH, 0, index, "y", shares)
        lab.shows(page, BENCH, 1, index, "y", 100 * found.accuracy[form])
    for index, bits in enumerate(found.fractional_bits.values()):
        lab.shows(page, BENCH, 2, index, "y", bits)


def test_the_notebook_runs_to_its_end_without_an_error(page):
    outputs = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.{}']"
    assert page.locator(outputs.format("stderr")).all_inner_texts() == []
    assert page.locator(outputs.format("error")).count() == 0 and page.errors == []
    assert page.locator("text=Click to show javascript error").count() == 0
    assert page.locator(".snn-explorer").count() == 5
    assert NETWORK in lab.explorer(page, CHOOSER).inner_text()


def test_a_slider_that_moved_before_the_page_could_draw_is_not_forgotten(page, network):
    assert lab.value(page, MICROSCOPE, "time step") == 5
    microscope(page, network)


def test_the_page_receives_plotly_once(page):
    code = len(plots.stage().source)
    assert code > 4e6 and code < sum(page.received) < 1.8 * code


def test_every_control_can_be_reached_with_the_keyboard(page):
    indices = page.evaluate("""() => [...document.querySelectorAll(
        '.snn-explorer .noUi-handle, .snn-explorer select, .snn-explorer button, .snn-explorer input')]
        .filter(e => e.offsetParent !== null).map(e => e.tabIndex)""")
    assert len(indices) >= 25 and min(indices) >= 0


def test_jupyterlab_takes_no_key_from_a_control(page):
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    # In a notebook these would cut the cell, add one, and delete it.
    for number in (CHOOSER, MICROSCOPE, OVER_TIME, LAB, BENCH):
        control = lab.explorer(page, number).locator("select").last
        control.focus()
        for key in ("x", "b", "a", "d", "d"):
            page.keyboard.press(key)
        assert control.evaluate("e => document.activeElement === e")
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells


# Every slider of the page, by explorer; the tests below move each of them.
SLIDERS = {
    MICROSCOPE: {"sample", "channel", "row", "column", "time step"},
    OVER_TIME: {"sample", "time steps T"},
    LAB: {
        "time steps T",
        "threshold scale",
        "noise ratio",
        "fault rate",
        "0 · 32C5",
        "1 · P2",
        "2 · 64C5",
        "3 · P2",
        "4 · 1000",
    },
    BENCH: {"k", "levels"},
}


def test_there_is_no_slider_but_those_that_are_moved_here(page):
    for number, labels in SLIDERS.items():
        found = lab.explorer(page, number).locator(".widget-slider .widget-label").all_text_contents()
        assert sorted(found) == sorted(labels)


def test_the_microscope_follows_every_slider(page, network):
    moves = {
        "sample": "ArrowRight",
        "channel": "ArrowRight",
        "row": "ArrowDown",
        "column": "ArrowUp",
        "time step": "ArrowLeft",
    }
    assert set(moves) == SLIDERS[MICROSCOPE]
    for label, key in moves.items():
        before = lab.value(page, MICROSCOPE, label)
        assert lab.press(page, MICROSCOPE, label, key, 2) != before, label
        microscope(page, network)


def test_the_microscope_follows_its_list_its_button_and_a_click(page, network):
    def place() -> list[float]:
        return [lab.value(page, MICROSCOPE, name) for name in ("channel", "row", "column")]

    plot = lab.explorer(page, MICROSCOPE).locator(".js-plotly-plot").nth(1)
    before = place()
    lab.choose(page, MICROSCOPE, "layer", "2")
    lab.wait_until(page, lambda: "2 · 64C5" in plot.text_content() and place() != before, "the map of layer 2")
    microscope(page, network)
    liveliest = place()
    plot.scroll_into_view_if_needed()
    # The map's third cell of the second row belongs to channel 0.
    x, y = plot.evaluate("""g => {
        const { xaxis2: x, yaxis2: y } = g._fullLayout, box = g.getBoundingClientRect();
        return [box.left + x._offset + x.l2p(2), box.top + y._offset + y.l2p(1)] }""")
    page.mouse.move(x - 1, y)
    page.mouse.move(x, y)
    page.wait_for_timeout(300)
    page.mouse.click(x, y)
    lab.wait_until(page, lambda: place() == [0, 1, 2], "the neuron that was clicked")
    microscope(page, network)
    lab.press_button(page, MICROSCOPE, "Liveliest neuron")
    lab.wait_until(page, lambda: place() == liveliest, "the liveliest neuron")
    microscope(page, network)


def test_playing_moves_the_time_step_and_the_figure(page, network):
    lab.press(page, MICROSCOPE, "time step", "Home")
    lab.explorer(page, MICROSCOPE).locator(".widget-play button").first.press("Enter")
    lab.wait_until(page, lambda: lab.value(page, MICROSCOPE, "time step") == STEPS, "the last step")
    microscope(page, network)


def test_the_network_follows_every_slider_and_its_list(page, network):
    over_time(page, network)
    assert lab.press(page, OVER_TIME, "time steps T", "ArrowRight", 2) == 4
    over_time(page, network)
    assert lab.press(page, OVER_TIME, "sample", "ArrowRight", 3) == 3
    over_time(page, network)
    lab.choose(page, OVER_TIME, "maps show", "c")
    over_time(page, network, "counts")


def test_the_accuracy_lab_follows_every_slider_and_goes_back(page, network):
    accuracy_lab(page, network, Setting(SIZE))
    assert lab.press(page, LAB, "time steps T", "ArrowLeft", 5) == 3
    accuracy_lab(page, network, Setting(SIZE))
    scale = lab.press(page, LAB, "threshold scale", "ArrowLeft", 4)
    accuracy_lab(page, network, Setting(SIZE, scale))
    noise = lab.press(page, LAB, "noise ratio", "ArrowRight", 9)
    accuracy_lab(page, network, Setting(SIZE, scale, noise))
    lab.choose(page, LAB, "spike fault", "f")
    rate = lab.press(page, LAB, "fault rate", "ArrowRight", 3)
    assert (scale, noise, rate) == (0.8, 0.9, 0.015)
    accuracy_lab(page, network, Setting(SIZE, scale, noise, "flip", rate))
    lab.press_button(page, LAB, "Reset")
    accuracy_lab(page, network, Setting(SIZE))


def test_each_layer_has_a_threshold_slider_of_its_own(page, network):
    lab.explorer(page, LAB).locator("input[type=checkbox]").press("Space")
    scales = []
    for index, layer in enumerate(network.snn.layers):
        label, key = f"{index} · {layer.name}", "ArrowRight" if index % 2 else "ArrowLeft"
        lab.slider(page, LAB, label).wait_for(state="visible")
        scales.append(lab.press(page, LAB, label, key, 2))
    assert scales == [0.9, 1.1, 0.9, 1.1, 0.9]
    accuracy_lab(page, network, Setting(SIZE, tuple(scales)))
    lab.press_button(page, LAB, "Reset")
    accuracy_lab(page, network, Setting(SIZE))


def test_a_slider_that_is_dragged_far_ends_on_its_last_value_and_time_can_move_meanwhile(page, network):
    assert lab.press(page, LAB, "threshold scale", "ArrowRight", 9) == 1.45
    assert lab.press(page, LAB, "time steps T", "ArrowLeft", 1) == 7
    accuracy_lab(page, network, Setting(SIZE, 1.45))
    lab.press_button(page, LAB, "Reset")
    accuracy_lab(page, network, Setting(SIZE))


def test_the_bench_follows_every_slider(page, network):
    bench(page, network, 0, 4)
    assert lab.press(page, BENCH, "levels", "ArrowDown", 2) == 2
    bench(page, network, 0, 2)
    assert lab.press(page, BENCH, "k", "ArrowUp", 1) == 1
    bench(page, network, 1, 2)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
@pytest.mark.parametrize("width", [1280, 640])
def test_figures_fit_the_page_in_both_themes_and_their_text_takes_the_themes_ink(page, width, theme):
    page.evaluate(f"() => jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})")
    page.wait_for_function(f"() => document.body.dataset.jpThemeName === 'JupyterLab {theme}'")
    page.set_viewport_size({"width": width, "height": 1000})
    lab.wait_until_figures_fit(page)
    ink = page.evaluate("() => getComputedStyle(document.querySelector('.snn-explorer .gtitle')).fill")
    brightness = sum(int(part) for part in re.findall(r"\d+", ink)[:3]) / 3
    assert (brightness > 128) == (theme == "Dark"), ink
    lab.screenshots(page, ARTIFACTS, f"{theme.lower()}-{width}")


def test_the_time_from_a_key_to_its_redrawn_figures_is_written_down(page):
    there_and_back = ["ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowRight", "ArrowRight", "ArrowRight"] * 2
    taken = {
        "neuron microscope, T": lab.latency(page, MICROSCOPE, "time step", there_and_back, [0, 1]),
        "network over time, T": lab.latency(page, OVER_TIME, "time steps T", there_and_back, [0, 1, 2]),
        "accuracy lab, T": lab.latency(page, LAB, "time steps T", there_and_back, [0, 2]),
        f"threshold scale, {SIZE} images": lab.latency(page, LAB, "threshold scale", there_and_back[:6], [0, 1, 2]),
    }
    found = {
        name: {"median_ms": statistics.median(times), "quartiles_ms": statistics.quantiles(times), "n": len(times)}
        for name, times in taken.items()
    }
    (ARTIFACTS / "latency.json").write_text(json.dumps(found, indent=1) + "\n")
    assert page.errors == []


def test_a_test_whose_browser_dies_is_run_again_in_a_new_one_and_says_so(visit):
    prepared, runs = [], []

    def prepare(page) -> None:
        prepared.append(page)
        page.set_content("<p>here</p>")
        if len(prepared) == 1:
            page.goto("chrome://crash")

    def test() -> None:
        runs.append(frail.page.inner_text("p"))
        if len(runs) == 1:
            frail.page.goto("chrome://crash")

    with pytest.warns(UserWarning, match="Chromium died while its page was opened"):
        frail = lab.Visit(visit.driver, prepare)
    try:
        with pytest.warns(UserWarning, match="a name: Chromium died; the test was run again in a new one"):
            lab.survived(frail, "a name", test)
        assert runs == ["here", "here"] and len(prepared) == 3
        with pytest.raises(ZeroDivisionError):
            lab.survived(frail, "a name", lambda: 1 / 0)
        assert len(prepared) == 3
    finally:
        frail.close()
