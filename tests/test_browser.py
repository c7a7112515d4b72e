"""JupyterLab in a headless browser: the explorers open, answer every control, and fit the page.

What the page shows is compared with the package's own functions. Pictures of it are kept in tests/artifacts.
"""

from __future__ import annotations

import contextlib
import functools
import html
import json
import re
import shutil

import lab
import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from ann_snn_utils import figures
from ann_snn_utils.explore.images import own_image
from ann_snn_utils.figures.cost import energy_unit
from ann_snn_utils.files import ROOT
from ann_snn_utils.measure.equivalence import adder_bits, compare_forms, requantize
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
NETWORK, SIZE, STEPS = "bundled:digits-lenet-k0", 256, 8
CHOOSER, IMAGE, LAB, TWO, BENCH = range(5)


@pytest.fixture(scope="module")
def network():
    return open_network(NETWORK)


@pytest.fixture(scope="module")
def trial(network):
    """Runs the trial of a setting, of which several tests ask for the same, once."""
    return functools.cache(lambda setting: run_trial(network.snn, network.samples, setting, STEPS))


@pytest.fixture(scope="module")
def visit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    notebook = json.loads((ROOT / "notebooks" / "05_explore.ipynb").read_text())
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = f'run = "{NETWORK}"\nsamples = {SIZE}\ntime_steps = {STEPS}\nseed = 0'
    (folder / "05_explore.ipynb").write_text(json.dumps(notebook))
    ARTIFACTS.mkdir(exist_ok=True)
    with lab.jupyterlab(folder) as address, playwright.sync_playwright() as driver:

        def prepare(page) -> None:
            lab.run_notebook(page, address, "05_explore.ipynb")
            page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
            lab.wait_until(
                page, lambda: page.locator(".snn-explorer .js-plotly-plot .main-svg").count() >= 9, "figures"
            )

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


# Where the figures of an explorer mark the time step.
_MARKS = """explorer => [
    ...document.querySelectorAll('.snn-explorer')[explorer].querySelectorAll('.js-plotly-plot')
].flatMap(plot => (plot.layout.shapes ?? []).filter(shape => shape.name === 'step').map(shape => shape.x0))"""


def accuracy_lab(page, network, trial, setting: Setting) -> None:
    """The page shows the trial of this setting, up to the step that its slider names."""
    found, step = trial(setting), int(lab.value(page, LAB, "time step T"))
    command = lab.explorer(page, LAB).locator("code")
    expected = setting.command(NETWORK, step)
    lab.wait_until(page, lambda: html.unescape(command.inner_text()) == expected, expected)
    lab.draws(page, LAB, 2, figures.spikes_over_time(found.record))
    labels, answers = network.samples.labels[:SIZE], found.record.predictions[step - 1]
    lab.draws(page, LAB, 1, figures.confusion_matrix(labels, answers, network.samples.classes))
    lab.shows(page, LAB, 0, 1, "y", 100 * found.accuracy)
    assert page.evaluate(_MARKS, LAB) == [step] * 3
    lab.shows(page, LAB, 3, 0, "y", found.sops)
    lab.shows(page, LAB, 3, 2, "y", energy_unit(found.ann_energy)[1] * found.energy)
    plain = trial(Setting(SIZE)).record.predictions[step - 1]
    flipped = (plain != answers).nonzero().flatten().tolist()
    assert lab.explorer(page, LAB).locator(".snn-below .snn-thumb").count() == min(40, len(flipped))


def test_the_notebook_runs_to_its_end_without_an_error(page):
    outputs = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.{}']"
    assert page.locator(outputs.format("stderr")).all_inner_texts() == []
    assert page.locator(outputs.format("error")).count() == 0 and page.errors == []
    assert page.locator(".snn-title").all_inner_texts() == [
        "Network",
        "One image, step by step",
        "Accuracy lab",
        "Two networks",
        "Conversion bench",
        "Energy bench",
    ]
    assert NETWORK in lab.explorer(page, CHOOSER).locator(".snn-status").inner_text()


