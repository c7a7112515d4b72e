"""A JupyterLab of its own on a free loopback port, and a headless browser that opens a notebook in it."""

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
from collections.abc import Iterator
from pathlib import Path

from ann_snn_utils.artifacts import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
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
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True",
        "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
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


def run_notebook(page, address: str, name: str) -> None:
    """Open a notebook in JupyterLab and run all of its cells; the page then shows every output."""
    page.goto(f"{address}/lab/tree/{name}?reset")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    # Commands that come before the kernel is ready are dropped.
    page.wait_for_function(_READY)
    page.evaluate(_RUN_ALL)
    page.wait_for_function(_DONE)
