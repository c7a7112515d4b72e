"""One stage of one run: kept where it is current, shared from a run that has it, else made by its notebook."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files import atomic, load_json, save_json, sha256
from ..runs.folder import ARTIFACTS
from ..runs.manifest import (
    change_manifest,
    is_current,
    mark_of,
    marked,
    only_maker,
    read_manifest,
    unchanged,
    unmark,
)
from ..runs.parameters import code_cells, declared, parsed, python
from ..runs.provenance import code_digest
from ..runs.stage import PLANNED, check_replaced, differing_parameters, images_of
from .execute import NotebookFailed, execute


def inputs_of(notebook: Path) -> tuple[str, ...]:
    """The artifacts that a notebook reads: the literal `inputs=[…]` of its calls."""
    found: dict[str, None] = {}
    for node in _nodes(notebook):
        if isinstance(node, ast.keyword) and node.arg == "inputs" and isinstance(node.value, ast.List | ast.Tuple):
            found |= dict.fromkeys(str(e.value) for e in node.value.elts if isinstance(e, ast.Constant))
    return tuple(found)


def records_stage(notebook: Path) -> bool:
    """Whether a notebook records a stage of a run; the others only show."""
    calls = (node.func for node in _nodes(notebook) if isinstance(node, ast.Call))
    return any(getattr(call, "id", getattr(call, "attr", "")) in ("open_stage", "record_stage") for call in calls)


def _nodes(notebook: Path) -> Iterator[ast.AST]:
    return ast.walk(parsed(python(code_cells(notebook))))


def has_stage(folder: Path, notebook: Path, request: Mapping[str, Any]) -> bool:
    """Whether a run has a stage, made by this very request and unchanged, and its executed notebook."""
    return (folder / "notebooks" / notebook.name).is_file() and is_current(folder, notebook.stem, request)


def make_stage(
    notebook: Path,
    folder: Path,
    parameters: Mapping[str, Any],
    request: Mapping[str, Any],
    *,
    tell: Callable[[str], object] = lambda line: None,
    environment: Mapping[str, str] | None = None,
    donor: Path | None = None,
    after: tuple[Path, Mapping[str, Any]] | None = None,
    force: bool = False,
    owner: str = "",
) -> str:
    """Make a stage of the run in `folder`; "kept", "shared" or "made" says how the run came to have it.

    - request: of `request_of`, when the stage was planned
    - tell, environment, owner: as of `execute`
    - donor: the folder of a run that may have the stage already
    - after: notebook and request of the stage before, which the run should have by now
    - force: make it even where it is there, save what the donor has

    Raises NotebookFailed; RuntimeError where code, images or the stage before are no longer those that were asked
    for. A run is made by one process at a time.
    """
    stage = notebook.stem
    with only_maker(folder, tell):
        if after is not None and (made := read_manifest(folder).stages.get(after[0].stem)):
            if made.request not in (None, after[1]):
                raise RuntimeError(
                    f"{after[0].stem} of run {folder.name} was made anew meanwhile, by other parameters or code: "
                    "give the same command again, or a run of its own (--run)"
                )
        if not force and has_stage(folder, notebook, request):
            unmark(folder, stage)
            return "kept"
        if not force:
            # Another process may have made results since this was planned.
            check_replaced(folder, notebook, request["parameters"])
        # Without results nothing keeps a network from one of other parameters, but its owner is told.
        artifact = next((name for name, maker in ARTIFACTS.items() if maker == stage), stage)
        if differing := differing_parameters(folder, notebook, request["parameters"], artifact):
            tell(f"replaces {artifact}, which was made with {differing}")
        if donor is not None and share(folder, donor, notebook, request):
            unmark(folder, stage)
            return "shared"
        changed = f"of {stage} changed meanwhile: give the same command again"
        if code_digest(notebook) != request["code"]:
            raise RuntimeError(f"the code {changed}")
        inputs = inputs_of(notebook)
        # A notebook that only compares runs takes a data set too, and may leave it open.
        images = images_of(folder, request["parameters"], inputs) if records_stage(notebook) else None
        digests = {name: sha256(folder / name) for name in inputs if (folder / name).is_file()}
        asked = {**request, "inputs": digests, "images": images and images.identity}
        _drop_old_checkpoint(folder, stage, asked)
        before = read_manifest(folder).stages.get(stage)
        with _only_shows(folder, notebook), marked(folder, stage, asked) as mark:

            def mark_and_tell(line: str) -> None:
                mark.said = line[:200]
                mark.write(folder)
                tell(line)

            tell("started")
            try:
                given = declared({**parameters, "run": folder.name}, notebook)
                planned = {**(environment or {}), PLANNED: "1"}
                execute(notebook, folder, given, mark_and_tell, planned, owner)
            except NotebookFailed as error:
                mark.error, mark.cell, mark.path = f"{error.ename}: {error.evalue}", error.cell, str(error.path)
                raise
            with change_manifest(folder) as manifest:
                record = manifest.stages.get(stage)
                if record is not None and record != before:
                    # A notebook that records its stage without opening it leaves both to be noted here.
                    record.request, record.images = record.request or dict(request), record.images or images
                    if record.request != request or record.images != images:
                        raise RuntimeError(f"code or images {changed}")
        _checkpoint(folder, stage).unlink(missing_ok=True)
    return "made"


@contextmanager
def _only_shows(folder: Path, notebook: Path) -> Iterator[None]:
    """A run is not unfinished for a notebook that only shows it, and stays so where another stage was stopped."""
    left = mark_of(folder)
    if left is None or left.stage == notebook.stem:
        left = None
    elif records_stage(notebook):
        # What it goes on from is another one's by now.
        _checkpoint(folder, left.stage).unlink(missing_ok=True)
    try:
        yield
    except NotebookFailed:
        if not records_stage(notebook):
            unmark(folder, notebook.stem)
        raise
    finally:
        if left is not None and not records_stage(notebook):
            # It says what the checkpoint of that stage goes on from.
            left.write(folder)


def share(folder: Path, donor: Path, notebook: Path, request: Mapping[str, Any]) -> bool:
    """Take a stage over from the run in `donor`; False where that has not this stage, made from these inputs.

    Its files are copied, not linked: JupyterLab saves in place, and would change those of the other run.
    """
    if not has_stage(donor, notebook, request):
        return False
    record = read_manifest(donor).stages[notebook.stem]
    if not unchanged(folder, record.inputs):
        return False
    for name in (*record.artifacts, f"notebooks/{notebook.name}"):
        with atomic(folder / name) as temporary:
            shutil.copyfile(donor / name, temporary)
    record.artifacts = {name: _own(folder / name, donor.name, folder.name) for name in record.artifacts}
    record.shared_from = record.shared_from or donor.name
    with change_manifest(folder) as manifest:
        manifest.stages[notebook.stem] = record
    (folder / "html" / f"{notebook.stem}.html").unlink(missing_ok=True)
    return has_stage(folder, notebook, request)


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
    # A training goes on only from where the very same one was stopped: same code, parameters, inputs and images.
    mark = mark_of(folder)
    if mark is not None and mark.stage == stage:
        outdated = mark.request != asked
    else:
        outdated = stage in read_manifest(folder).stages
    if outdated:
        _checkpoint(folder, stage).unlink(missing_ok=True)
