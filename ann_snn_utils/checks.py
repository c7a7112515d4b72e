"""What every parameter of building, training, converting and simulating may be: one table of rules.

Functions, command line, notebooks and rehearsals ask here, so that all of them refuse the same values with the same
words. What depends on the shape of a network or on the data is checked where these are known: see `parse`,
`build_ann` and `check_network`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LARGEST_SEED = 2**63 - 1
ANY_NUMBER = 2**31 - 1


@dataclass(frozen=True)
class Rule:
    """What one parameter may be.

    kind        int, float, bool or str
    low, high   ends of a number's range, which belong to it unless they are among `without`
    choices     the texts to choose from
    left_out    values that stand in a notebook for a parameter that is not given
    """

    kind: type
    low: float = 0
    high: float = ANY_NUMBER
    without: tuple[float, ...] = ()
    choices: tuple[str, ...] = ()
    left_out: tuple[Any, ...] = ()

    @property
    def remedy(self) -> str:
        """What to give, in words."""
        if self.choices:
            return f"choose one of {', '.join(self.choices)}"
        if self.kind is bool:
            return "give True or False"
        number = "a whole number" if self.kind is int else "a number"
        if self.high == ANY_NUMBER:
            return f"give {number} of at least {self.low:,}"
        but = f", but not {' or '.join(map(str, self.without))}" if self.without else ""
        return f"give {number} from {_end(self.low)} to {_end(self.high)}{but}"

    def allows(self, value: object) -> bool:
        """True where the value is of the kind, and in the range or among the choices."""
        if self.choices:
            return isinstance(value, str) and value in self.choices
        if self.kind is bool or isinstance(value, bool):
            return self.kind is bool and isinstance(value, bool)
        # Its own kind first, which is quickly told.
        number = isinstance(value, (self.kind, Integral if self.kind is int else Real))
        # As they are: a float would round a long int.
        return number and bool(self.low <= value <= self.high) and value not in self.without  # type: ignore[operator]


def _end(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("one-cycle", "linear")
INITIALISATIONS = ("random", "dirac", "whitened")
AUGMENTATIONS = ("none", "shift", "shift-flip", "reflect", "reflect-flip", "reflect-cutout", "reflect-flip-cutout")
FAULTS = ("delete", "flip")
PADDINGS = ("valid", "same")

_EPOCHS = Rule(int, 1, 1_000_000, left_out=(0,))
_IMAGES = Rule(int, 1, left_out=(0,))
_RATE = Rule(float, 1e-12, 1e6, left_out=(0.0,))

# Under the names of functions' arguments and of notebooks' parameters, which differ where a run has two of a kind.
RULES: Mapping[str, Rule] = {
    # a network
    "classes": Rule(int, 2, 2**20),
    "k": Rule(int, 0, 8),
    "levels": Rule(int, 1, 255),
    "clip": Rule(int, 1, 255, left_out=(0,)),
    "ternary": Rule(bool),
    "quantized": Rule(bool),
    "int8_ends": Rule(bool),
    "padding": Rule(str, choices=PADDINGS, left_out=("",)),
    # its training
    "epochs": _EPOCHS,
    "ann_epochs": _EPOCHS,
    "qann_epochs": _EPOCHS,
    "batch_size": Rule(int, 1),
    "optimizer": Rule(str, choices=OPTIMIZERS, left_out=("",)),
    "qann_optimizer": Rule(str, choices=OPTIMIZERS, left_out=("",)),
    "schedule": Rule(str, choices=SCHEDULES, left_out=("",)),
    "augmentation": Rule(str, choices=AUGMENTATIONS, left_out=("",)),
    "initialisation": Rule(str, choices=INITIALISATIONS, left_out=("",)),
    "learning_rate": _RATE,
    "qann_learning_rate": _RATE,
    "weight_decay": Rule(float, 0, 1e6),
    "momentum": Rule(float, 0, 1, without=(1,), left_out=(-1.0,)),
    "label_smoothing": Rule(float, 0, 1, without=(1,), left_out=(-1.0,)),
    "distillation": Rule(float, 0, 1),
    "seed": Rule(int, -LARGEST_SEED, LARGEST_SEED),
    # its conversion
    "max_levels": Rule(int, 1, 4096, left_out=(0,)),
    "published_samples": Rule(int, 1),
    # its run
    "time_steps": Rule(int, 1, 1_000_000),
    "first_sample": Rule(int),
    "noise_ratio": Rule(float, 0, 10),
    "fault": Rule(str, choices=FAULTS, left_out=("",)),
    "fault_rate": Rule(float, 0, 1),
    "threshold_scale": Rule(float, 0, 1e6, without=(0,)),
    "samples": _IMAGES,
    "robustness_samples": Rule(int, 1),
    # its images
    "limit": _IMAGES,
    "size": Rule(int, 1, 4096, left_out=(0,)),
    "crop": Rule(int, 1, 4096, left_out=(0,)),
    "held_out": _IMAGES,
}


def check(name: str, value: object) -> Any:
    """The value of a parameter in its plain Python type; ValueError that says what to give instead.

    >>> check("k", 2)
    2
    >>> check("k", 9)
    Traceback (most recent call last):
    ValueError: k=9: give a whole number from 0 to 8
    """
    rule = RULES[name]
    if not rule.allows(value):
        raise ValueError(f"{name}={value!r:.40}: {rule.remedy}")
    return rule.kind(value)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse parameters of a study, by the names and with the conventions of its notebooks, before anything runs.

    A parameter that is left out (0, "" or whatever its rule says) passes, and so does one without a rule: the run's
    name, the data set, the notation. Raises ValueError that names the parameter, its value and the remedy.

    >>> check_settings({"k": 1, "clip": 0, "padding": ""})
    >>> check_settings({"ternary": False, "int8_ends": False})
    Traceback (most recent call last):
    ValueError: ternary=False with int8_ends=False: real weights have no integer thresholds: set one to true
    """
    for name, value in settings.items():
        rule = RULES.get(name)
        if rule is None or (value in rule.left_out and type(value) is not bool):
            continue
        # One factor, or one for each layer.
        for one in value if name == "threshold_scale" and isinstance(value, list | tuple) else [value]:
            if not rule.allows(one):
                otherwise = "".join(f", or {one!r} to leave it out" for one in rule.left_out[:1])
                raise ValueError(f"{name}={one!r:.40}: {rule.remedy}{otherwise}")
    if settings.get("ternary") is False and settings.get("int8_ends") is False:
        raise ValueError(
            "ternary=False with int8_ends=False: real weights have no integer thresholds: set one to true"
        )
    if settings.get("fault_rate") and not settings.get("fault"):
        raise ValueError(
            f"fault_rate={settings['fault_rate']!r} without a fault: {RULES['fault'].remedy} for fault"
        )


# What a function takes, and what makes it.
_KINDS = {
    "ANN": "an ANN, as build_ann, load_ann, load_pretrained and quantize make it",
    "SNN": "an SNN, as convert and load_snn make it",
    "Dataset": "a Dataset, as load_dataset makes it",
    "Record": "a Record, as simulate makes it",
}


def expect(kind: type, **given: object) -> None:
    """Refuse arguments of another kind: TypeError that names the argument, its type and what to give.

    >>> from ann_snn_utils import SNN
    >>> expect(SNN, snn="mnist-lenet-k0")
    Traceback (most recent call last):
    TypeError: snn is of type str: give an SNN, as convert and load_snn make it
    """
    for name, value in given.items():
        if not isinstance(value, kind):
            raise TypeError(f"{name} is of type {type(value).__name__}: give {_KINDS[kind.__name__]}")


def seeded_generator(seed: int) -> torch.Generator:
    """A generator of torch that starts from a seed; ValueError for a number that is none."""
    import torch

    return torch.Generator().manual_seed(check("seed", seed))
