"""The animation of one image: a frame for each step that holds its spikes, as a GIF or as a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ann_snn_utils.cli import main
from ann_snn_utils.figures.look import FALL, RISE
from ann_snn_utils.figures.pictures import spike_gif

STEPS, RED, BLUE = 3, tuple(bytes.fromhex(FALL[1:])), tuple(bytes.fromhex(RISE[1:]))


def colours(frame: Image.Image) -> set[tuple[int, ...]]:
    return {colour for _, colour in frame.convert("RGB").getcolors(1 << 20)}


def test_each_step_is_a_frame_with_its_spikes_in_the_colour_of_their_sign(tmp_path: Path) -> None:
    spikes = np.zeros((STEPS, 4, 5, 5), dtype=np.int8)
    spikes[0, 1, 2, 2], spikes[1, 3, 0, 4] = 1, -1
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    image = np.zeros((1, 5, 5), dtype=np.uint8)
    gif = Image.open(spike_gif(tmp_path / "a.gif", image, [spikes], scores, ["4C1"], "xy", 1))
    assert gif.n_frames == STEPS
    found = []
    for step in range(STEPS):
        gif.seek(step)
        # Below the image and the scores.
        found.append(colours(gif.crop((600, 40, 900, 276))))
    assert [BLUE in one for one in found] == [True, False, False]
    assert [RED in one for one in found] == [False, True, False]


def test_a_command_writes_a_gif_or_a_page_that_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["animate", "bundled:digits-lenet-k0", "--sample", "2", "--time-steps", "4"]
    assert main(command) == 0
    assert Image.open("digits-lenet-k0-2.gif").n_frames == 4
    assert capsys.readouterr().out == "wrote digits-lenet-k0-2.gif: image 2 of digits\n"
    assert main([*command, "--out", "page.html"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert 'src="http' not in page and '"first": 2' in page, "it is offline, and image 2 is called so"
    assert main(command) == 0 and Path("digits-lenet-k0-2-2.gif").exists(), "beside the first one"
    for arguments, message in (
        (["--out", "page.html"], "page.html is there already: give --out the path of a new file"),
        (["--out", "x.mp4"], "x.mp4: name a file that ends in .gif or .html"),
        (["--sample", "9999"], "sample=9999: 'digits' has images 0 to 359"),
    ):
        assert main([*command, *arguments]) == 2
        assert message in capsys.readouterr().err
