"""What one run reached and how it was made, from its run folder or from the results kept with the project.

A finished run is collected into one small JSON file without paths, data/results/<run>.json. Such files outlive the
code that wrote them: whether their numbers may stand beside newer ones is decided by the method number.
"""

from __future__ import annotations

import functools
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ..ann.recipes import recipe, unrecorded_recipe
from ..ann.store import PRETRAINED, list_pretrained, load_ann, save_pretrained
from ..data.dataset import folder_label, load_recorded
from ..files import ROOT, load_json, save_json, sha256
from ..measure.activity import SILENCE, correct_at
from ..simulator.run import simulate
from ..snn.conversion import convert
from .folder import (
    ARTIFACTS,
    QANN_FILE,
    RESULTS_FILE,
    SNN_FILE,
    check_run_name,
    chosen_runs,
    digest_of,
    require,
    run_folder,
    runs_root,
)
from .manifest import MANIFEST, Manifest, StageRecord, made_otherwise, mark_of, read_for, read_manifest
from .parameters import NOTEBOOKS, defaults_of
from .sweeps import parameters_of_run

# Room for every count and energy, and small enough for any sum, mean or text of them.
_Amount = Annotated[float, msgspec.Meta(gt=-1e15, lt=1e15)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Curve = Annotated[list[_Amount], msgspec.Meta(min_length=1)]


class _Accuracy(msgspec.Struct):
    qann: _Share
    snn: dict[str, _Share]
    # Not known of a network that was trained elsewhere.
    ann: _Share | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if SILENCE not in self.snn:
            raise ValueError("no accuracy of the spiking network at silence")


class _Correct(msgspec.Struct):
    qann: _Amount | msgspec.UnsetType = msgspec.UNSET
    ann: _Amount | msgspec.UnsetType = msgspec.UNSET
    snn: dict[str, _Amount] | msgspec.UnsetType = msgspec.UNSET


class _Energy(msgspec.Struct):
    snn: _Amount
    int8: _Amount | msgspec.UnsetType = msgspec.UNSET


class _Results(msgspec.Struct):
    """What every results.json holds. The optional entries came later than the oldest results that are kept."""

    dataset: str
    network: str
    samples: _Amount
    mismatches: _Amount
    spikes_per_sample: _Amount
    sops_per_sample: _Amount
    undisturbed: bool
    accuracy: _Accuracy
    energy_pj: _Energy
    accuracy_over_time: _Curve
    correct: _Correct | msgspec.UnsetType = msgspec.UNSET
    sops_over_time: _Curve | None = None
    energy_over_time: _Curve | None = None
    energy_by_model: dict[str, dict[str, _Amount]] | None = None
    neurons: _Amount | None = None
    silence_step: _Amount | None = None
    mean_settling_step: _Amount | None = None
    macs_per_sample: _Amount | None = None
    method: int = 1
    accuracy_by_thresholds: dict[str, _Curve] | None = None
    accuracy_without_negative_spikes: _Curve | None = None

    def __post_init__(self) -> None:
        for name in ("sops_over_time", "energy_over_time"):
            curve = getattr(self, name)
            if curve is not None and len(curve) != len(self.accuracy_over_time):
                raise ValueError(f"{name} of another length")


def missing_in(results: Any) -> str:
    """What results lack, or hold wrongly, to be compared with others; empty where nothing."""
    try:
        msgspec.convert(results, _Results)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class RunResult:
    """A run's results.json, and its manifest (or the part of it that was collected)."""

    run: str
    results: dict[str, Any]
    manifest: Manifest

    @property
    def stages(self) -> dict[str, StageRecord]:
        """The records of the stages that made the results, by notebook."""
        found = self.manifest.stages
        return {stem: found[stem] for stem in ARTIFACTS.values() if stem in found}

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter of the stages that made the results.

        One that a notebook did not take yet when the run was made has the value that the run had all the same.
        """
        trained = self.stages.get("01_train_ann")
        implied = unrecorded_recipe(str(trained.parameters.get("dataset", "")) if trained else "")
        stages = {}
        for stem, stage in self.stages.items():
            defaults = _defaults(stem)
            own = {name: value for name, value in implied.items() if name in defaults}
            stages[stem] = defaults | own | stage.parameters
        return parameters_of_run(stages)

    @property
    def unusual(self) -> dict[str, Any]:
        """The parameters that are neither the notebooks' defaults nor those of the data set's recipe.

        Where the stages of a run were given different values of one, so are all of these.
        """
        usual = usual_values(str(self.parameters.get("dataset")))
        return {name: value for name, value in self.parameters.items() if value not in usual.get(name, ())}

    @property
    def method(self) -> int:
        """Number of the method that made the results; 1 for those from before it was recorded."""
        return self.results.get("method", 1)

    @property
    def images(self) -> str | None:
        """Eight hexadecimal digits that change with the images, None where the run does not tell them."""
        data = [digests for stage in self.stages.values() if (digests := stage.metrics.get("data"))]
        return digest_of(data)[:8] if data else None

    @property
    def held_out(self) -> int:
        """Training images that stood in for the test set, to make choices; 0 for results on the test set."""
        value = self.parameters.get("held_out")
        return value if isinstance(value, int) else 0


@functools.cache
def _defaults(stem: str) -> dict[str, Any]:
    path = NOTEBOOKS / f"{stem}.ipynb"
    return defaults_of([path]) if path.is_file() else {}


def usual_values(dataset: str) -> dict[str, tuple[Any, ...]]:
    """Parameter → values that are not worth a mention: the notebooks' default, and that of a data set's recipe."""
    own = asdict(recipe(dataset))
    # What two notebooks take is the first one's.
    defaults = {name: value for stem in reversed(ARTIFACTS.values()) for name, value in _defaults(stem).items()}
    return {name: (value, own.get(name, value)) for name, value in defaults.items()}


def results_root() -> Path:
    """Folder of collected results: $ANN_SNN_RESULTS, else data/results below the repository root."""
    return ROOT / os.path.expanduser(os.environ.get("ANN_SNN_RESULTS") or "data/results")


def load_results(selection: str = "") -> dict[str, RunResult]:
    """Every run that has results, local or collected, by its name; a local run of the same name wins.

    selection: a sweep, or names of runs separated by commas; empty for all. Raises FileNotFoundError for a
    name that is neither, ValueError that names a damaged file.
    """
    collected = collected_results()
    found = {name: local_result(name) or collected.get(name) for name in chosen_runs(selection, collected)}
    return {name: result for name, result in found.items() if result is not None}


def local_result(run: str) -> RunResult | None:
    """The result in a run's folder, None where it has recorded none yet. ValueError that names a damaged file."""
    folder = runs_root() / run
    there = (folder / RESULTS_FILE).is_file() and read_manifest(folder).has(RESULTS_FILE)
    return result_in(folder) if there else None


def outdated(manifest: Manifest) -> list[str]:
    """The stages behind a run's results whose inputs, or results, are other files since."""
    return [stem for stem in manifest.stale_stages() if stem in ARTIFACTS.values()]


def result_in(folder: str | os.PathLike[str]) -> RunResult:
    """The result in the folder of a run. Raises FileNotFoundError or ValueError that names the notebook to run."""
    path = require(folder, RESULTS_FILE)
    results = load_json(path)
    if missing := missing_in(results):
        raise ValueError(f"{path} is not complete ({missing}): run notebook {ARTIFACTS[RESULTS_FILE]} again")
    return RunResult(path.parent.name, results, read_for(RESULTS_FILE, path.parent))


def is_altered(folder: str | os.PathLike[str], result: RunResult) -> bool:
    """Whether results.json in the folder of a run is another file than the one that was recorded."""
    stage = result.stages.get(ARTIFACTS[RESULTS_FILE])
    recorded = stage.artifacts.get(RESULTS_FILE) if stage else None
    return recorded not in (None, sha256(Path(folder) / RESULTS_FILE))


def bundled_runs() -> list[str]:
    """The runs that made the networks which come with the project, as far as their index tells."""
    return [str(entry["run"]) for entry in list_pretrained().values() if "run" in entry]


def collected_results() -> dict[str, RunResult]:
    """Run → every collected result, in alphabetical order. Raises ValueError that names a damaged file."""
    return {path.stem: read_collected(path) for path in sorted(results_root().glob("*.json"))}


def read_collected(path: Path) -> RunResult:
    """The result that `collect` wrote into a file. Raises ValueError that names a damaged one."""
    content = load_json(path)
    remedy = "collect its run again, or restore it from git"
    try:
        manifest = msgspec.convert(content["manifest"], Manifest)
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} holds no collected results ({error!s:.200}): {remedy}") from None
    if missing := missing_in(content.get("results")):
        raise ValueError(f"{path} is not complete ({missing}): {remedy}")
    if content["results"].get("run") != path.stem:
        raise ValueError(f"{path} holds the results of run {content['results'].get('run')!r:.100}: {remedy}")
    return RunResult(check_run_name(path.stem), content["results"], manifest)


