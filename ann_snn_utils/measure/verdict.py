"""Does the spiking network save energy? Under every model and assumption, against every rival, and which decides.

A verdict is a factor: the rival's picojoules over the spiking network's; above 1 the spiking network wins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from ..simulator.record import Record
from ..snn.network import SNN
from .energy import Arithmetic, arithmetic_dense, arithmetic_spiking
from .events import ENCODER, LayerEvents, check_silent, layer_events, rivals_of, spikes_per_synapse
from .memory import ACCESS, PLACES, Lemaire, Yan, lemaire_dense, lemaire_spiking, yan_dense, yan_spiking

Assumptions = Arithmetic | Lemaire | Yan

MODELS: dict[str, Assumptions] = {"arithmetic": Arithmetic(), "lemaire": Lemaire(), "yan": Yan()}
TITLES = {"arithmetic": "arithmetic only", "lemaire": "Lemaire et al.", "yan": "Yan et al."}

_ZEROS = {"skipped": {}, "fetched": {"skip_zero_weights": False}}

# Model → question → answer → what it changes; the model's own answer is the one that changes nothing.
QUESTIONS: dict[str, dict[str, dict[str, dict[str, Any]]]] = {
    "arithmetic": {"zero weights": {"skipped": {}, "added": {"skip_zero_weights": False}}},
    "lemaire": {
        "memory access": {name: {"access": name} for name in ACCESS},
        "zero weights": _ZEROS,
        "membranes": {
            "each spike and step": {},
            "each step": {"membranes": "step"},
            "each spike": {"membranes": "spike"},
        },
        "dense fetches": {"each product": {}, "weights once": {"reuse": "weights"}, "all once": {"reuse": "all"}},
        "widths": {"each value's own": {}, "8 bits for all": {"value_bits": 8}},
    },
    "yan": {
        "movement": PLACES,
        "hops": {"1 to a neuron": {}, "0.64, VGG16 on a mesh": {"hops": 0.64}},
        "multiplication": {"synthesized": {}, "scaled from FP32": {"scaled_mac": True}},
        "zero weights": _ZEROS,
        "membranes": {"each step": {}, "each spike": {"membranes": "spike"}},
        "dense fetches": {"weights once": {}, "each product": {"reuse": False}},
    },
}
RUNS = {"until silence": True, "fixed T": False}

# Spikes that a synapse may carry in an inference for a spiking network to compete: M. Dampfhoffer et al., IEEE
# TETCI 7(3), 2023, by the dense network's dataflow; S. Davidson, S. Furber, Front. Neurosci. 15:651141, 2021, 12 E
# / 7 E; Yan et al., 2026, 5.7 % of 5 steps.
THRESHOLDS = {
    "Dampfhoffer et al.": (0.15, 1.38),
    "Davidson & Furber": (12 / 7, 12 / 7),
    "Yan et al.": (0.285, 0.285),
}

_PRICES: dict[type, tuple[Callable[..., Any], Callable[..., Any]]] = {
    Arithmetic: (arithmetic_spiking, arithmetic_dense),
    Lemaire: (lemaire_spiking, lemaire_dense),
    Yan: (yan_spiking, yan_dense),
}


@dataclass(frozen=True, eq=False)
class Estimate:
    """Picojoules of one image, by component.

    spiking: component → [L, T]. dense: rival → component → [L]. L counts the classifier. names: of the rivals, as
    they are told to a reader.
    """

    layers: tuple[str, ...]
    spiking: dict[str, np.ndarray]
    dense: dict[str, dict[str, np.ndarray]]
    names: dict[str, str]

    @property
    def total(self) -> float:
        """Picojoules of the spiking network."""
        return float(sum(cost.sum() for cost in self.spiking.values()))

    @property
    def until_step(self) -> np.ndarray:
        """Picojoules of the spiking network up to each step, [T]."""
        return np.sum([cost.sum(0) for cost in self.spiking.values()], 0).cumsum()

    @property
    def totals(self) -> dict[str, float]:
        """Picojoules of each rival."""
        return {name: float(sum(cost.sum() for cost in parts.values())) for name, parts in self.dense.items()}

    @property
    def saves(self) -> dict[str, float]:
        """How many times less than each rival the spiking network needs; below 1 it needs more."""
        return {name: cost / self.total for name, cost in self.totals.items()}


def estimate(layers: Sequence[LayerEvents], how: Assumptions) -> Estimate:
    """What a run cost under the assumptions, layer by layer and step by step, beside every rival."""
    spiking, dense = _PRICES[type(how)]
    rivals = rivals_of(layers)
    return Estimate(
        tuple(layer.name for layer in layers),
        _stacked([spiking(layer, how) for layer in layers]),
        {key: _stacked([dense(layer, rival, how) for layer in layers]) for key, rival in rivals.items()},
        {key: rival.name for key, rival in rivals.items()},
    )


def _stacked(parts: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.stack([np.asarray(part[name]) for part in parts]) for name in parts[0]}


def break_even(layers: Sequence[LayerEvents], how: Assumptions, rival: str = "int8") -> float:
    """Spikes per synapse and inference at which the spiking network would cost what the rival does.

    Found by scaling the measured spikes, wherever they are; negative where it costs more without any, NaN where
    none was measured.
    """
    once, none = (estimate([layer.scaled(factor) for layer in layers], how) for factor in (1.0, 0.0))
    if once.total == none.total:
        return math.nan
    return (once.totals[rival] - none.total) / (once.total - none.total) * spikes_per_synapse(layers)


@dataclass(frozen=True, eq=False)
class RunEvents:
    """The events of one run: each image until its own silence, and all images for as long as the slowest."""

    until_silence: tuple[LayerEvents, ...]
    fixed: tuple[LayerEvents, ...]

    def of(self, name: str) -> tuple[LayerEvents, ...]:
        """The events of a run by its name, of RUNS."""
        return self.until_silence if RUNS[name] else self.fixed


def run_events_of(record: Record, snn: SNN) -> RunEvents:
    """The events of a run until silence; ValueError where it ended before, and as of `layer_events`.

    Steps beyond the silence of all images are left out.
    """
    check_silent(record)
    record = record.until_silence()
    stopping = layer_events(record, snn)
    always = np.ones(record.time_steps)
    fixed = (layer if layer.kind == ENCODER else replace(layer, working=always) for layer in stopping)
    return RunEvents(stopping, tuple(fixed))


def scenarios(runs: RunEvents, model: str) -> list[dict[str, Any]]:
    """Every combination of answers to the questions of a model, run and rival, with what it "saves"."""
    questions, rows = QUESTIONS[model], []
    for answers in product(*(answers.items() for answers in questions.values())):
        changes = {field: value for _, changed in answers for field, value in changed.items()}
        chosen = dict(zip(questions, (name for name, _ in answers), strict=True))
        for run in RUNS:
            found = estimate(runs.of(run), replace(MODELS[model], **changes))
            rows += [chosen | {"run": run, "rival": rival, "saves": saves} for rival, saves in found.saves.items()]
    return rows


def tornado(runs: RunEvents, model: str) -> dict[str, dict[str, float]]:
    """Question → answer → what is saved against int8 when only this answer is changed; what decides most first.

    Among the rivals, FP32 would decide everything: it is left out.
    """
    base = MODELS[model]
    found = {
        question: {
            answer: estimate(runs.until_silence, replace(base, **changed)).saves["int8"]
            for answer, changed in answers.items()
        }
        for question, answers in QUESTIONS[model].items()
    }
    found["run"] = {run: estimate(runs.of(run), base).saves["int8"] for run in RUNS}
    whole = estimate(runs.until_silence, base)
    found["rival"] = {whole.names[key]: saves for key, saves in whole.saves.items() if key != "fp32"}
    return dict(sorted(found.items(), key=lambda item: min(item[1].values()) / max(item[1].values())))


def energy_by_model(runs: RunEvents) -> dict[str, dict[str, float]]:
    """Model → picojoules of one image: "snn", each rival, and "fixed", all images run as long as the slowest."""
    found = {}
    for model, how in MODELS.items():
        own = estimate(runs.until_silence, how)
        found[model] = {"snn": own.total, **own.totals, "fixed": estimate(runs.fixed, how).total}
    return found


def spread(rows: Sequence[Mapping[str, Any]], rival: str) -> dict[str, float]:
    """The least and greatest saving among scenarios against one rival, and the share of them that win."""
    saves = [row["saves"] for row in rows if row["rival"] == rival]
    return {"least": min(saves), "greatest": max(saves), "wins": sum(one > 1 for one in saves) / len(saves)}


def silence_pays(runs: RunEvents, snn: SNN, how: Assumptions) -> dict[str, dict[str, float]]:
    """Steps and picojoules of one image by when it stops: "silence", "slowest" and "guaranteed".

    At its own silence; with the slowest image of the run; after the number of steps that suffices for every input,
    which is when a network that cannot tell its silence may stop. All give the same answers.
    """
    until_step = estimate(runs.fixed, how).until_step
    slowest, guaranteed = len(until_step), max(len(until_step), snn.sufficient_steps)
    # The last step of the run was silent in all images, and so is every step from there on.
    idle = until_step[-1] - until_step[-2] if slowest > 1 else 0.0
    mean = float(sum(runs.until_silence[-1].working))
    return {
        "silence": {"steps": mean, "pj": estimate(runs.until_silence, how).total},
        "slowest": {"steps": slowest, "pj": float(until_step[-1])},
        "guaranteed": {"steps": guaranteed, "pj": float(until_step[-1] + (guaranteed - slowest) * idle)},
    }


def energy_summary(record: Record, snn: SNN) -> dict[str, Any]:
    """What a run until silence says about energy under all models, as JSON values.

    spikes_per_synapse: all, and at weights other than zero. models: for each, "pj" as in `energy_by_model`,
    "until_step" for all images together, "saves", "spread" and "break_even" against each rival, and "silence".
    """
    runs = run_events_of(record, snn)
    by_model, models = energy_by_model(runs), {}
    for model, how in MODELS.items():
        found, rows = estimate(runs.until_silence, how), scenarios(runs, model)
        models[model] = {
            "pj": by_model[model],
            "until_step": estimate(runs.fixed, how).until_step.tolist(),
            "saves": found.saves,
            "spread": {rival: spread(rows, rival) for rival in found.names},
            "break_even": {rival: break_even(runs.until_silence, how, rival) for rival in found.names},
            "silence": silence_pays(runs, snn, how),
        }
    layers = runs.until_silence
    synapses = {"all": spikes_per_synapse(layers), "nonzero": spikes_per_synapse(layers, nonzero=True)}
    return {"rivals": found.names, "spikes_per_synapse": synapses, "models": models}
