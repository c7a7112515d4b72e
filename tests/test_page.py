"""The explorer of one image as a page of its own, in a browser, offline and without a kernel."""

from __future__ import annotations

import json

import lab
import numpy as np
import pytest
import torch
from networks import random_ann, random_images

from ann_snn_utils.ann.reference import codes
from ann_snn_utils.data.dataset import Dataset
from ann_snn_utils.explore import one_image
from ann_snn_utils.files import ROOT
from ann_snn_utils.runs.gallery import Network, open_network
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert

pytestmark = pytest.mark.slow

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need `pip install playwright`")
if lab.find_browser() is None:
    pytest.skip("no Chromium here", allow_module_level=True)

STEPS, ARTIFACTS = 6, ROOT / "tests" / "artifacts"
NETWORKS = {
    "valid": (dict(clip=2), "exact"),
    "same, k = 2, three colours": (dict(network="3C3-P2-4C3-5", in_shape=(3, 8, 8), padding="same", k=2), "exact"),
    "int8 weights": (dict(ternary=False), "exact"),
    "published": (dict(clip=3), "published"),
    "real thresholds": (dict(), "float"),
}


def network(arguments: dict, form: str) -> Network:
    ann = random_ann(5, **arguments)
    samples = Dataset(
        "random", "test", random_images(2, ann.spec.in_shape, 6), torch.arange(6) % 3, ("a", "b", "c")
    )
    return Network("random", ann, convert(ann, form), samples)