# Of a stage's record not collected, as it names places on this machine; and of the machine collected.
_LOCAL = ("images", "shared_from")
_MACHINE = ("processor", "cores", "torch_threads", "cpu_capability", "accelerator")


def collect(run: str, force: bool = False) -> Path:
    """Write a finished run's results, parameters, seed and provenance to data/results/<run>.json; its path.

    The file appears in full or not at all, and the same run gives the same file. Raises FileNotFoundError where
    there is no such run, ValueError for one that is unfinished, outdated or damaged, and, unless forced, where
    results of other parameters or images are kept under its name; all name the remedy.
    """
    folder = run_folder(run)
    manifest = _finished(folder)
    results = result_in(folder).results
    stages = {stem: _essentials(manifest.stages[stem]) for stem in ARTIFACTS.values()}
    results |= {"run": folder.name, "dataset": _without_folder(results["dataset"])}
    path = results_root() / f"{folder.name}.json"
    manifested = {"run": folder.name, "stages": stages}
    new = RunResult(folder.name, results, msgspec.convert(manifested, Manifest))
    if not force and (differing := _differing(path, new)):
        raise ValueError(f"{path} keeps results of another setting, {differing}: replace them with --force")
    save_json(path, {"run": folder.name, "results": results, "manifest": manifested})
    return path


