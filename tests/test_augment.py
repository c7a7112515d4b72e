"""Augmentation: random windows of larger images, and shifts as they were drawn before there were any."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ann_snn_utils.data.augment import RECIPES, augment


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(samples: int, height: int, width: int) -> Tensor:
    """Images whose pixel tells its place, in two channels: row and column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns]).to(torch.uint8).expand(samples, -1, -1, -1).contiguous()


def shifted_whole(images: Tensor, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    """The recipes for images of the network's own size, written out image by image, offsets drawn as one table."""
    height, width = images.shape[2:]
    if shift:
        offsets = torch.randint(0, 2 * shift + 1, (2, len(images)), generator=generator)
        padded = F.pad(images, (shift, shift, shift, shift))
        images = torch.stack(
            [
                image[:, top : top + height, left : left + width]
                for image, top, left in zip(padded, *offsets.tolist(), strict=True)
            ]
        )
    if flip:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.stack([image.flip(2) if m else image for image, m in zip(images, mirrored, strict=True)])
    return images


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(1, 9), st.integers(0, 6), st.integers(0, 6), st.sampled_from([*RECIPES]))
def test_a_crop_is_a_window_of_its_image_mirrored_only_where_the_recipe_does(seed, samples, down, right, recipe):
    if not down and not right:
        right = 1
    crops = augment(numbered(samples, 5 + down, 4 + right), recipe, seeded(seed), (5, 4)).int()
    assert crops.shape == (samples, 2, 5, 4)
    rows, columns = crops[:, 0], crops[:, 1]
    assert (rows.diff(dim=1) == 1).all() and (rows.diff(dim=2) == 0).all()
    assert (columns.diff(dim=1) == 0).all()
    steps = columns.diff(dim=2)
    assert (steps == steps[:, :1, :1]).all() and (steps.abs() == 1).all()
    assert RECIPES[recipe][1] or (steps == 1).all()


def test_every_window_occurs_and_about_equally_often():
    crops = augment(numbered(6000, 6, 5), "none", seeded(0), (4, 4))
    places = crops[:, 0, 0, 0].int() * 2 + crops[:, 1, 0, 0].int()
    assert places.bincount().tolist() == pytest.approx([1000] * 6, abs=150)


def test_a_seed_gives_the_same_crops_again_and_another_seed_gives_others():
    images = numbered(50, 12, 12)
    first, again, other = (augment(images, "shift-flip", seeded(seed), (8, 8)) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("size", [None, (9, 7)])
def test_images_of_the_networks_own_size_are_shifted_bit_for_bit_as_before_there_were_crops(recipe, size):
    images = torch.randint(0, 256, (33, 3, 9, 7), generator=seeded(1), dtype=torch.uint8)
    mine, before = seeded(2), seeded(2)
    assert torch.equal(augment(images, recipe, mine, size), shifted_whole(images, *RECIPES[recipe], before))
    assert torch.equal(mine.get_state(), before.get_state())
