"""The formats of the field: ONNX, QONNX, NIR and the harness of NeuroBench, each with a package of its own."""

from importlib.util import find_spec


def needed(*packages: str) -> None:
    """Raise ImportError that says how to install what is missing of packages."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise ImportError(f'{", ".join(missing)} is not installed: pip install -e ".[formats]"')