def _differing(path: Path, new: RunResult) -> str:
    """In what a collected result differs from a new one; empty where nothing, or nothing readable, is there."""
    try:
        old = read_collected(path)
    except (ValueError, FileNotFoundError):
        return ""
    # Results of before images were recorded do not tell them.
    before, now = ({"images": one.images or new.images, **one.parameters} for one in (old, new))
    return made_otherwise(before, now)


# What a bundled network's metadata take from results.json as it stands.
RECORDED: tuple[str, ...] = ("method", "spikes_per_sample", "sops_per_sample", "macs_per_sample")
RECORDED += ("silence_step", "mean_settling_step", "energy_pj")
# Of a large test set the right answers on its first images are recorded too: CI has time for so many.
FIRST = 1000


def check_name_free(run: str, name: str, folder: Path = PRETRAINED, force: bool = False) -> None:
    """Raise ValueError for the name of a network that is not this run's, unless forced."""
    kept = list_pretrained(folder).get(check_run_name(name, "network"))
    if kept is not None and kept.get("run") != run and not force:
        which = f"the network of run {kept['run']!r}" if "run" in kept else "another network"
        raise ValueError(f"bundled:{name} is {which}: choose another name, or give --force")


def keep_network(run: str, name: str, folder: Path = PRETRAINED, force: bool = False) -> Path:
    """Bundle the network of a collected run with the project, and the results that `evaluate` is to reproduce.

    Raises ValueError for a run whose results are not those of its full test set, for the name of another network
    unless forced, and as `save_pretrained` does.
    """
    check_name_free(run, name, folder, force)
    result = read_collected(results_root() / f"{check_run_name(run)}.json")
    ann = load_ann(require(run_folder(run), QANN_FILE))
    results, parameters = result.results, result.parameters
    tested = f"{results['samples']} of {ann.metadata['samples']} images"
    if not results["undisturbed"] or parameters.get("held_out") or results["samples"] != ann.metadata["samples"]:
        how = "held-out images" if parameters.get("held_out") else tested
        how += "" if results["undisturbed"] else ", disturbed on purpose"
        raise ValueError(f"run {run!r} was tested on {how}: keep a network that all test images tried, undisturbed")
    told = {name: value for name, value in (results | {"method": result.method}).items() if name in RECORDED}
    told |= {"mismatches": results["mismatches"], "neurons": results["neurons"]}
    told |= {"snn_correct": results["correct"]["snn"], "command": _command(result)}
    if results["samples"] > FIRST:
        images = load_recorded(ann.metadata).subset(range(FIRST))
        told["first_1000"] = correct_at(simulate(convert(ann), images))
    return save_pretrained(ann, name, folder, run=run, **told)