@pytest.fixture(scope="module")
def context():
    """One for all pages: another one would be another process with an empty cache."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=lab.find_browser(), args=lab.FLAGS)
        context = browser.new_context()
        context.set_default_timeout(1000 * lab.PATIENCE)
        yield context
        browser.close()


@pytest.fixture
def show(context, tmp_path, monkeypatch):
    """Opens the page of a network in a tab; it fails where the page asks for anything, or reports an error."""
    monkeypatch.setenv("PLOTLY_RENDERER", "json")
    tab, errors, asked = context.new_page(), [], []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))

    def show(net: Network, width: int = 1100, scheme: str = "light", steps: int = STEPS, **arguments):
        path = one_image(net, steps, **arguments).save(tmp_path / "page.html")
        tab.set_viewport_size({"width": width, "height": 800})
        tab.emulate_media(color_scheme=scheme)
        tab.goto(path.as_uri())
        tab.wait_for_function("() => document.querySelector('.snn-explorer')?.explorer")
        return tab

    yield show
    tab.close()
    assert errors == [] and [url for url in asked if not url.startswith(("file:", "blob:", "data:"))] == []


def rows(page) -> list[dict]:
    return page.evaluate("() => document.querySelector('.snn-explorer').explorer.rows()")


def said(page) -> str:
    return page.locator(".snn-status").inner_text()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_page_computes_every_membrane_and_threshold_that_the_simulator_has(show, name):
    net = network(*NETWORKS[name])
    page = show(net)
    record = simulate(net.snn, net.samples.images[1][None], STEPS, trace=[0])
    found = page.evaluate(
        """async sizes => {
            const { open, choose, items, rows } = document.querySelector('.snn-explorer').explorer;
            await open(items[1]);
            return sizes.map((size, layer) => Array.from({ length: size }, (_, neuron) => {
                if (neuron % 8 === 0) choose(layer, neuron);
                return rows(layer, neuron) })) }""",
        [layer.neurons for layer in net.snn.layers],
    )
    for index, layer in enumerate(net.snn.layers):
        spikes, membranes = (
            t[index][:, 0].flatten(1).T.tolist() for t in (record.traces.spikes, record.traces.membranes)
        )
        rising, falling = (np.asarray(table) for table in layer.compared)
        per_channel = layer.neurons // len(rising)
        for neuron, history in enumerate(found[index]):
            assert [row["spike"] for row in history] == spikes[neuron]
            assert [row["u"] for row in history] == pytest.approx(membranes[neuron], abs=1e-9)
            for step, row in enumerate(history):
                n, channel = row["before"], neuron // per_channel
                above, below = (step, None) if index == 0 else (n, n - 1 if n else None)
                inside = above < rising.shape[1] and (index or step < net.snn.levels)
                assert row["high"] == (rising[channel][above] if inside else None)
                assert row["low"] == (None if below is None else falling[channel][below])


def test_time_moves_without_a_kernel_by_key_and_by_playing(show):
    net = network(*NETWORKS["valid"])
    page = show(net)
    record = simulate(net.snn, net.samples.images[0][None], STEPS)
    slider = page.get_by_label("time step T", exact=True)
    for step in (3, 4, 5):
        slider.press("ArrowRight")
        answer = net.samples.classes[int(record.predictions[step - 1, 0])]
        assert f"after step {step}: “{answer}”" in said(page)
        assert f"{int(record.spike_num[step - 1]):,} hidden spikes" in said(page)
    slider.press("Home")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => document.querySelector('.snn-status').textContent.includes('after step 6')")
    page.get_by_role("button", name="Play").wait_for()


def test_a_click_on_a_map_opens_the_neuron_and_says_why_its_membrane_is_what_it_is(show):
    net = network(*NETWORKS["valid"])
    page = show(net)
    # The third cell of the second row of the map of layer 1 belongs to channel 0.
    frame = page.locator(".snn-map").nth(1)
    box, wide, high = frame.bounding_box(), *frame.locator("canvas").evaluate("c => [c.width, c.height]")
    frame.click(position={"x": (2 + 0.5) * box["width"] / wide, "y": (1 + 0.5) * box["height"] / high})
    numbers = [int(page.get_by_label(name, exact=True).input_value()) for name in ("channel", "row", "column")]
    assert numbers == [0, 1, 2]
    assert page.locator(".snn-marker:visible").count() == 1
    membranes = simulate(net.snn, net.samples.images[0][None], STEPS, trace=[0]).traces.membranes[1][:, 0, 0, 1, 2]
    before, now = int(membranes[0]), int(membranes[1])
    assert page.locator(".snn-sum").inner_text().startswith(f"U = {before} + (")
    assert f"= {now} " in page.locator(".snn-sum").inner_text()
    cells = page.locator(".snn-steps tbody tr td:nth-child(2)").all_inner_texts()
    assert [int(cell.replace(",", "")) for cell in cells] == membranes.tolist()


def test_a_neuron_that_takes_maxima_says_so_and_not_that_it_adds_what_arrived(show):
    net = network(dict(network="3C3-M2-4", clip=3), "exact")
    page = show(net)
    membranes = simulate(net.snn, net.samples.images[0][None], STEPS, trace=[0]).traces.membranes[1][:, 0]
    channel, row, column = (int(place) for place in (membranes[1] == membranes[1].max()).nonzero()[0])
    page.evaluate(
        "at => document.querySelector('.snn-explorer').explorer.choose(1, at)", 9 * channel + 3 * row + column
    )
    now = int(membranes[1, channel, row, column])
    assert page.locator(".snn-sum").inner_text().startswith(f"U = the largest count in the window = {now} ")
    assert page.locator(".snn-sheets figcaption").all_inner_texts() == ["spikes of 0 · 3C3"]


def test_a_click_on_a_spike_of_the_raster_goes_to_its_neuron_and_step(show):
    net = network(*NETWORKS["valid"])
    page = show(net)
    spikes = simulate(net.snn, net.samples.images[0][None], STEPS, trace=[0]).traces.spikes[3][:, 0].flatten(1)
    step, neuron = next((int(t), int(n)) for t, n in spikes.nonzero())
    box = page.locator(".snn-raster").bounding_box()
    depth, size = len(net.snn.layers), net.snn.layers[3].neurons
    x, y = (step * depth + 3.5) / (STEPS * depth), (3 + (neuron + 0.5) / size) / depth
    page.locator(".snn-raster").click(position={"x": x * box["width"], "y": y * box["height"]})
    assert f"after step {step + 1}" in said(page)
    assert int(page.get_by_label("channel", exact=True).input_value()) == neuron
    assert rows(page)[step]["spike"] == int(spikes[step, neuron])


def test_images_can_be_chosen_by_class_by_error_and_by_key(show):
    net = network(*NETWORKS["valid"])
    page = show(net)
    record = simulate(net.snn, net.samples.images, STEPS)
    thumbs = page.locator(".snn-thumb")

    def listed() -> list[int]:
        return [int(text.split()[1].rstrip(",")) for text in thumbs.evaluate_all("t => t.map(e => e.ariaLabel)")]

    assert listed() == list(range(6))
    filters = page.get_by_label("images", exact=True)
    filters.select_option("class “b”")
    assert listed() == (net.samples.labels == 1).nonzero().flatten().tolist()
    filters.select_option("only wrong at T")
    assert listed() == (record.predictions[1] != net.samples.labels).nonzero().flatten().tolist()
    filters.select_option("slowest to settle")
    settled = [int(record.settled_at[sample]) or 99 for sample in listed()]
    assert settled == sorted(settled, reverse=True)
    filters.select_option("all images")
    thumbs.first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('.snn-status').textContent.startsWith('Image 1,')")
    assert thumbs.nth(1).get_attribute("aria-selected") == "true"
    assert rows(page) and codes(net.ann, net.samples.images[1][None])[1].argmax() == page.evaluate(
        "() => document.querySelector('.snn-explorer').explorer.run().ann"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_any_width_and_a_screen_reader_can_name_all_of_it(show, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = show(open_network("bundled:digits-lenet-k0"), 1280, scheme, 8, samples=12)
    ARTIFACTS.mkdir(exist_ok=True)
    for width in (1280, 800, 640):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function(f"() => document.documentElement.scrollWidth <= {width}")
        page.screenshot(path=ARTIFACTS / f"page-{scheme}-{width}.png", full_page=True)
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"]}).response["violations"]
    wrong = {v["id"]: [node["html"] for node in v["nodes"]] for v in found}
    assert wrong == {}, json.dumps(wrong, indent=1)
