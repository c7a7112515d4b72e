"""One stage of one run: kept where it is current, shared from a run that has it, else made by its notebook."""

from __future__ import annotations

import ast
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TextIO

from ..files import atomic, load_json, save_json, sha256
from ..runs.folder import ARTIFACTS
from ..runs.manifest import (
    MANIFEST,
    changing_manifest,
    is_current,
    mark_of,
    marked,
    only_maker,
    read_manifest,
    record_request,
    unmark,
)
from ..runs.parameters import declared, defaults_of, parsed
from ..runs.provenance import code_digest
from .execute import NotebookFailed, execute
from .kernels import fresh_kernel


def request_of(notebook: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Give what is asked of a stage: every parameter that its notebook takes, save `run`, and its code's digest."""
    settings = defaults_of([notebook]) | declared(parameters, notebook)
    settings.pop("run", None)
    return {"parameters": settings, "code": code_digest(notebook)}


def inputs_of(notebook: Path) -> tuple[str, ...]:
    """Give the artifacts that a notebook reads: the literal `inputs=[…]` of its calls."""
    found: dict[str, None] = {}
    for node in ast.walk(parsed(_code(notebook))):
        if isinstance(node, ast.keyword) and node.arg == "inputs" and isinstance(node.value, ast.List | ast.Tuple):
            found |= dict.fromkeys(e.value for e in node.value.elts if isinstance(e, ast.Constant))
    return tuple(found)


def records_stage(notebook: Path) -> bool:
    """Tell whether a notebook records a stage of a run; the others only show."""
    calls = (node.func for node in ast.walk(parsed(_code(notebook))) if isinstance(node, ast.Call))
    return any(getattr(call, "id", getattr(call, "attr", "")) in ("open_stage", "record_stage") for call in calls)


def _code(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    lines = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").splitlines()
    return "\n".join(line for line in lines if not line.startswith(("%", "!")))


def make_stage(
    notebook: Path,
    folder: Path,
    parameters: Mapping[str, Any],
    request: Mapping[str, Any],
    *,
    output: TextIO | None = None,
    kernel: Callable[[], AbstractContextManager[Any]] = fresh_kernel,
    donor: Path | None = None,
    force: bool = False,
    by: str = "",
) -> str:
    """Give "kept", "shared" or "made": how the run in `folder` came to have this stage.

    request: of `request_of`. donor: the folder of a run that may have the stage already. Raises NotebookFailed;
    RuntimeError where the code is no longer the one that was asked for. A run is made by one process at a time.
    """
    with only_maker(folder, output.write if output else lambda text: None):
        executed = folder / "notebooks" / notebook.name
        if not force and executed.is_file() and is_current(folder, notebook.stem, request):
            unmark(folder, notebook.stem)
            return "kept"
        if not force and donor is not None and share(folder, donor, notebook, request):
            unmark(folder, notebook.stem)
            return "shared"
        if code_digest(notebook) != request["code"]:
            raise RuntimeError(f"the code of {notebook.stem} has changed meanwhile: give the same command again")
        asked = {
            **request,
            "inputs": {name: sha256(folder / name) for name in inputs_of(notebook) if (folder / name).is_file()},
        }
        _drop_old_checkpoint(folder, notebook.stem, asked)
        _part(folder, notebook.stem)
        with marked(folder, notebook.stem, asked, by) as mark:
            shown = _Listened(output, mark.say)
            shown.write("started\n")
            try:
                execute(notebook, folder, declared({**parameters, "run": folder.name}, notebook), shown, kernel)
            except NotebookFailed as error:
                mark.fail(error=f"{error.ename}: {error.evalue}", cell=error.cell, path=str(error.path))
                raise
        record_request(folder, notebook.stem, request)
        _checkpoint(folder, notebook.stem).unlink(missing_ok=True)
    return "made"


class _Listened:
    """A stream that passes text on and tells the last complete line."""

    def __init__(self, output: TextIO | None, tell: Callable[[str], None]) -> None:
        self.output, self.tell = output, tell

    def write(self, text: str) -> int:
        lines = [line for line in text.replace("\r", "\n").split("\n") if line.strip()]
        if lines:
            self.tell(lines[-1].strip()[:200])
        return self.output.write(text) if self.output else len(text)

    def flush(self) -> None:
        if self.output:
            self.output.flush()


def share(folder: Path, donor: Path, notebook: Path, request: Mapping[str, Any]) -> bool:
    """Take a stage over from the run in `donor`; False where that has not this stage, made from these inputs.

    Files are linked where the system can, and parted before they are made anew: each run stays whole by itself.
    """
    executed = donor / "notebooks" / notebook.name
    if not executed.is_file() or not is_current(donor, notebook.stem, request):
        return False
    record = dict(read_manifest(donor)["stages"][notebook.stem])
    inputs = record["inputs"].items()
    if any(not (folder / name).is_file() or sha256(folder / name) != digest for name, digest in inputs):
        return False
    for name in (*record["artifacts"], f"notebooks/{notebook.name}"):
        _link(donor / name, folder / name)
    made = {name: _own(folder / name, donor.name, folder.name) for name in record["artifacts"]}
    record |= {"artifacts": made, "shared_from": record.get("shared_from", donor.name)}
    with changing_manifest(folder):
        manifest = read_manifest(folder)
        manifest["stages"] = dict(sorted((manifest["stages"] | {notebook.stem: record}).items()))
        save_json(folder / MANIFEST, manifest)
    (folder / "html" / f"{notebook.stem}.html").unlink(missing_ok=True)
    return is_current(folder, notebook.stem, request)


def _link(source: Path, target: Path) -> None:
    with atomic(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def _part(folder: Path, stage: str) -> None:
    # A notebook that writes into a file, instead of replacing it, must not reach the other runs that share it.
    for name in read_manifest(folder)["stages"].get(stage, {"artifacts": {}})["artifacts"]:
        path = folder / name
        if path.is_file() and path.stat().st_nlink > 1:
            with atomic(path) as temporary:
                shutil.copyfile(path, temporary)


def _own(path: Path, donor: str, run: str) -> str:
    # Results carry the name of their run.
    if path.suffix == ".json":
        content = load_json(path)
        if isinstance(content, dict) and content.get("run") == donor:
            save_json(path, content | {"run": run})
    return sha256(path)


def _checkpoint(folder: Path, stage: str) -> Path:
    made = next((name for name, maker in ARTIFACTS.items() if maker == stage), stage)
    return folder / f"{Path(made).stem}.checkpoint.safetensors"


def _drop_old_checkpoint(folder: Path, stage: str, asked: Mapping[str, Any]) -> None:
    # A training goes on only from where the very same one was stopped: same code, parameters and inputs.
    mark = mark_of(folder)
    interrupted = mark is not None and mark["stage"] == stage
    if interrupted and mark.get("request") == asked:
        return
    if interrupted or stage in read_manifest(folder)["stages"]:
        _checkpoint(folder, stage).unlink(missing_ok=True)
