"""Seeds that every generator takes."""

from __future__ import annotations

import operator

import torch

LARGEST_SEED = 2**63 - 1


def generator(seed: int) -> torch.Generator:
    """Give a generator of torch that starts from a seed; ValueError for a number that is none."""
    return torch.Generator().manual_seed(checked_seed(seed))


def checked_seed(seed: int) -> int:
    """Give the seed back where it is a whole number from −2^63 to 2^63 − 1, else raise ValueError."""
    try:
        whole = operator.index(seed)
    except TypeError:
        whole = None
    if whole is None or not -LARGEST_SEED <= whole <= LARGEST_SEED:
        raise ValueError(f"seed={seed!r:.40}: give a whole number of at most 63 bits")
    return whole