def test_the_page_receives_plotly_once(page):
    code = len(get_plotlyjs().encode())
    assert code > 4e6 and sum(page.received) < 1.8 * code


def test_jupyterlab_takes_no_key_from_a_control(page):
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    # In a notebook these would cut the cell, add one, and delete it.
    for number in (CHOOSER, IMAGE, LAB, TWO, BENCH):
        control = lab.explorer(page, number).locator("select").last
        control.focus()
        for key in ("x", "a", "d", "d"):
            page.keyboard.press(key)
        assert control.evaluate("e => document.activeElement === e")
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells


def test_time_and_neurons_move_without_a_word_to_the_kernel(page, network):
    asked = len(page.asked)
    record = simulate(network.snn, network.samples.images[:1], STEPS, trace=[0])
    for key, step in (("ArrowRight", 3), ("End", STEPS), ("ArrowLeft", STEPS - 1)):
        lab.press(page, IMAGE, "time step T", key)
        answer = network.samples.classes[int(record.predictions[step - 1, 0])]
        assert f"after step {step}: “{answer}”" in lab.explorer(page, IMAGE).locator(".snn-status").inner_text()
    lab.explorer(page, IMAGE).get_by_label("layer", exact=True).select_option("4 · 1000")
    cells = lab.explorer(page, IMAGE).locator(".snn-steps tbody tr td:nth-child(2)").all_inner_texts()
    neuron = int(lab.explorer(page, IMAGE).get_by_label("channel", exact=True).input_value())
    assert [int(cell) for cell in cells] == record.traces.membranes[4][:, 0, neuron, 0, 0].tolist()
    assert lab.explorer(page, IMAGE).get_by_label("row", exact=True).is_disabled()
    assert len(page.asked) == asked


def test_the_bar_stays_in_sight_while_the_page_scrolls(page):
    lab.explorer(page, IMAGE).locator(".snn-raster").evaluate("e => e.scrollIntoView({ block: 'end' })")
    page.wait_for_timeout(200)
    slider = lab.explorer(page, IMAGE).get_by_label("time step T", exact=True)
    top = page.locator(".jp-WindowedPanel-outer").first.bounding_box()["y"]
    assert top <= slider.bounding_box()["y"] < top + 200


def test_another_image_comes_from_the_kernel(page, network):
    asked = len(page.asked)
    lab.explorer(page, IMAGE).locator(".snn-thumb").nth(7).click()
    record = simulate(network.snn, network.samples.images[7][None], STEPS, trace=[0])
    status = lab.explorer(page, IMAGE).locator(".snn-status")
    lab.wait_until(page, lambda: status.inner_text().startswith("Image 7,"), "image 7")
    assert len(page.asked) == asked + 1
    step = int(lab.value(page, IMAGE, "time step T"))
    assert f"{int(record.spike_num[step - 1]):,} hidden spikes" in status.inner_text()


def test_a_digit_drawn_with_the_mouse_is_run_and_named(page, network):
    box = lab.explorer(page, IMAGE)
    box.get_by_role("button", name="Draw your own").click()
    pad = box.locator(".snn-pad")
    pad.scroll_into_view_if_needed()
    place = pad.bounding_box()
    status = box.locator(".snn-status")
    page.mouse.click(place["x"] + 84, place["y"] + 20)
    lab.wait_until(page, lambda: status.inner_text().startswith("Your picture 1,"), "the dot of a tap")
    assert pad.evaluate("c => c.getContext('2d').getImageData(84, 20, 1, 1).data[0]") == 255
    page.mouse.move(place["x"] + 84, place["y"] + 25)
    page.mouse.down()
    page.mouse.move(place["x"] + 84, place["y"] + 145, steps=6)
    page.mouse.up()
    lab.wait_until(page, lambda: status.inner_text().startswith("Your picture 2,"), "the drawn digit")
    drawn = pad.evaluate(
        "c => [...c.getContext('2d').getImageData(0, 0, 168, 168).data].filter((_, i) => i % 4 === 0)"
    )
    image = own_image(np.array(drawn, np.uint8).reshape(1, 168, 168), (1, 28, 28))
    record = simulate(network.snn, image[None], STEPS)
    answer = network.samples.classes[int(record.predictions[-1, 0])]
    assert f"after step {STEPS}: “{answer}”" in status.inner_text() and "% sure" in status.inner_text()
    assert f"{int(record.spike_num[-1]):,} hidden spikes" in status.inner_text()
    box.screenshot(path=ARTIFACTS / "drawn.png")
    box.get_by_role("button", name="Draw your own").click()


