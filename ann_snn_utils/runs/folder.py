"""Run folders data/runs/<run>/ and sweeps of them: their names, what is in them, and which notebook makes it."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..files import ROOT, load_json
from .manifest import MANIFEST
from .parameters import ordered_notebooks, takers_of

ANN_FILE, QANN_FILE, SNN_FILE = "ann.safetensors", "qann.safetensors", "snn.safetensors"
RESULTS_FILE = "results.json"

ARTIFACTS: dict[str, str] = {
    ANN_FILE: "01_train_ann",
    QANN_FILE: "02_quantize",
    SNN_FILE: "03_convert",
    RESULTS_FILE: "04_spike_analysis",
}

SWEEPS, SWEEP_FILE = "sweeps", "sweep.json"

# Where the results of a run under other settings than its own lie, each file named after its settings.
TRIALS = "trials"

_RESERVED = {SWEEPS, "con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}

_IN_NAME = {"dataset": "digits", "network": "lenet", "k": 0, "ternary": True, "seed": 0}


def runs_root() -> Path:
    """The folder of all runs: $ANN_SNN_RUNS, else data/runs, relative to the repository root."""
    return ROOT / os.path.expanduser(os.environ.get("ANN_SNN_RUNS") or "data/runs")


def check_run_name(run: str, kind: str = "run") -> str:
    """Return the name of a run, or of another kind of thing, where it is a valid folder name on every system.

    ValueError says what is wrong with it.
    """
    if wrong := _wrong_in(run, kind):
        raise ValueError(f"{kind}={run!r:.150}{wrong}")
    return run


def _wrong_in(name: str, kind: str) -> str:
    if not isinstance(name, str) or not name:
        return f": give the {kind} a name, such as 'digits-lenet-k0'"
    if odd := sorted(set(re.sub(r"[A-Za-z0-9._+=-]", "", name))):
        return f" holds {' '.join(map(repr, odd[:10]))}: use letters, digits and . _ + = - only"
    if not name[0].isalnum() or name.endswith("."):
        return ": begin with a letter or a digit and do not end with a dot"
    if len(name) > 120:
        return f" has {len(name)} characters: use at most 120"
    return " is a reserved name: choose another one" if name.split(".")[0].lower() in _RESERVED else ""


def run_folder(run: str, create: bool = False) -> Path:
    """The folder of a run, made where `create` is set.

    Raises ValueError for an invalid name, FileNotFoundError, with the nearest runs, where there is none,
    OSError where it cannot be made.
    """
    folder = runs_root() / check_run_name(run)
    if create:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            remedy = "make its parent a writable folder, or set ANN_SNN_RUNS to one"
            raise OSError(error.errno, f"cannot make {folder} ({error}): {remedy}") from error
    elif not folder.is_dir():
        raise missing("run", run, list_runs())
    return folder


def missing(kind: str, name: str, names: Sequence[str]) -> FileNotFoundError:
    """The error for a run or a sweep that is not there, with the nearest of those that are."""
    near = ", ".join(difflib.get_close_matches(name, names, cutoff=0.3) or names[:5]) or "none yet"
    return FileNotFoundError(f"there is no {kind} {name!r} in {runs_root()}: choose one that is there ({near})")


def sweep_folder(sweep: str) -> Path:
    """The folder of a sweep's own files, sweeps/<sweep> among the runs; ValueError for an invalid name."""
    return runs_root() / SWEEPS / check_run_name(sweep, "sweep")


def list_runs(file: str = MANIFEST) -> list[str]:
    """The names of all runs that have a file, in alphabetical order.

    A folder with a name that no run can have, such as a copy that a file manager made, is none.
    """
    names = (path.parent.name for path in runs_root().glob(f"*/{file}"))
    return sorted(name for name in names if not _wrong_in(name, "run"))


def recorded_last(runs: Iterable[str]) -> str:
    """The run among these that was recorded last; empty where there is none."""
    root = runs_root()
    return max(runs, key=lambda run: ((root / run / MANIFEST).stat().st_mtime_ns, run), default="")


