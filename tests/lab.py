"""A JupyterLab of its own on a free loopback port, a notebook in a headless browser, and what its page shows.

Explorers are counted from the top of the page, an explorer's figures and a figure's traces likewise.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from ann_snn_utils.files import ROOT

# Seconds to wait for what must come; none of them says how fast it has to be.
PATIENCE = 300.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
# anywidget says so after two seconds, of a page on a busy machine; the widget comes to life all the same.
_LATE = "[anywidget] Failed to initialize model"
_READY = """() => { const w = window.jupyterapp?.shell.currentWidget;
    return w?.context?.isReady && w.sessionContext?.session?.kernel?.status === 'idle' }"""
_RUN_ALL = """() => { window.jupyterapp.commands.execute('notebook:run-all-cells')
    .then(() => { window.ranAll = true }) }"""
_DONE = """() => { const w = window.jupyterapp.shell.currentWidget;
    return w.sessionContext.session.kernel.status === 'idle' && window.ranAll === true }"""


def find_browser() -> str | None:
    """Give the path of a Chromium: $CHROMIUM, or one on the path; None where there is none."""
    named = os.environ.get("CHROMIUM")
    found = [named] if named else map(shutil.which, BROWSERS)
    return next((path for path in found if path and os.path.exists(path)), None)


def free_port() -> int:
    """Give a TCP port of the loopback interface that nothing listens on."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_settings(folder: Path, theme: str) -> None:
    """Write the settings of a JupyterLab that asks nothing, saves nothing and has this theme."""
    settings = {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "apputils-extension/themes": {"theme": theme},
        "notebook-extension/tracker": {"windowingMode": "none"},
        "docmanager-extension/plugin": {"autosave": False},
    }
    for name, values in settings.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


@contextlib.contextmanager
def jupyterlab(folder: Path, theme: str = "JupyterLab Light") -> Iterator[str]:
    """Serve the notebooks in `folder` and yield the address; everything that it writes stays in `folder`."""
    write_settings(folder, theme)
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "ANN_SNN_RUNS": str(folder / "runs"),
    }
    environment.pop("PLOTLY_RENDERER", None)
    port, log = free_port(), folder / "jupyterlab.log"
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder}",
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.extension_manager=readonly",
    ]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait(f"http://127.0.0.1:{port}/api/status", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(url: str, server: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5).read(1)
            return
        if server.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"JupyterLab does not answer: {log.read_text()[-2000:]}")
        time.sleep(0.2)


def _listen(socket, page) -> None:
    def sent(frame) -> None:
        text = frame if isinstance(frame, str) else frame.decode(errors="replace")
        if '"ask"' in text:
            page.asked.append(text)

    socket.on("framereceived", lambda frame: page.received.append(len(frame)))
    socket.on("framesent", sent)


class Visit:
    """A page in a Chromium of its own, brought to where tests begin by `prepare`; `renew` replaces one that died.

    The page carries `errors`, what its scripts reported, `received`, the sizes of what its web sockets brought, and
    `asked`, what explorers asked the kernel.
    """

    def __init__(self, driver, prepare: Callable[..., None]) -> None:
        self.driver, self.prepare = driver, prepare
        self._open()

    def _open(self, tries: int = 3) -> None:
        self.browser = self.driver.chromium.launch(executable_path=find_browser(), args=FLAGS)
        self.page = page = self.browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.errors, page.received, page.asked = [], [], []
        page.on("pageerror", lambda error: _LATE not in str(error) and page.errors.append(str(error)))
        page.on(
            "console",
            lambda line: "[anywidget]" in line.text and _LATE not in line.text and page.errors.append(line.text),
        )
        page.on("websocket", lambda socket: _listen(socket, page))
        try:
            self.prepare(page)
        except Exception:
            if self.alive or tries == 1:
                raise
            warnings.warn("Chromium died while its page was opened: a new one was started", stacklevel=2)
            self.close()
            self._open(tries - 1)

    @property
    def alive(self) -> bool:
        """Whether the page still answers."""
        from playwright.sync_api import Error

        try:
            return self.page.evaluate("() => true")
        except Error:
            return False

    def renew(self) -> None:
        """Start a new browser and bring its page to the beginning."""
        self.close()
        self._open()

    def close(self) -> None:
        """End the browser, if it has not ended by itself."""
        from playwright.sync_api import Error

        with contextlib.suppress(Error):
            self.browser.close()


