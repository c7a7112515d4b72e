"""The peak memory of one contender, measured in a process of its own so that peaks do not mix."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .artifacts import ROOT
from .contenders import enter
from .workload import load_workload

MIB = 2**20


def peak_memory(name: str, workload: str, samples: int, time_steps: int) -> dict[str, float] | None:
    """Give {"peak_mib", "before_mib"}: resident memory at its highest, and before the contender was run.

    None on systems without /proc/self/status. Raises RuntimeError where the process fails.
    """
    if not Path("/proc/self/status").exists():
        return None
    command = [sys.executable, "-m", __name__, name, workload, str(samples), str(time_steps)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _highest() -> float:
    # Not ru_maxrss: a child inherits its parent's peak there.
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / MIB
    raise OSError("/proc/self/status has no line VmHWM")


def _measure(name: str, workload: str, samples: str, time_steps: str) -> None:
    contender = enter(name, load_workload(workload, int(samples)), int(time_steps))
    before = _highest()
    contender.run()
    print(json.dumps({"peak_mib": round(_highest(), 1), "before_mib": round(before, 1)}))


if __name__ == "__main__":
    _measure(*sys.argv[1:])
