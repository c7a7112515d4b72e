"""Records written by hand, and one run that tests share."""

from __future__ import annotations

import numpy as np
import torch

from ann_snn_utils.simulator.record import Record


def hand_made(**changes) -> Record:
    """Three steps of two samples through layers of 4, 3 and 2 neurons; two classes; labels 0 and 1."""
    fields = dict(
        logits=torch.tensor([[[1, 0], [5, 0]], [[0, 3], [2, 2]], [[4, 3], [0, 1]]]),
        labels=torch.tensor([0, 1]),
        counts=[torch.zeros(2, n, 1, 1, dtype=torch.int64) for n in (4, 3, 2)],
        settled_at=torch.tensor([2, 0]),
        positive=np.array([[8, 3, 1], [2, 2, 2], [0, 1, 0]]),
        negative=np.array([[0, 0, 0], [0, 1, 1], [0, 2, 0]]),
        sops=np.array([[0, 24, 6], [0, 6, 6], [0, 0, 6]]),
        effective_sops=np.array([[0, 16, 4], [0, 4, 2], [0, 0, 2]]),
        encoder_sops=np.array([[0, 24, 0], [0, 6, 0], [0, 0, 0]]),
        pending=np.zeros((3, 3), dtype=np.int64),
        layer_names=("4", "3", "2"),
        neurons=(4, 3, 2),
    )
    return Record(**fields | changes)