def test_the_accuracy_lab_follows_every_control_and_goes_back(page, network, trial):
    accuracy_lab(page, network, trial, Setting(SIZE))
    rate = lab.explorer(page, LAB).get_by_label("fault rate", exact=True)
    assert rate.is_disabled()
    lab.press(page, LAB, "time step T", "ArrowLeft", 5)
    accuracy_lab(page, network, trial, Setting(SIZE))
    lab.press(page, LAB, "threshold scale", "ArrowLeft", 4)
    lab.press(page, LAB, "noise ratio", "ArrowRight", 9)
    lab.choose(page, LAB, "spike fault", "flip")
    assert rate.is_enabled()
    accuracy_lab(page, network, trial, Setting(SIZE, 0.8, 0.9, "flip", 0.05))
    lab.explorer(page, LAB).get_by_role("button", name="Pin this setting").click()
    lab.press(page, LAB, "threshold scale", "ArrowRight", 2)
    rows = lab.explorer(page, LAB).locator(".snn-table tbody tr")
    lab.wait_until(page, lambda: rows.count() == 3 and "θ × 0.9" in rows.nth(2).inner_text(), "the pinned setting")
    assert "θ × 0.8, noise 0.9, flip 0.05" in rows.nth(1).inner_text()
    lab.explorer(page, LAB).get_by_role("button", name="Reset", exact=True).click()
    accuracy_lab(page, network, trial, Setting(SIZE))


def test_each_layer_has_a_threshold_slider_of_its_own(page, network, trial):
    lab.explorer(page, LAB).get_by_label("by layer", exact=True).check()
    assert lab.explorer(page, LAB).get_by_label("threshold scale", exact=True).is_disabled()
    scales = []
    for index, layer in enumerate(network.snn.layers):
        key = "ArrowRight" if index % 2 else "ArrowLeft"
        scales.append(lab.press(page, LAB, f"{index} · {layer.name}", key, 6))
    assert scales == [0.7, 1.3, 0.7, 1.3, 0.7], "far enough off that some answers change"
    accuracy_lab(page, network, trial, Setting(SIZE, tuple(scales)))
    first = lab.explorer(page, LAB).locator(".snn-below .snn-thumb").first
    image = re.match(r"image (\d+)", first.get_attribute("title")).group(1)
    first.click()
    status = lab.explorer(page, IMAGE).locator(".snn-status")
    lab.wait_until(page, lambda: status.inner_text().startswith(f"Image {image},"), "the image that was clicked")
    lab.explorer(page, LAB).get_by_role("button", name="Reset", exact=True).click()


def test_two_networks_are_compared_on_the_same_images(page, network):
    lab.choose(page, TWO, "network B", "bundled:mnist-lenet-k0-clip2")
    other = open_network("bundled:mnist-lenet-k0-clip2", stand_ins=lambda ann, missing: (network.samples, ""))
    ours, theirs = (run_trial(net.snn, network.samples, Setting(SIZE), STEPS) for net in (network, other))
    answers = [trial.record.predictions[-1] for trial in (ours, theirs)]
    lab.draws(page, TWO, 1, figures.confusion_matrix(*answers, network.samples.classes))
    lab.shows(page, TWO, 0, 1, "y", 100 * theirs.accuracy)
    differ = int((answers[0] != answers[1]).sum())
    assert f"{differ} answers differ" in lab.explorer(page, TWO).locator(".snn-status").inner_text()


