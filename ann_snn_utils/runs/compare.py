"""Results of many runs side by side: a table of runs, settings under human names, and what each setting changes.

A setting is everything that tells runs of one data set apart except the seed. One of them is the baseline: that of
a network that comes with the project, else the one that has most in common with all others; the other settings are
named by what they have other than it. Runs of one setting are averaged; runs made by another method, or on other
images, are never of one setting.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ..ann.notation import NETWORKS, title_of
from ..data.dataset import SOURCE_OPTIONS
from ..measure.activity import SILENCE, STEPS
from ..tables import mean_and_deviation
from .results import RunResult, bundled_runs, outdated, usual_values
from .sweeps import grouped, row_of, with_differences

READ_AT = (*(f"T = {step}" for step in STEPS), SILENCE)
ACCURACIES = ("ANN", "quantized", *READ_AT)
CURVES = ("accuracy", "energy", "sops")
# The dense networks whose energy stands beside the spiking network's under each model.
RIVALS = ("int8", "ternary")

_TRAINING = ("01_train_ann", "02_quantize")

# Parameters that belong to no setting: which run it is, how many epochs were asked for (those made are told), and
# what changes only how much else is recorded.
_ASIDE = {"run", "dataset", "seed", "ann_epochs", "qann_epochs"}
_ASIDE |= {"max_levels", "published_samples", "robustness_samples", "time_steps"}

# Parameters that are told of every network, first and in this order; and each one's words where it is on and off.
_CORE = ("network", "k", "ternary", "epochs")
_WORDS = {
    "network": ("{}", "{}"),
    "k": ("k = {}", "k = 0"),
    "ternary": ("ternary", "int8"),
    "epochs": ("{} epochs", "trained elsewhere"),
    "levels": ("{} levels", "no levels"),
    "clip": ("clip {}", "no clip"),
    "int8_ends": ("int8 ends", "full-precision ends"),
    "label_smoothing": ("label smoothing {}", "no label smoothing"),
    "optimizer": ("{}", "{}"),
    "qann_optimizer": ("then {}", "one optimizer"),
    "learning_rate": ("learning rate {}", "learning rate 0"),
    "qann_learning_rate": ("then learning rate {}", "one learning rate"),
    "distillation": ("distillation {}", "no distillation"),
    "crop": ("{0}×{0} crops", "no crops"),
    "limit": ("{} images", "all images"),
    "held_out": ("{} images held out", "nothing held out"),
    "noise_ratio": ("noise {}", "no noise"),
    "fault": ("{} spikes", "no faults"),
    "fault_rate": ("fault rate {}", "fault rate 0"),
    "threshold_scale": ("thresholds × {}", "thresholds × 0"),
    "images": ("images {}", "images not recorded"),
}
_PROPER = {"lenet": "LeNet", "vgg": "VGG", "adamw": "AdamW", "muon": "Muon", "1 levels": "1 level"}


def in_words(parameter: str, value: Any) -> str:
    """A parameter's value as a reader says it.

    >>> in_words("clip", 2), in_words("ternary", False), in_words("batch_size", 100)
    ('clip 2', 'int8', 'batch size 100')
    """
    on, off = _WORDS.get(parameter, (f"{parameter.replace('_', ' ')} {{}}",) * 2)
    told = title_of(value) if parameter == "network" else value
    text = (on if value else off).format(_PROPER.get(str(told), told))
    return _PROPER.get(text, text)


def setting_of(result: RunResult) -> dict[str, Any]:
    """What a run was made with, without its seed: network, k, weights, epochs, then its other parameters.

    Of a network that no run trained this is not known: it is a setting of its own, under the run's name.
    """
    notation, dataset, parameters = result.results["network"], result.results["dataset"], result.parameters
    named = next((name for name, (network, _) in NETWORKS.items() if network == notation), notation)
    made = [result.stages[stem].metrics if stem in result.stages else {} for stem in _TRAINING]
    histories = (metrics.get("history") for metrics in made)
    epochs = " + ".join(str(len(history)) if isinstance(history, list) else "?" for history in histories)
    first = {name: parameters.get(name, result.results.get(name)) for name in ("network", "k", "ternary")}
    first |= {"network": named, "epochs": epochs}
    if not any(stem in result.stages for stem in _TRAINING):
        # Two networks that were made elsewhere are not two seeds of one training.
        first |= {"epochs": "", "run": result.run}
    if outdated(result.manifest):
        # Its parameters are no longer those that its results were made with.
        first |= {"outdated": result.run}
    rest = {n: v for n, v in parameters.items() if n.rpartition(".")[2] not in _ASIDE and n not in first}
    if not rest.get("fault_rate"):
        # Without a rate no fault strikes.
        rest = {n: v for n, v in rest.items() if n not in ("fault", "fault_rate")}
    if "padding" in rest:
        # Left empty, it is the named network's own.
        rest["padding"] = rest["padding"] or NETWORKS.get(named, ("", "valid"))[1]
    return first | rest | {"dataset": dataset, "method": result.method, "images": result.images}


def baseline_of(found: Mapping[str, RunResult]) -> dict[str, Any]:
    """The setting that the others are named by: the first bundled network's, else the one most like all others."""
    settings = {run: setting_of(result) for run, result in found.items()}
    for run in bundled_runs():
        if run in settings:
            return settings[run]
    told = told_apart(list(settings.values()))

    def alike(one: Mapping[str, Any]) -> int:
        return sum(repr(one.get(n)) == repr(other.get(n)) for other in settings.values() for n in told)

    return max(settings.values(), key=alike, default={})


