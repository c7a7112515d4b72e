"""How each data set is trained by default, and what of it a run's parameters change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..checks import RULES


@dataclass(frozen=True)
class Recipe:
    """The two trainings of a study, in full precision (ann) and quantized (qann); fields as in `train`.

    Here `momentum` 0.0 leaves it to the schedule, and empty `qann_…` are those of the full-precision training.
    initialisation: of `initialise`; where it is "whitened", full precision leaves the first filters as they are.
    """

    ann_epochs: int
    qann_epochs: int
    augmentation: str = "shift"
    optimizer: str = "adamw"
    qann_optimizer: str = ""
    learning_rate: float = 3e-3
    qann_learning_rate: float = 0.0
    schedule: str = "one-cycle"
    momentum: float = 0.0
    initialisation: str = "random"
    label_smoothing: float = 0.0

    def training(self, quantized: bool) -> dict[str, Any]:
        """Arguments of `train` for the full-precision or the quantized training."""
        return {
            "epochs": self.qann_epochs if quantized else self.ann_epochs,
            "augmentation": self.augmentation,
            "optimizer": quantized and self.qann_optimizer or self.optimizer,
            "learning_rate": quantized and self.qann_learning_rate or self.learning_rate,
            "schedule": self.schedule,
            "momentum": self.momentum or None,
            "label_smoothing": self.label_smoothing,
            "freeze_encoder": not quantized and self.initialisation == "whitened",
        }

    def resolved(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """What a run records in place of parameters that it left open; epochs are told by its history."""
        kept = asdict(self).items()
        return {name: value for name, value in kept if name in parameters and not name.endswith("_epochs")}


_PHOTOGRAPHS = Recipe(
    12,
    16,
    augmentation="reflect-flip",
    optimizer="muon",
    # Where weights are rounded to −1, 0, +1, AdamW found better ones than Muon (data/sweeps/README.md).
    qann_optimizer="adamw",
    qann_learning_rate=2e-3,
    schedule="linear",
    momentum=0.6,
    initialisation="whitened",
    label_smoothing=0.2,
)

# Mirror images are safe for photographs only, so unknown image folders are shifted and no more.
RECIPES = {
    "digits": Recipe(15, 25),
    "mnist": Recipe(6, 14),
    "fashion_mnist": replace(_PHOTOGRAPHS, ann_epochs=8, label_smoothing=0.1),
    "cifar10": _PHOTOGRAPHS,
}
FOLDER_RECIPE = Recipe(30, 30)


def unrecorded_recipe(dataset: str) -> dict[str, Any]:
    """The recipe of runs that record none, as they were made before its fields were parameters."""
    flip = dataset not in ("digits", "mnist", "fashion_mnist")
    old = replace(FOLDER_RECIPE, augmentation="shift-flip" if flip else "shift")
    return {name: value for name, value in asdict(old).items() if not name.endswith("_epochs")}


def recipe(dataset: str, parameters: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of a data set by name, or of an image folder, with the parameters that were given.

    Empty text, 0 and, for label_smoothing and momentum, −1 leave a field to the data set's own. A learning rate or
    optimizer given for both trainings replaces the quantized training's own.

    >>> recipe("cifar10", {"optimizer": "adamw", "label_smoothing": -1.0}).label_smoothing
    0.2
    """
    own, parameters = RECIPES.get(dataset, FOLDER_RECIPE), parameters or {}
    names = [field.name for field in fields(Recipe) if field.name in parameters]
    given = {name: parameters[name] for name in names if parameters[name] not in RULES[name].left_out}
    for name in ("optimizer", "learning_rate"):
        if name in given and f"qann_{name}" not in given:
            given[f"qann_{name}"] = given[name]
    return replace(own, **given)