def test_the_bench_follows_every_slider(page, network):
    samples = network.samples.subset(range(32))
    for moves, (k, levels) in (([], (0, 4)), ([("levels", "ArrowDown", 2), ("k", "ArrowUp", 1)], (1, 2))):
        for move in moves:
            lab.press(page, BENCH, *move)
        found = compare_forms(requantize(network.ann, k, levels, None), samples, None)
        lab.draws(page, BENCH, 0, figures.mismatch_bars(found.mismatches, found.layer_names, found.compared))
        lab.draws(page, BENCH, 1, figures.accuracy_over_time(found.accuracy, found.ann_accuracy))
        for index, bits in enumerate(adder_bits(found.networks["exact"], found.networks["float"]).values()):
            lab.shows(page, BENCH, 2, index, "y", bits)


# Controls and drawings that reach beyond their explorer.
BEYOND = """() => [...document.querySelectorAll('.snn-explorer')].flatMap(box => {
    const right = box.getBoundingClientRect().right + 1;
    return [...box.querySelectorAll('input, select, button, svg.main-svg, canvas, .snn-drawing svg')]
        .filter(e => e.offsetParent !== null || e.tagName === 'svg')
        .filter(e => !e.closest('.snn-thumbs, .snn-table, .snn-steps'))
        .filter(e => e.getBoundingClientRect().right > right)
        .map(e => e.outerHTML.slice(0, 90)) })"""


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_explorers_fit_the_page_in_both_themes_and_can_be_named_by_a_screen_reader(page, theme):
    from axe_playwright_python.sync_playwright import Axe

    page.evaluate(f"() => jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})")
    page.wait_for_function(f"() => document.body.dataset.jpThemeName === 'JupyterLab {theme}'")
    for width in (1280, 800, 640):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(500)
        if width != 800:
            lab.screenshot(page, ARTIFACTS / f"{theme.lower()}-{width}.png")
        assert page.evaluate(BEYOND) == [], width
    ink = page.evaluate("() => getComputedStyle(document.querySelector('.snn-explorer .gtitle')).fill")
    brightness = sum(int(part) for part in re.findall(r"\d+", ink)[:3]) / 3
    assert (brightness > 128) == (theme == "Dark"), ink
    rules = ["label", "select-name", "button-name", "aria-input-field-name", "color-contrast", "role-img-alt"]
    found = Axe().run(page, ".snn-explorer", {"runOnly": rules}).response["violations"]
    wrong = {v["id"]: [node["html"] for node in v["nodes"]] for v in found}
    assert wrong == {}, json.dumps(wrong, indent=1)


def test_another_network_opens_everywhere_and_one_that_cannot_leaves_all_as_it_is(page):
    status = lab.explorer(page, CHOOSER).locator(".snn-status")
    lab.choose(page, CHOOSER, "network", "bundled:mnist-lenet-k0-clip2")
    lab.wait_until(page, lambda: "bundled:mnist-lenet-k0-clip2" in status.inner_text(), "the other network")
    box = lab.explorer(page, IMAGE)
    box.scroll_into_view_if_needed()
    # Its own images are not fetched: others stand in, by name, or its own are there.
    told = box.locator(".snn-note").first
    lab.wait_until(page, lambda: box.locator(".snn-thumb").count() > 0 and told.count() == 1, "the images")
    shown = box.locator(".snn-status")
    # The step that was shown stays until the other network's steps are there.
    lab.wait_until(
        page,
        lambda: lab.press(page, IMAGE, "time step T", "End") and f"after step {STEPS}" in shown.inner_text(),
        "the last step",
    )
    page.evaluate("""() => { const list = document.querySelector('.snn-explorer select');
        list.selectedIndex = 0; }""")
    assert page.errors == []


def test_a_notebook_that_is_opened_again_shows_its_explorers(page):
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.wait_for_function("() => document.querySelectorAll('.snn-explorer .snn-title').length === 6")
    assert page.locator("text=model not found").count() == 0
    box = lab.explorer(page, IMAGE)

    def moved() -> bool:
        # JupyterLab takes the focus once more when it is ready.
        box.get_by_label("time step T", exact=True).press("End")
        return f"after step {STEPS}" in box.locator(".snn-status").inner_text()

    lab.wait_until(page, moved, "the last step")


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