def told_apart(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of what is not the same in all these settings; images count where one source had several."""
    names = dict.fromkeys(name for setting in settings for name in setting)
    told = [name for name in names if len({repr(setting.get(name)) for setting in settings}) > 1]
    sources: dict[str, set[Any]] = {}
    for setting in settings:
        source = repr([setting.get(name) for name in ("dataset", *SOURCE_OPTIONS)])
        sources.setdefault(source, set()).add(setting.get("images"))
    several = any(len(images) > 1 for images in sources.values())
    return [name for name in told if name != "images" or several]


def describe(setting: Mapping[str, Any], among: Iterable[str] | None = None) -> str:
    """A setting in words: the network, k, weights and epochs, and every parameter that is not the usual one.

    among: the only parameters to tell of, in their order; None for all.
    """
    usual, aside = usual_values(str(setting.get("dataset"))), ("dataset", "method", "images", "padding")
    named = [name for name in among or setting if name in setting and name not in aside]
    told = [name for name in named if name in _CORE or setting[name] not in usual.get(name, ())]
    return ", ".join(in_words(name, setting[name]) for name in told)


def compare(found: Mapping[str, RunResult]) -> pd.DataFrame:
    """One row for each run, indexed by its name; the baseline's runs first, then the settings nearest to it.

    Columns: dataset; setting, its human name; varies, what it has other than the baseline ("" for that);
    seed; epochs; accuracies in percent; costs of one image; mismatches and neurons; and the curves
    `accuracy`, `energy` (pJ) and `sops` over time, as lists, None where the run did not record one.
    """
    settings = {run: setting_of(result) for run, result in found.items()}
    base = baseline_of(found)
    told = told_apart(list(settings.values()))
    named: dict[str, list[Any]] = {}
    rows = []
    for run, result in found.items():
        other = [name for name in told if repr(settings[run].get(name)) != repr(base.get(name))]
        values = [settings[run].get(name) for name in other]
        # Nothing is said of parameters that took no part, as of a network that was trained elsewhere.
        said = [name for name in other if name in settings[run]]
        words = ", ".join(in_words(name, settings[run][name]) for name in said) or "baseline"
        # Two settings of the same words would be averaged.
        if repr(named.setdefault(words, values)) != repr(values):
            words += f" ({', '.join(f'{name}={value!r}' for name, value in zip(other, values, strict=True))})"
        seeds = [v for name, v in result.parameters.items() if name.rpartition(".")[2] == "seed"]
        row = {"run": run, "dataset": result.results["dataset"], "setting": words}
        row |= {"varies": " + ".join(name.replace("_", " ") for name in other)}
        row |= {"seed": " ".join(dict.fromkeys(map(str, seeds))) or run, "epochs": settings[run]["epochs"]}
        place = [len(other), [told.index(name) for name in other], *map(_order, values)]
        rows.append((place, row | result_row(result.results)))
    rows.sort(key=lambda pair: pair[0])
    return pd.DataFrame([row for _, row in rows], columns=None if rows else ["run", "setting"]).set_index("run")


def _order(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return not number, float(value) if number else 0.0, str(value)


def result_row(results: Mapping[str, Any]) -> dict[str, Any]:
    """One flat row for a results.json: accuracies in percent, when it fell silent, work, energy and curves."""
    accuracy = results["accuracy"]
    row: dict[str, Any] = {"ANN": 100 * accuracy.get("ann", math.nan), "quantized": 100 * accuracy["qann"]}
    for name, step in zip(READ_AT, [*map(str, STEPS), SILENCE], strict=True):
        row[name] = 100 * accuracy["snn"][step] if step in accuracy["snn"] else math.nan
    last = results.get("silence_step")
    row |= {"last spike": math.nan if last is None else last, "spikes": results["spikes_per_sample"]}
    row |= {"SOPs": results["sops_per_sample"], "µJ": results["energy_pj"]["snn"] / 1e6}
    for model, spent in (results.get("energy_by_model") or {}).items():
        # The arithmetic of the spiking network stands there already.
        own = {} if model == "arithmetic" else {f"µJ, {model}": spent["snn"] / 1e6}
        row |= own | {f"{rival} / SNN, {model}": spent[rival] / spent["snn"] for rival in RIVALS if rival in spent}
    row |= {"samples": results["samples"], "mismatches": results["mismatches"], "neurons": results.get("neurons")}
    return row | {name: results.get(f"{name}_over_time") for name in CURVES}


def by_setting(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each setting, in order: its runs, mean ± standard deviation of accuracies, mean costs."""
    groups = frame.groupby("setting", sort=False)
    runs = groups.size().astype(str)
    # A run that was made twice is no second seed.
    seeds = groups["seed"].nunique()
    runs[seeds < groups.size()] += " of " + seeds.astype(str) + " seeds"
    table = groups[list(ACCURACIES)].agg(mean_and_deviation)
    table.insert(0, "runs", runs)
    table["last spike"] = groups["last spike"].max()
    return table.join(groups[["spikes", "SOPs", "µJ"]].mean()).join(groups["mismatches"].sum())


def effects(frame: pd.DataFrame) -> pd.DataFrame:
    """What each setting changes against the baseline at T = 2 and at silence: a row for each run.

    In percentage points, against the baseline's run of the same seed, or its mean where there is none.
    """
    base, at = frame[frame.varies == ""], ["T = 2", SILENCE]
    same = base.groupby("seed")[at].mean().reindex(frame.seed)
    reference = same.fillna(base[at].mean()).set_index(frame.index)
    changed = frame[["varies", "setting", "seed"]].join(frame[at] - reference)
    return changed[changed.varies != ""]


def curves(frame: pd.DataFrame, quantity: str = "accuracy") -> dict[str, list[list[float]]]:
    """Setting → a quantity over time, for each of its runs that recorded it."""
    recorded = frame[frame[quantity].notna()]
    return recorded.groupby("setting", sort=False)[quantity].agg(list).to_dict()


def mean_curve(curves: Sequence[Sequence[float]]) -> list[float]:
    """Mean of values over time; one that has settled keeps its last value."""
    return pd.concat(map(pd.Series, curves), axis=1).ffill().mean(axis=1).tolist()


def far_apart(frame: pd.DataFrame, *runs: str, most: int = 5) -> list[str]:
    """The baseline, the settings of `runs`, and those whose accuracy differs most from the baseline's at first.

    At most `most` settings; differences are means over the first four steps.
    """
    means = pd.DataFrame({setting: pd.Series(mean_curve(runs)) for setting, runs in curves(frame).items()})
    first = means.reindex(range(4)).ffill()
    apart = first.sub(first.iloc[:, 0], axis=0).abs().mean().sort_values(ascending=False, kind="stable")
    own = [frame.setting[run] for run in runs if run in frame.index]
    return list(dict.fromkeys([means.columns[0], *own, *apart.index]))[:most]


def cost_curves(frame: pd.DataFrame, quantity: str = "energy") -> dict[str, list[tuple[float, float]]]:
    """Setting → (cost of one image, accuracy as a fraction) after each step; means over its runs.

    quantity: "energy" (picojoules) or "sops". Runs that did not record it over time are left out.
    """
    recorded = frame[frame[quantity].notna()]
    costs, accuracies = curves(recorded, quantity), curves(recorded)
    return {name: list(zip(mean_curve(costs[name]), mean_curve(accuracies[name]), strict=True)) for name in costs}


def neuron_forms(found: Mapping[str, RunResult], frame: pd.DataFrame) -> pd.DataFrame:
    """The same networks with each form of thresholds, and with the neuron that takes no spike back.

    Accuracies in percent on the images that notebook 04 took for it, mean ± standard deviation over the runs of
    a setting that recorded it on as many images.
    """
    rows = []
    for run, setting in frame.setting.items():
        results = found[str(run)].results
        named = {f"{n} thresholds": curve for n, curve in (results.get("accuracy_by_thresholds") or {}).items()}
        named["no spike taken back"] = results.get("accuracy_without_negative_spikes")
        images = results.get("samples_of_forms") or "not recorded"
        for form, curve in named.items():
            if curve:
                at = {f"T = {t}": 100 * curve[t - 1] for t in (1, 2, 4, 8) if t <= len(curve)}
                rows.append({"setting": setting, "neuron": form, "images": images} | at)
    if not rows:
        return pd.DataFrame()
    groups = pd.DataFrame(rows).groupby(["setting", "neuron", "images"], sort=False)
    table = groups.agg(mean_and_deviation)
    table.insert(0, "runs", groups.size())
    return table.reset_index()


def differences(one: RunResult, other: RunResult) -> pd.DataFrame:
    """The parameters in which two runs differ, their seeds among them: a row for each, a column for each run."""
    pair = {result.run: setting_of(result) | {"seed": result.parameters.get("seed")} for result in (one, other)}
    told = told_apart(list(pair.values()))
    frame = pd.DataFrame({run: [values.get(name) for name in told] for run, values in pair.items()}, dtype=object)
    return frame.set_index(pd.Index([name.replace("_", " ") for name in told]))


def most_alike(found: Mapping[str, RunResult], run: RunResult) -> RunResult | None:
    """The run on the same data set that differs in the fewest parameters, but not in its seed alone; if any."""
    own = setting_of(run)
    apart = {
        name: len(told_apart([own, setting_of(other)]))
        for name, other in found.items()
        if other.results["dataset"] == run.results["dataset"]
    }
    others = [name for name in sorted(apart) if apart[name]]
    return found[min(others, key=apart.__getitem__)] if others else None


def mixed(found: Mapping[str, RunResult]) -> list[str]:
    """A line for each thing, method or images, in which some of these runs differ from most of them."""
    rows = with_differences([row_of(run, one.manifest, one.results) for run, one in found.items()])
    notes = grouped((row["mixed"], row["run"]) for row in rows)
    return [f"{', '.join(runs)}: other {note} than most runs" for note, runs in notes.items()]
