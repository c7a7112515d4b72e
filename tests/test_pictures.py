"""Pictures hold the pixels, kernels and evidence that they were given."""

from __future__ import annotations

import base64
import io

import numpy as np
import plotly.graph_objects as go
import torch
from networks import random_images
from PIL import Image, ImageColor

from ann_snn_utils import figures
from ann_snn_utils.figures.look import FALL, RISE


def pixels_of(figure: go.Figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(figure.data[0].source.partition(",")[2]))))


def test_an_answer_stands_behind_the_class():
    drawn = figures.sample_images(random_images(0, (1, 8, 8), 2), [0, 1], "ab", answers=[1, 1], title="Wrong")
    assert [note.text for note in drawn.layout.annotations] == ["a → b", "b → b"]


def test_of_a_kernel_what_adds_is_blue_what_subtracts_orange_and_zero_a_pale_ground():
    picture = pixels_of(figures.kernels(torch.tensor([1.0, -1.0, 0.5, 0.0]).reshape(1, 1, 2, 2)))
    blue, orange = ([*ImageColor.getrgb(color)] for color in (RISE, FALL))
    assert picture[0, :2].tolist() == [[*blue, 255], [*orange, 255]]
    assert picture[1, 0].tolist() == [*blue, 128] and picture[1, 1].tolist() == [128, 128, 128, 36]


def test_the_kernels_of_a_filter_stand_side_by_side_with_room_between():
    weight = np.ones((1, 4, 2, 2))
    assert [row[:5, 3].tolist() for row in pixels_of(figures.kernels(weight))[:3]] == [
        [255, 255, 0, 255, 255],
        [255, 255, 0, 255, 255],
        [0] * 5,
    ]


def test_a_class_is_shown_above_what_speaks_for_it():
    images = np.full((2, 1, 3, 3), 9, dtype=np.uint8)
    evidence = np.zeros((2, 1, 3, 3))
    evidence[1, 0, 0, 0] = -0.5
    drawn = figures.class_pictures(images, evidence, ["x", "y"])
    picture = pixels_of(drawn)
    assert [note.text for note in drawn.layout.annotations] == ["x", "y", "x", "y"]
    assert (picture[:3, :3] == [9, 9, 9, 255]).all()
    assert picture[4, 4].tolist() == [*ImageColor.getrgb(FALL), 255] and picture[4, 5, 3] == 36


def test_counts_are_shares_of_the_neurons_of_a_layer():
    drawn = figures.count_histogram([torch.tensor([0, 0, 0, 2]).reshape(1, 1, 2, 2)], ["P2"])
    (line,) = drawn.data
    assert (list(line.x), list(line.y), line.name) == ([0, 2], [75.0, 25.0], "0 · P2")
    far_apart = figures.count_histogram([torch.tensor([-100, 100], dtype=torch.int8)], ["P2"])
    assert list(far_apart.data[0].x) == [-100, 100]
