"""One list of requirements, one list of exact versions, and an environment file that points at both."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [Requirement(text) for group in (PROJECT["dependencies"], *EXTRAS.values()) for text in group]
BENCH = [Requirement(text) for text in EXTRAS["bench"]]
LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if line.strip() and not line.startswith("#")]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
PLATFORM_ONLY = re.compile(r"nvidia-|cuda-|triton|pywin|colorama|appnope|uvloop")


def conda_packages() -> list[str]:
    return [entry for entry in CONDA["dependencies"] if isinstance(entry, str)]


def pip_arguments() -> list[str]:
    (section,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    return section


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_requirement_has_one_pin_that_satisfies_it(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    pins = [pin for pin in PINS if canonicalize_name(pin.name) == name]
    assert len(pins) == 1, f"constraints.txt pins {requirement.name} {len(pins)} times"
    (version,) = pins[0].specifier
    assert requirement.specifier.contains(version.version, prereleases=True)


@pytest.mark.parametrize("pin", PINS, ids=str)
def test_a_pin_is_one_exact_version_for_every_platform(pin: Requirement) -> None:
    assert [part.operator for part in pin.specifier] == ["=="]
    assert "*" not in str(pin.specifier)
    assert not (pin.url or pin.marker or pin.extras)
    assert not PLATFORM_ONLY.match(pin.name)


def test_no_package_is_pinned_twice_and_the_list_is_in_order() -> None:
    names = [canonicalize_name(pin.name) for pin in PINS]
    assert len(names) == len(set(names))
    assert [pin.name.lower() for pin in PINS] == sorted(pin.name.lower() for pin in PINS)


def test_no_requirement_is_listed_twice() -> None:
    names = [canonicalize_name(requirement.name) for requirement in REQUIREMENTS]
    assert len(names) == len(set(names))


def test_conda_brings_python_and_pip_only() -> None:
    assert sorted(re.match(r"[\w-]+", entry)[0] for entry in conda_packages()) == ["pip", "python"]
    assert CONDA["channels"] == ["conda-forge"]


def test_conda_and_pip_agree_on_the_python_version() -> None:
    (python,) = [entry for entry in conda_packages() if entry.startswith("python")]
    assert SpecifierSet(python.removeprefix("python")) == SpecifierSet(PROJECT["requires-python"])


def test_conda_installs_this_project_under_the_same_constraints_and_extras_as_make() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (command,) = re.findall(r"pip install (-c \S+) (-e) \"(\S+)\"", makefile)
    assert pip_arguments() == [command[0], f"{command[1]} {command[2]}"]
    extras = re.fullmatch(r"\.\[([\w,-]+)\]", command[2])[1].split(",")
    assert set(extras) <= set(EXTRAS)


def test_the_installed_versions_are_the_pinned_ones() -> None:
    from importlib.metadata import PackageNotFoundError, version

    differing = {}
    for requirement in REQUIREMENTS:
        (pin,) = [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
        wanted = str(pin.specifier).removeprefix("==")
        try:
            found = version(requirement.name).partition("+")[0]
        except PackageNotFoundError:
            found = None
        # Rivals of the benchmark: `make setup` leaves them out.
        if found is None and requirement in BENCH:
            continue
        if found != wanted:
            differing[requirement.name] = (found, wanted)
    if differing:
        pytest.skip(f"another environment than `make setup` makes (found, pinned): {differing}")


def test_python_versions_of_ruff_and_project_agree() -> None:
    target = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["target-version"]
    assert target == "py" + PROJECT["requires-python"].removeprefix(">=").replace(".", "")
