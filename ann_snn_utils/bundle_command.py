"""The command `ann-snn bundle`: the hardware bundle of a run's network, or of one that comes with the project."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command and its arguments to the command line's subparsers."""
    parser = commands.add_parser(
        "bundle", help="write the integer network, inputs and golden outputs for hardware", allow_abbrev=False,
        description="Write a folder from which a test bench can be made: weights, thresholds, input vectors and "
                    "golden outputs as raw and $readmemh files, costs, and readers in C and Python that check it.",
    )  # fmt: skip
    parser.set_defaults(command=_bundle)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("run", metavar="RUN", nargs="?", help="a run's name")
    which.add_argument("--pretrained", metavar="NAME", help="a network that comes with the project")
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder to write; it must be new or empty")
    parser.add_argument("--samples", type=int, default=32, metavar="N", help="test images (default: %(default)s)")
    parser.add_argument("--time-steps", type=int, metavar="T", help="default: until every image is silent")


def _bundle(options: argparse.Namespace, folder: Path) -> int:
    from .bundle import check_target, write_bundle
    from .data import load_dataset

    for name in ("samples", "time_steps"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"{name}={getattr(options, name)}: give at least 1")
    check_target(Path(options.out))
    snn, provenance = _from_run(options.run) if options.run else _from_pretrained(options.pretrained)
    if "source" not in snn.metadata:
        raise ValueError(f"{provenance['network']} does not say what data it was trained on: convert its run again")
    test = load_dataset(split="test", **snn.metadata["source"])
    samples = test.subset(min(options.samples, len(test)))
    provenance |= {"dataset": test.name, "split": "test", "samples_of": len(test)}
    out = write_bundle(snn, samples, options.out, provenance, options.time_steps)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"wrote {out}: {len(samples)} samples, {size / 2**20:.1f} MiB; README.md there is the format")
    print(f"check it: cd {out} && cc -std=c99 -O2 -o run_bundle run_bundle.c && ./run_bundle")
    return 0


def _from_run(run: str) -> tuple[Any, dict[str, Any]]:
    from .commands import SNN_FILE
    from .runs import require, run_folder
    from .snn import load_snn

    path = require(run_folder(run), SNN_FILE)
    return load_snn(path), {"network": f"run {run}", **_origin(path)}


def _from_pretrained(name: str) -> tuple[Any, dict[str, Any]]:
    from .convert import convert
    from .pretrained import load_pretrained, pretrained_file

    snn = convert(load_pretrained(name))
    return snn, {"network": f"pretrained {name}", **_origin(pretrained_file(name))}


def _origin(path: Path) -> dict[str, Any]:
    from .artifacts import sha256
    from .provenance import git_state, versions

    return {"file": path.name, "sha256": sha256(path), "versions": versions(), "git": git_state()}
