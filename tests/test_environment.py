"""One list of requirements, one list of exact versions, and an environment file that points at both."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [Requirement(text) for group in (PROJECT["dependencies"], *EXTRAS.values()) for text in group]
BENCH = [Requirement(text) for text in EXTRAS["bench"]]
LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if line.strip() and not line.startswith("#")]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
ADMITTED = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", text)]
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


def test_the_oldest_python_that_is_admitted_is_the_first_of_those_that_are_named() -> None:
    admitted = SpecifierSet(PROJECT["requires-python"])
    assert admitted.contains(f"{ADMITTED[0]}.0") and len(ADMITTED) >= 4
    major, minor = map(int, ADMITTED[0].split("."))
    assert not admitted.contains(f"{major}.{minor - 1}.99")
    assert [int(text.split(".")[1]) for text in ADMITTED] == list(range(minor, minor + len(ADMITTED)))


@pytest.mark.parametrize("pin", PINS, ids=str)
def test_a_pinned_version_can_be_installed_under_every_python_that_is_admitted(pin: Requirement) -> None:
    try:
        found = distribution(pin.name)
    except PackageNotFoundError:
        pytest.skip("not installed here")
    if not pin.specifier.contains(found.version.partition("+")[0], prereleases=True):
        pytest.skip(f"{found.version} is installed here")
    wanted = SpecifierSet(found.metadata.get("Requires-Python") or "")
    # The first release of each: 4.1.2 of soupsieve asked for 3.11.5, and Debian 12 has 3.11.2.
    refusing = [python for python in ADMITTED if not wanted.contains(f"{python}.0")]
    assert not refusing, f"{pin} needs Python {wanted}: pin a version that takes {', '.join(refusing)}"


def test_there_is_one_version_and_the_citation_gives_it() -> None:
    import ann_snn_utils

    assert PROJECT["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "ann_snn_utils.__version__"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == ann_snn_utils.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {ann_snn_utils.__version__}" in changes


def test_hooks_before_a_commit_fetch_nothing_and_do_what_make_does() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    makefile = " ".join((ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ").split())
    strip = next(hook["entry"] for hook in repository["hooks"] if hook["id"] == "nbstripout")
    assert strip.removeprefix("python ") in makefile


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
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + PROJECT["requires-python"].removeprefix(
        ">="
    ).replace(".", "")