def _command(result: RunResult) -> str:
    if any("." in name for name in result.parameters):
        return "the notebooks 01 to 04, each with its own parameters"
    return " ".join(["ann-snn study", *(f"-p {name} {value}" for name, value in result.unusual.items())])


def _finished(folder: Path) -> Manifest:
    """The manifest of a finished run; ValueError says what keeps it from being one."""
    mark, manifest, makers = mark_of(folder), read_manifest(folder), ARTIFACTS.values()
    if mark is not None and mark.stage in (*makers, ""):
        wrong = f"is unfinished, {mark.state} in {mark.stage or 'a stage'}"
        remedy = "wait for it" if mark.state == "running" else "give its command again, which goes on"
        raise ValueError(f"run {folder.name!r} {wrong}: {remedy}")
    if (folder / SNN_FILE).is_file() and not set(makers) & set(manifest.stages) - {ARTIFACTS[RESULTS_FILE]}:
        raise ValueError(f"run {folder.name!r} was trained elsewhere: results are collected with their training")
    if missing := [stem for stem in makers if stem not in manifest.stages]:
        raise _refusal(folder, f"unfinished, without {', '.join(missing)}", missing[0])
    made = {name: (stem, digest) for stem in makers for name, digest in manifest.stages[stem].artifacts.items()}
    if RESULTS_FILE not in made or not (folder / RESULTS_FILE).is_file():
        raise _refusal(folder, f"unfinished, without {RESULTS_FILE}", ARTIFACTS[RESULTS_FILE])
    if stale := outdated(manifest):
        raise _refusal(folder, f"outdated, {stale[0]} read files that have been made anew", stale[0])
    # Weights may have been deleted to save space; what is there must be what the manifest tells of.
    for name, (stem, digest) in made.items():
        if (folder / name).is_file() and sha256(folder / name) != digest:
            raise _refusal(folder, f"outdated, {name} is not the file that {stem} recorded in {MANIFEST}", stem)
    return manifest


def _refusal(folder: Path, state: str, stem: str) -> ValueError:
    last = ARTIFACTS[RESULTS_FILE]
    numbers = stem[:2] if stem == last else f"{stem[:2]}-{last[:2]}"
    remedy = f"`ann-snn study --run {folder.name} --notebooks {numbers}`, with the run's parameters, makes it"
    return ValueError(f"run {folder.name!r} is {state}: {remedy}")


def _essentials(stage: StageRecord) -> dict[str, Any]:
    essentials = {name: value for name, value in msgspec.structs.asdict(stage).items() if name not in _LOCAL}
    essentials["parameters"] = {n: _without_folder(v) for n, v in stage.parameters.items() if n != "run"}
    essentials["machine"] = {name: stage.machine[name] for name in _MACHINE if name in stage.machine}
    # A stage that a command made without its notebook has no digest of code.
    essentials["request"] = {name: value for name, value in (stage.request or {}).items() if name == "code"}
    return essentials


def _without_folder(value: Any) -> Any:
    # An image folder's path is of no use elsewhere.
    is_path = isinstance(value, str) and ("/" in value or "\\" in value)
    return folder_label(value.replace("\\", "/").rstrip("/").rpartition("/")[2]) if is_path else value
