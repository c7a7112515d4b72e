"""Recipes: a data set's own training, any part of which a run replaces; and first weights to learn from."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ann_snn_utils import build_ann, load_dataset
from ann_snn_utils.ann.initialise import initialise
from ann_snn_utils.ann.network import raw_weight
from ann_snn_utils.ann.recipes import RECIPES, recipe, unrecorded_recipe
from ann_snn_utils.checks import INITIALISATIONS
from ann_snn_utils.runs.parameters import NOTEBOOKS, defaults_of

STEMS = ("01_train_ann", "02_quantize")


@pytest.mark.parametrize("dataset", [*RECIPES, "/some/folder"])
def test_the_notebooks_defaults_leave_everything_to_the_recipe(dataset):
    assert recipe(dataset, defaults_of([NOTEBOOKS / f"{stem}.ipynb" for stem in STEMS])) == recipe(dataset)


def test_digits_and_mnist_train_as_they_always_did():
    for dataset in ("digits", "mnist"):
        own = recipe(dataset)
        assert {name: getattr(own, name) for name in unrecorded_recipe(dataset)} == unrecorded_recipe(dataset)
        assert (own.optimizer, own.learning_rate, own.label_smoothing) == ("adamw", 0.003, 0.0)


def test_unknown_images_are_not_mirrored_unless_asked_for():
    assert recipe("/some/arrows").training(False)["augmentation"] == "shift"
    assert recipe("/some/arrows", {"augmentation": "shift-flip"}).training(True)["augmentation"] == "shift-flip"


def test_what_a_run_gives_replaces_the_recipes():
    given = {"optimizer": "adamw", "learning_rate": 0.01, "label_smoothing": 0.0, "initialisation": "dirac"}
    ours = recipe("cifar10", given)
    for quantized in (False, True):
        how = ours.training(quantized)
        assert (how["optimizer"], how["learning_rate"], how["label_smoothing"]) == ("adamw", 0.01, 0.0)
        assert not how["freeze_encoder"] and how["schedule"] == recipe("cifar10").schedule


def test_momentum_may_be_left_to_the_schedule():
    assert recipe("cifar10", {"momentum": 0.0}).training(False)["momentum"] is None
    assert recipe("digits", {"momentum": 0.6}).training(True)["momentum"] == 0.6


def test_the_quantized_training_may_have_an_optimizer_and_a_rate_of_its_own():
    own = recipe("cifar10")
    assert own.training(False)["learning_rate"] != own.training(True)["learning_rate"]
    ours = recipe("cifar10", {"learning_rate": 0.01, "qann_learning_rate": 0.02, "qann_optimizer": "adamw"})
    assert [ours.training(q)["learning_rate"] for q in (False, True)] == [0.01, 0.02]
    assert [ours.training(q)["optimizer"] for q in (False, True)] == ["muon", "adamw"]
    both = recipe("cifar10", {"optimizer": "muon"})
    assert [both.training(q)["optimizer"] for q in (False, True)] == ["muon", "muon"]


def test_only_full_precision_keeps_whitened_filters():
    assert [recipe("cifar10").training(quantized)["freeze_encoder"] for quantized in (False, True)] == [True, False]


def test_a_run_records_the_values_that_it_left_open():
    asked = {"optimizer": "", "label_smoothing": -1.0, "momentum": 0.3, "ann_epochs": 0, "seed": 4}
    found = recipe("cifar10", asked).resolved(asked)
    assert found == {"optimizer": "muon", "label_smoothing": 0.2, "momentum": 0.3}


def images(number: int = 40) -> torch.Tensor:
    """Coloured noise, with neighbours alike as in photographs."""
    noise = torch.rand(number, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    return (F.avg_pool2d(noise, 3, 1, 1) * 255).to(torch.uint8)


def test_from_dirac_weights_layers_pass_their_input_on_and_p2_averages():
    ann = build_ann("4C3-6C3-P2-5C3-9", (4, 12, 12), 3, padding="same", quantized=False)
    torch.manual_seed(1)
    initialise(ann, "dirac", images())
    x = torch.rand(2, 4, 12, 12)
    first, second, pool, narrow, full = (layer.conv for layer in ann.layers)
    assert torch.equal(first(x), x) and torch.equal(second(x)[:, :4], x)
    assert second.weight[4:].std() > 0.1
    y = torch.rand(2, 6, 12, 12)
    assert torch.allclose(pool(y), F.avg_pool2d(y, 2))
    assert (narrow.weight != 0).all() and (full.weight != 0).all()


def test_whitened_filters_come_in_opposite_pairs_and_their_answers_are_uncorrelated():
    ann = build_ann("60C3-8", (3, 12, 12), 3, padding="same", quantized=False)
    initialise(ann, "whitened", images())
    filters = raw_weight(ann.layers[0].conv).detach().double()
    assert torch.equal(filters[0:54:2], -filters[1:54:2])
    answers = F.conv2d(images().double() / 255, filters[0:54:2]).transpose(0, 1).flatten(1)
    spread = torch.cov(answers)
    assert (spread.diag().diff() <= 1e-12).all()
    off = spread - spread.diag().diag()
    assert off.abs().max() < 1e-5 * spread.diag().max()
    assert torch.allclose(filters[:54].flatten(1).norm(dim=1), torch.ones(54).double(), atol=1e-6)


def test_whitened_filters_of_a_group_are_the_axes_of_its_own_channels():
    grouped = build_ann("9C3g3-8", (3, 12, 12), 3, padding="same", quantized=False)
    initialise(grouped, "whitened", images())
    for channel, filters in enumerate(raw_weight(grouped.layers[0].conv).chunk(3)):
        alone = build_ann("3C3-8", (1, 12, 12), 3, padding="same", quantized=False)
        initialise(alone, "whitened", images()[:, channel : channel + 1])
        assert torch.equal(filters, raw_weight(alone.layers[0].conv))


@pytest.mark.parametrize("notation", ["6C5-P2-10", "10C3-4", "12", "D3-10"])
def test_every_network_can_start_from_each_kind_of_weights(notation):
    training = load_dataset("digits", "train", size=12, limit=50)
    for how in INITIALISATIONS:
        ann = build_ann(notation, training.in_shape, 10)
        initialise(ann, how, training.images)
        assert all(torch.isfinite(raw_weight(layer.conv)).all() for layer in ann.layers)


def test_random_weights_are_those_that_were_drawn():
    torch.manual_seed(3)
    ann = build_ann("6C3-P2-10", (1, 8, 8), 2)
    drawn = [raw_weight(layer.conv).clone() for layer in ann.layers]
    initialise(ann, "random", images())
    assert all(torch.equal(a, raw_weight(b.conv)) for a, b in zip(drawn, ann.layers, strict=True))


def test_another_initialisation_is_named():
    with pytest.raises(ValueError, match="initialisation='orthogonal': choose one of random, dirac, whitened"):
        initialise(build_ann("6C3-10", (1, 8, 8), 2), "orthogonal", images())