def survived(visit: Visit, name: str, test: Callable[[], None]) -> None:
    """Run a test; where its browser died under it, say so and run it again in a new one."""
    try:
        test()
    except Exception:
        if visit.alive:
            raise
        warnings.warn(f"{name}: Chromium died; the test was run again in a new one", stacklevel=2)
        visit.renew()
        test()


def run_notebook(page, address: str, name: str) -> None:
    """Open a notebook in JupyterLab and run all of its cells; the page then shows every output."""
    page.goto(f"{address}/lab/tree/{name}?reset")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    # Commands that come before the kernel is ready are dropped.
    page.wait_for_function(_READY)
    page.evaluate(_RUN_ALL)
    page.wait_for_function(_DONE)


# plotly.js keeps what it has decoded, typed arrays among it, in _fullData.
_READ = """([explorer, figure, trace, axis]) => {
    const plots = document.querySelectorAll('.snn-explorer')[explorer].querySelectorAll('.js-plotly-plot');
    const full = plots[figure]?._fullData?.[trace];
    const values = full ? full[axis] : null;
    const whole = v => ArrayBuffer.isView(v) || Array.isArray(v) ? Array.from(v) : v;
    return values ? Array.from(values, whole) : null }"""


def explorer(page, number: int):
    """Give an explorer's box."""
    return page.locator(".snn-explorer").nth(number)


def value(page, number: int, label: str) -> float:
    """Give the value of a control by its label."""
    return float(explorer(page, number).get_by_label(label, exact=True).input_value())


def press(page, number: int, label: str, key: str, times: int = 1) -> float:
    """Move a slider with the keyboard and give the value that it then has."""
    explorer(page, number).get_by_label(label, exact=True).focus()
    for _ in range(times):
        page.keyboard.press(key)
    return value(page, number, label)


def choose(page, number: int, label: str, option: str) -> None:
    """Choose from a drop-down list."""
    explorer(page, number).get_by_label(label, exact=True).select_option(option)


def wait_until(page, condition, what: str) -> None:
    """Wait until condition() is true; fail with `what` it is where it never is."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        page.wait_for_timeout(50)


def shows(page, number: int, figure: int, trace: int, axis: str, expected) -> None:
    """Wait until the page has drawn these numbers, and fail with what it shows instead."""
    end, expected = time.monotonic() + PATIENCE, _plain(expected)
    while True:
        found = page.evaluate(_READ, [number, figure, trace, axis]) or []
        if _same(found, expected):
            return
        if time.monotonic() > end:
            assert found == expected, f"explorer {number}, figure {figure}, trace {trace}, {axis}"
        page.wait_for_timeout(50)


def draws(page, number: int, figure: int, expected: go.Figure) -> None:
    """Wait until a figure of the page shows every coordinate of this one."""
    for index, trace in enumerate(expected.data):
        for axis in {"x", "y", "z"} & set(trace):
            if trace[axis] is not None:
                shows(page, number, figure, index, axis, trace[axis])


def screenshot(page, path: Path) -> None:
    """Write a picture of the whole notebook, from top to bottom."""
    size, panel = page.viewport_size, page.locator(".jp-WindowedPanel-outer").first
    # What is higher than the page would be cut off.
    beyond = panel.evaluate("e => e.scrollHeight - e.clientHeight")
    page.set_viewport_size(size | {"height": size["height"] + beyond})
    page.mouse.move(0, 0)
    panel.evaluate("e => e.scrollTo(0, 0)")
    page.wait_for_timeout(1000)
    panel.screenshot(path=path)
    page.set_viewport_size(size)


def _plain(values) -> list:
    array = np.asarray([] if values is None else values)
    return array.tolist() if array.dtype != object else [_plain(v) if np.ndim(v) else v for v in array]


def _same(one: list, other: list) -> bool:
    if np.shape(one) != np.shape(other):
        return False
    pairs = zip(np.ravel(np.asarray(one, object)), np.ravel(np.asarray(other, object)), strict=True)
    return all(a == b or None not in (a, b) and abs(a - b) <= 1e-9 * max(1, abs(a)) for a, b in pairs)
