"""A notebook's listing is the source that runs, below the path that it stands in."""

from __future__ import annotations

import inspect

import torch

from ann_snn_utils.explore.listing import listing
from ann_snn_utils.simulator import oracle


def test_a_listing_is_the_source_below_its_path():
    text = listing(oracle.fire, oracle.settled_at).data
    first, second = (f"```python\n{inspect.getsource(one)}```" for one in (oracle.fire, oracle.settled_at))
    path = "*ann_snn_utils/simulator/oracle.py*"
    assert text == f"{path}\n\n{first}\n\n{path}\n\n{second}"


def test_what_a_decorator_wraps_is_listed_and_a_method_starts_at_the_margin():
    class Rule:
        @torch.no_grad()
        def apply(self):
            return 1

    assert "```python\n@torch.no_grad()\ndef apply(self):\n    return 1\n```" in listing(Rule.apply).data