def latest_run(artifact: str) -> str:
    """The run that was recorded last among those that hold an artifact; FileNotFoundError where there is none."""
    root = runs_root()
    if run := recorded_last(run for run in list_runs() if (root / run / artifact).is_file()):
        return run
    raise FileNotFoundError(f"no run in {root} has {artifact} yet: {_remedy(artifact)}")


def require(folder: str | os.PathLike[str], artifact: str) -> Path:
    """The path of an artifact; where it is missing, FileNotFoundError names the notebook to run."""
    path = Path(folder) / artifact
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {_remedy(artifact)}")
    return path


def _remedy(artifact: str) -> str:
    if artifact not in ARTIFACTS:
        return "check its name"
    return f"notebook {ARTIFACTS[artifact]} makes it; run it first, or the whole study with `ann-snn study`"


def digest_of(value: Any) -> str:
    """The SHA-256 of JSON values, in whatever order their names stand: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def default_run_name(
    parameters: Mapping[str, Any], notebooks: Sequence[str | os.PathLike[str]] | None = None
) -> str:
    """The name of the run with these parameters, such as digits-lenet-k0-ternary-s0.

    Parameters that are left out have the defaults of the notebooks, all of them unless some are given. Where
    any other one differs from its default, or a name had to be shortened, eight hexadecimal digits of these
    follow: no two settings share a name.
    """
    takers = takers_of(ordered_notebooks() if notebooks is None else notebooks)
    defaults = {name: [taker.default for taker in own.values()] for name, own in takers.items()}
    full = _IN_NAME | {name: first for name, (first, *_) in defaults.items()} | dict(parameters)
    # A value counts as the default only where every notebook that takes it has that default.
    rest = {
        name: value
        for name, value in parameters.items()
        if name not in {"run", *_IN_NAME}
        and (name not in defaults or any(value != default for default in defaults[name]))
    }
    parts = []
    for name in ("dataset", "network"):
        text = str(full[name])
        short = re.sub(r"[^A-Za-z0-9]+", "-", Path(text).name).strip("-")[:32].strip("-") or name
        parts.append(short)
        if short != text:
            rest[name] = text
    parts += [f"k{full['k']}", "ternary" if full["ternary"] else "int8", f"s{full['seed']}"]
    if rest:
        parts.append(digest_of(rest)[:8])
    return check_run_name("-".join(parts))


class SweepFile(msgspec.Struct, kw_only=True):
    """What a sweep asked for: its notebooks, the parameters that vary, and the parameters of each run."""

    notebooks: list[str]
    varied: list[str]
    runs: dict[str, dict[str, Any]]

    def __post_init__(self) -> None:
        for run in self.runs:
            check_run_name(run)


def list_sweeps() -> list[str]:
    """Names of all sweeps, in alphabetical order."""
    return sorted(path.parent.name for path in (runs_root() / SWEEPS).glob(f"*/{SWEEP_FILE}"))


def read_sweep_file(name: str) -> SweepFile:
    """What a sweep asked for; FileNotFoundError where there is none of this name, ValueError for a damaged file."""
    path = sweep_folder(name) / SWEEP_FILE
    if not path.is_file():
        raise missing("sweep", name, list_sweeps())
    content = load_json(path)
    try:
        return msgspec.convert(content, SweepFile)
    except ValueError as error:
        remedy = "give the sweep's command again, which writes it anew"
        raise ValueError(f"{path} is not the file of a sweep ({error}): {remedy}") from None


def chosen_runs(selection: str, collected: Collection[str] = ()) -> list[str]:
    """The runs of a sweep, or the runs whose names, separated by commas, are given; all for empty text.

    collected: names of runs that need no folder. Raises FileNotFoundError for a name that is neither a sweep nor
    a run.
    """
    if not selection:
        return sorted({*list_runs(), *collected})
    if selection in list_sweeps():
        return list(read_sweep_file(selection).runs)
    names = list(dict.fromkeys(name.strip() for name in selection.split(",") if name.strip()))
    unknown = [name for name in names if name not in collected]
    if len(unknown) == 1 and unknown[0] not in list_runs():
        read_sweep_file(unknown[0])
    return [name if name in collected else run_folder(name).name for name in names]
