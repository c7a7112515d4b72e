"""The packages of formats, of which each is needed only where it is asked for."""

from __future__ import annotations

from importlib.util import find_spec


def require_packages(*packages: str) -> None:
    """Raise ImportError that says how to install what is missing of packages."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise ImportError(f"{', '.join(missing)} is not installed: pip install {' '.join(missing)}")
