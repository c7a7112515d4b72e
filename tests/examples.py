"""How many random examples a property is tried with: as many as it says, or a fifth of them in `make check`."""

from __future__ import annotations

from hypothesis import settings

# What hypothesis tries where nothing is said.
_ALL = 100


def tries(number: int) -> settings:
    """For a test: `number` examples, or as large a part of them as the profile of the run has."""
    return settings(max_examples=-(-number * settings.default.max_examples // _ALL))
