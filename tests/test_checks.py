"""One table of rules: functions, notebooks and rehearsals refuse the same values, before anything starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import random_ann, random_images
from test_train import network, stripes

import ann_snn_utils as package
from ann_snn_utils import build_ann, train
from ann_snn_utils.ann.notation import NetworkSpec
from ann_snn_utils.ann.train import batch_sizes
from ann_snn_utils.checks import AUGMENTATIONS, RULES, check, check_settings
from ann_snn_utils.data import augment
from ann_snn_utils.data.dataset import Dataset
from ann_snn_utils.runs.parameters import defaults_of, ordered_notebooks
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import LONGEST, check_network, convert, levels_for

ANN, IMAGES, CLASSES = random_ann(1), random_images(1, (1, 8, 8), 12), torch.arange(12) % 3

WRONG = {
    "k": (-1, 9, 1.0, True, "1", None),
    "levels": (0, 256),
    "clip": (-1, 256, 1.5),
    "classes": (1, 2**21),
    "ternary": (1, "yes"),
    "int8_ends": (0, None),
    "padding": ("full", 3),
    "epochs": (0, 1.5, 10**7),
    "batch_size": (0, -1, 2.5),
    "learning_rate": (-1.0, 1e7, float("nan")),
    "weight_decay": (-1e-9, float("inf")),
    "label_smoothing": (1.0, -0.5, float("nan")),
    "distillation": (1.1, -0.1),
    "momentum": (1.0, -0.1),
    "optimizer": ("sgd", 1),
    "schedule": ("cosine",),
    "augmentation": ("rotate",),
    "max_levels": (-1, 4097, 1.5),
    "time_steps": (0, 10**6 + 1),
    "noise_ratio": (-0.1, 10.5, float("nan")),
    "fault": ("x",),
    "fault_rate": (-0.1, 1.1),
}


def build(**arguments):
    return build_ann(**{"network": "2C3-P2-3", "in_shape": (1, 6, 6), "classes": 2} | arguments)


def trained(**arguments):
    return train(network(), stripes(16), **{"epochs": 1, "batch_size": 16, "progress": False} | arguments)


def run(**arguments):
    return simulate(convert(random_ann(1, clip=1)), random_images(1, (1, 8, 8)), **{"time_steps": 2} | arguments)


TAKERS = {
    build: ("k", "levels", "clip", "classes", "ternary", "int8_ends", "padding"),
    trained: "epochs batch_size learning_rate weight_decay label_smoothing distillation optimizer schedule".split(),
    run: ("time_steps", "noise_ratio", "fault", "fault_rate"),
    lambda max_levels: convert(random_ann(1), max_levels=max_levels): ("max_levels",),
}


@pytest.mark.parametrize(
    ("taker", "name"),
    [(taker, name) for taker, names in TAKERS.items() for name in names],
    ids=lambda x: str(x)[:14],
)
def test_what_a_function_refuses_a_rehearsal_refuses_too(taker, name):
    for value in WRONG[name]:
        with pytest.raises(ValueError, match=f"{name}="):
            taker(**{name: value})
        if value not in RULES[name].left_out:
            with pytest.raises(ValueError, match=f"^{name}=.*(give|choose)"):
                check_settings({name: value})


def test_what_stands_for_left_out_in_a_notebook_passes_there_only():
    for name, rule in RULES.items():
        for value in rule.left_out:
            check_settings({name: value})
            with pytest.raises(ValueError, match=f"{name}="):
                check(name, value)


def test_the_defaults_of_all_notebooks_pass():
    defaults = defaults_of(ordered_notebooks())
    check_settings(defaults)
    assert check_network(defaults, (1, 28, 28), 10, images=1437, hardware=True).network.startswith("32C5")
    assert {"k", "batch_size", "time_steps", "max_levels", "limit"} <= set(defaults) & set(RULES)


def test_names_are_those_that_the_rooms_know():
    assert tuple(augment.AUGMENTATIONS) == AUGMENTATIONS
    assert RULES["max_levels"].high == LONGEST


def test_numbers_come_back_in_plain_types():
    assert type(check("k", torch.tensor(1).numpy()[()])) is int
    assert type(check("noise_ratio", 1)) is float


@pytest.mark.parametrize(
    "call",
    [
        lambda one: package.load_dataset("digits", size=one(8), crop=one(6), limit=one(9), held_out=one(20)).images,
        lambda one: package.load_dataset("digits", size=(one(8), one(6)), limit=9).images,
        lambda one: package.codes(ANN, IMAGES, one(2))[1],
        lambda one: package.predict(ANN, IMAGES, batch_size=one(2)),
        lambda one: package.check_equivalence(ANN, convert(ANN), IMAGES, one(2)).predictions,
        lambda one: torch.tensor(levels_for(ANN, IMAGES, one(2))),
        lambda one: package.simulate(convert(ANN), IMAGES, one(5), batch_size=one(2), backend="events").logits,
        lambda one: package.simulate(convert(ANN), IMAGES, one(5), batch_size=one(2), backend="dense").logits,
    ],
)
def test_numbers_of_numpy_are_as_good_as_pythons(call):
    assert torch.equal(call(np.int64), call(int))


def test_a_network_is_trained_by_numbers_of_numpy_as_by_pythons():
    whole, real = {"epochs": 2, "batch_size": 5, "seed": 1}, {"learning_rate": 0.25, "label_smoothing": 0.125}
    losses = []
    for integer, number in ((int, float), (np.int64, np.float32)):
        given = {name: integer(value) for name, value in whole.items()}
        given |= {name: number(value) for name, value in real.items()}
        rows = train(random_ann(1), Dataset("drawn", "train", IMAGES, CLASSES, ("a", "b", "c")), **given)
        losses.append([row["loss"] for row in rows])
    assert losses[0] == losses[1]


def test_full_precision_weights_are_refused_before_they_are_trained():
    with pytest.raises(ValueError, match="ternary=False with int8_ends=False"):
        check_settings({"ternary": False, "int8_ends": False})
    check_settings({"ternary": True, "int8_ends": False})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ann, snn, images: package.simulate(ann, images), "^snn is of type ANN: give an SNN, as convert"),
        (lambda ann, snn, images: package.certify(snn, ann), "^real is of type ANN: give an SNN"),
        (lambda ann, snn, images: package.check_equivalence(snn, ann, images), "^ann is of type SNN: give an ANN"),
        (lambda ann, snn, images: package.evaluate(ann, images), "^dataset is of type Tensor: .* load_dataset"),
        (lambda ann, snn, images: train(ann, images, epochs=1), "^dataset is of type Tensor: give a Dataset"),
        (lambda ann, snn, images: package.save_network("mine", snn, ann, "digits"), "^ann is of type SNN"),
        (lambda ann, snn, images: package.accuracy(images), "^record is of type Tensor: .* as simulate makes it"),
    ],
)
def test_an_argument_of_another_kind_is_named_with_what_makes_one(call, message):
    ann = random_ann(1)
    with pytest.raises(TypeError, match=message):
        call(ann, convert(ann), random_images(1, ann.spec.in_shape, 1))


def test_a_rate_of_faults_that_are_none_is_refused_and_not_run_as_undisturbed():
    for refused in (check_settings, lambda settings: run(**settings)):
        with pytest.raises(
            ValueError, match="fault_rate=0.5 without a fault: choose one of delete, flip for fault"
        ):
            refused({"fault_rate": 0.5})
    check_settings({"fault_rate": 0.0, "fault": ""})
    run(fault="flip", fault_rate=0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "3X"}, "unknown token '3X'"),
        ({"clip": 255, "k": 8}, "clip=255, k=8: counts up to 65280"),
        ({"batch_size": 1}, "batch_size=1: batch norm"),
        ({"threshold_scale": [1.0, 2.0]}, "one for each of 5 layers"),
        ({"int8_ends": False}, "int8_ends=False: a hardware bundle"),
    ],
)
def test_what_a_network_and_its_data_do_not_allow_is_refused_without_either(change, message):
    with pytest.raises(ValueError, match=message):
        check_network({"network": "lenet", "batch_size": 200} | change, (1, 28, 28), 10, 1437, hardware=True)


def test_sums_that_no_integers_add_are_refused_by_name_and_with_the_remedies():
    ann = build_ann("8C3-[8C3s2-8C3]", (1, 8, 8), 10, 8, False, levels=15, clip=3, padding="same")
    ann.layers[2].norm.running_var.fill_(2.0)
    told = "layer 2 .8C3. adds sums that reach .* for 768 levels: .* Use fewer levels .*ternary=True"
    with pytest.raises(ValueError, match=told):
        convert(ann.eval())


def test_counts_that_no_table_holds_are_refused_when_the_network_is_built():
    with pytest.raises(ValueError, match="clip=255, k=8: counts up to 65280"):
        build(clip=255, k=8)


def test_a_last_batch_of_one_image_joins_the_one_before_where_batch_norm_needs_it():
    flat, maps = NetworkSpec("2C3-4", (1, 6, 6), 2), NetworkSpec("2C3", (1, 6, 6), 2)
    assert batch_sizes(flat, 9, 4) == [4, 5] and batch_sizes(flat, 10, 4) == [4, 4, 2]
    assert batch_sizes(maps, 9, 4) == [4, 4, 1] and batch_sizes(maps, 1, 1) == [1]
    assert batch_sizes(flat, 3, 200) == [3]
    for images, batch_size in ((1, 4), (4, 1)):
        with pytest.raises(ValueError, match="takes two images a step"):
            batch_sizes(flat, images, batch_size)


@pytest.mark.slow
def test_a_training_whose_last_batch_would_be_one_image_runs():
    ann = build_ann("2C3-4", stripes(17).in_shape, 2)
    assert len(train(ann, stripes(17), epochs=1, batch_size=16, progress=False)) == 1
