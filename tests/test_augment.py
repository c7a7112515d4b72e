"""Augmentation: random windows of larger images, and shifts as they were drawn before there were any."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ann_snn_utils.data.augment import AUGMENTATIONS, augment

# A cut-out's mean colour would hide where a pixel came from.
UNCUT = [name for name, one in AUGMENTATIONS.items() if not one.cutout]
ZEROS = ["none", "shift", "shift-flip"]


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


@tries(40)
@given(st.integers(0, 999), st.integers(1, 9), st.integers(0, 6), st.integers(0, 6), st.sampled_from(UNCUT))
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
    assert AUGMENTATIONS[recipe].flip or (steps == 1).all()


def test_every_window_occurs_and_about_equally_often():
    crops = augment(numbered(6000, 6, 5), "none", seeded(0), (4, 4))
    places = crops[:, 0, 0, 0].int() * 2 + crops[:, 1, 0, 0].int()
    assert places.bincount().tolist() == pytest.approx([1000] * 6, abs=150)


def test_a_seed_gives_the_same_crops_again_and_another_seed_gives_others():
    images = numbered(50, 12, 12)
    first, again, other = (augment(images, "shift-flip", seeded(seed), (8, 8)) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("recipe", ZEROS)
@pytest.mark.parametrize("size", [None, (9, 7)])
def test_images_of_the_networks_own_size_are_shifted_bit_for_bit_as_before_there_were_crops(recipe, size):
    images = torch.randint(0, 256, (33, 3, 9, 7), generator=seeded(1), dtype=torch.uint8)
    mine, before = seeded(2), seeded(2)
    chosen = AUGMENTATIONS[recipe]
    expected = shifted_whole(images, chosen.shift, bool(chosen.flip), before)
    assert torch.equal(augment(images, recipe, mine, size), expected)
    assert torch.equal(mine.get_state(), before.get_state())


def test_reflected_shifts_are_windows_of_the_image_continued_by_its_mirror_image():
    images = torch.randint(0, 256, (64, 3, 7, 6), generator=seeded(1), dtype=torch.uint8)
    padded = F.pad(images.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    tops, lefts = torch.randint(0, 5, (2, 64), generator=seeded(2))
    expected = [p[:, y : y + 7, x : x + 6] for p, y, x in zip(padded, tops.tolist(), lefts.tolist(), strict=True)]
    assert torch.equal(augment(images, "reflect", seeded(2)), torch.stack(expected))


@pytest.mark.parametrize("side", [1, 2])
def test_images_too_small_to_be_reflected_are_shifted_within_themselves(side):
    image = torch.full((20, 1, side, side), 9, dtype=torch.uint8)
    assert torch.equal(augment(image, "reflect", seeded(0)), image)


def test_mirror_images_that_alternate_are_those_asked_for():
    images, mirrored = numbered(40, 6, 6), torch.arange(40) % 3 == 0
    columns = augment(images, "reflect-flip", seeded(0), mirrored=mirrored)[:, 1, 2].int()
    assert torch.equal(columns[:, 3] < columns[:, 2], mirrored)


def test_a_cut_out_is_one_square_of_the_mean_colour_and_nothing_else_changes():
    images = torch.randint(0, 100, (200, 2, 16, 16), generator=seeded(1), dtype=torch.uint8)
    images[:, :, 0, 0] = 255
    plain, cut = augment(images, "reflect", seeded(3)), augment(images, "reflect-cutout", seeded(3))
    mean = plain.float().mean((2, 3), keepdim=True).round().to(torch.uint8).expand_as(plain)
    changed = (plain != cut).any(1)
    assert torch.equal(cut[(plain != cut)], mean[(plain != cut)])
    for one in changed:
        rows, columns = one.any(1).nonzero(), one.any(0).nonzero()
        assert rows.max() - rows.min() < 6 and columns.max() - columns.min() < 6
    assert changed.sum((1, 2)).float().mean() > 34
    places = {tuple(one.nonzero()[0].tolist()) for one in changed}
    assert len(places) > 50
