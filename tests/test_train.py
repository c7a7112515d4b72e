"""Training: it learns, repeats itself, and goes on after an interruption as if there had been none."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from ann_snn_utils import train as train_network
from ann_snn_utils.ann.device import pick_device
from ann_snn_utils.ann.network import build_ann, raw_weight
from ann_snn_utils.ann.optimizer import Muon, Optimizer
from ann_snn_utils.ann.reference import evaluate, predict
from ann_snn_utils.ann.train import set_seed
from ann_snn_utils.checks import OPTIMIZERS, SCHEDULES
from ann_snn_utils.data.augment import augment
from ann_snn_utils.data.dataset import Dataset
from ann_snn_utils.files import load_tensors, save_tensors

pytestmark = pytest.mark.slow


def stripes(samples: int = 96, name: str = "stripes") -> Dataset:
    """Two classes that a small network tells apart: bright upper or lower half, in noise."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(samples) % 2
    images = torch.randint(0, 60, (samples, 1, 8, 8), generator=generator, dtype=torch.uint8)
    for label, half in ((0, slice(0, 4)), (1, slice(4, 8))):
        images[labels == label, :, half] += 150
    return Dataset(name, "train", images, labels, ("upper", "lower"))


def network(quantized: bool = True):
    set_seed(5)
    return build_ann("4C3-P2-6", (1, 8, 8), 2, quantized=quantized)


def train(ann, **arguments):
    return train_network(ann, stripes(), **{"epochs": 4, "batch_size": 16, "progress": False} | arguments)


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("quantized", [False, True])
def test_both_kinds_of_network_learn_with_the_same_loop(quantized, optimizer):
    ann = network(quantized)
    history = train(ann, epochs=8, optimizer=optimizer)
    assert history[-1]["loss"] < history[0]["loss"] and evaluate(ann, stripes()) >= 90
    assert [row["epoch"] for row in history] == list(range(1, 9))


def test_the_same_seed_trains_the_same_network_and_another_one_does_not():
    first, second, third = network(), network(), network()
    for ann, seed in ((first, 3), (second, 3), (third, 4)):
        train(ann, seed=seed, augmentation="shift")
    assert equal(first, second) and not equal(first, third)


class Stopped(Exception):
    """Stands for a kill in the middle of an epoch."""


INTERRUPTED = [
    (1, {"augmentation": "shift-flip", "optimizer": "adamw"}),
    (2, {"augmentation": "shift-flip", "optimizer": "muon", "momentum": 0.6}),
    (3, {"augmentation": "reflect-flip-cutout", "optimizer": "adamw", "schedule": "linear"}),
    (1, {"augmentation": "reflect-flip", "optimizer": "muon", "schedule": "linear", "freeze_encoder": True}),
]


@pytest.mark.parametrize(("epoch", "how"), INTERRUPTED)
def test_training_goes_on_to_exactly_the_state_of_an_uninterrupted_run(tmp_path, monkeypatch, epoch, how):
    whole, parts = network(), network()
    expected = train(whole, **how, checkpoint=tmp_path / "whole.safetensors")

    calls = 0

    def stop(*arguments):
        nonlocal calls
        calls += 1
        if calls > epoch * 6 + 2:  # 6 batches an epoch
            raise Stopped
        return augment(*arguments)

    with monkeypatch.context() as patch:
        import sys

        patch.setattr(sys.modules["ann_snn_utils.ann.train"], "augment", stop)
        with pytest.raises(Stopped):
            train(parts, **how, checkpoint=tmp_path / "parts.safetensors")
    resumed = network()
    history = train(resumed, **how, checkpoint=tmp_path / "parts.safetensors")
    assert equal(resumed, whole)
    assert [(row["epoch"], row["loss"]) for row in history] == [(row["epoch"], row["loss"]) for row in expected]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_cell_whose_training_was_broken_off_goes_on_when_it_is_run_again(tmp_path, monkeypatch):
    import sys

    ann, whole, seen = network(), network(), []

    def stop(*arguments):
        seen.append(1)
        if len(seen) == 9:  # in the second epoch
            raise KeyboardInterrupt
        return augment(*arguments)

    train(whole, checkpoint=tmp_path / "whole.safetensors")
    monkeypatch.setattr(sys.modules["ann_snn_utils.ann.train"], "augment", stop)
    with pytest.raises(KeyboardInterrupt):
        train(ann, checkpoint=tmp_path / "c.safetensors")
    train(ann, checkpoint=tmp_path / "c.safetensors")
    assert equal(ann, whole)


def test_a_training_does_not_go_on_from_that_of_another_network_or_by_another_teacher(tmp_path):
    path, first, teacher = tmp_path / "c.safetensors", network(), network(quantized=False)
    how = {"checkpoint": path, "distillation": 0.5, "epochs": 1}
    train(first, **how, teacher=teacher)
    set_seed(6)
    other = build_ann("4C3-P2-6", (1, 8, 8), 2)
    with pytest.raises(ValueError, match=r"belongs to another training \(first_weights: '\w+' there, '\w+' here\)"):
        train(other, **how, teacher=teacher)
    train(teacher, epochs=1)
    with pytest.raises(ValueError, match=r"belongs to another training \(teacher: '\w+' there, '\w+' here\)"):
        train(network(), **how, teacher=teacher)


def test_a_finished_training_is_not_repeated(tmp_path):
    first, again = network(), network()
    history = train(first, checkpoint=tmp_path / "c.safetensors")
    assert train(again, checkpoint=tmp_path / "c.safetensors") == history
    assert equal(first, again)


def test_a_training_does_not_go_on_with_other_images_where_its_checkpoint_tells_them(tmp_path):
    path, images = tmp_path / "c.safetensors", stripes(8)
    train_on = partial(train_network, network(), epochs=2, batch_size=4, progress=False, checkpoint=path)
    train_on(images)
    other = replace(images, labels=images.labels.flip(0))
    with pytest.raises(ValueError, match=f"data: '{images.sha256}' there, '{other.sha256}' here"):
        train_on(other)
    tensors, metadata = load_tensors(path)
    del metadata["settings"]["data"]
    save_tensors(path, tensors, metadata)
    train_on = partial(train_on.func, network(), **train_on.keywords)
    assert len(train_on(other)) == len(metadata["history"])


def test_a_checkpoint_of_another_training_is_refused_and_kept(tmp_path):
    path = tmp_path / "c.safetensors"
    train(network(), checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"c.safetensors belongs to another training \(seed: 0 there, 1 here\)"):
        train(network(), checkpoint=path, seed=1)
    with pytest.raises(ValueError, match=r"another training \(schedule: 'one-cycle' there, 'linear' here\)"):
        train(network(), checkpoint=path, schedule="linear")
    assert path.read_bytes() == before


def test_a_checkpoint_of_before_there_were_schedules_is_of_the_only_one_there_was(tmp_path):
    path = tmp_path / "c.safetensors"
    history = train(network(), checkpoint=path)
    tensors, metadata = load_tensors(path)
    for name in ("schedule", "momentum", "freeze_encoder"):
        del metadata["settings"][name]
    save_tensors(path, tensors, metadata)
    assert train(network(), checkpoint=path) == history
    with pytest.raises(ValueError, match=r"\(momentum: None there, 0.9 here\)"):
        train(network(), checkpoint=path, momentum=0.9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"learning_rate": -1}, "learning_rate=-1"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"weight_decay": float("inf")}, "weight_decay=inf"),
        ({"seed": 2**64}, "seed=1844"),
        ({"augmentation": "rotate"}, "augmentation='rotate'"),
        ({"device": "abacus"}, "device='abacus'"),
        ({"label_smoothing": 1}, "label_smoothing=1: give"),
        ({"label_smoothing": -0.1}, "label_smoothing=-0.1"),
        ({"optimizer": "sgd"}, "optimizer='sgd': choose one of adamw, muon"),
        ({"schedule": "cosine"}, "schedule='cosine': choose one of one-cycle, linear"),
        ({"momentum": 1.0}, "momentum=1.0: give a number from 0 to 1, but not 1"),
        ({"momentum": "a"}, "momentum='a'"),
        ({"distillation": 0.5}, "distillation=0.5: give it and a teacher"),
        ({"distillation": 2}, "distillation=2: give a number from 0 to 1"),
        ({"label_smoothing": float("nan")}, "label_smoothing=nan"),
        ({"label_smoothing": "a"}, "label_smoothing='a'"),
    ],
)
def test_wrong_arguments_are_named_before_anything_runs(arguments, message):
    with pytest.raises(ValueError, match=message):
        train(network(), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": replace(stripes(), images=torch.zeros(96, 1, 9, 9, dtype=torch.uint8))}, "validation has"),
        ({"teacher": build_ann("4", (3, 8, 8), 2), "distillation": 0.5}, "teacher is for .*3, 8, 8"),
        ({"teacher": build_ann("4", (1, 8, 8), 3), "distillation": 0.5}, "teacher is for .*, 3\\), the network"),
    ],
)
def test_what_is_for_other_images_is_refused_before_anything_runs(monkeypatch, arguments, message):
    import sys

    monkeypatch.setattr(sys.modules["ann_snn_utils.ann.train"], "augment", None)
    with pytest.raises(ValueError, match=message):
        train(network(), **arguments)


def test_a_network_for_other_images_is_refused():
    with pytest.raises(ValueError, match=r"stripes has images \(1, 8, 8\)"):
        train(build_ann("4C3-6", (3, 8, 8), 2))


def larger(height: int = 10, width: int = 10) -> Dataset:
    """The stripes on a wider dark ground, so that no crop cuts off what tells them apart."""
    small = stripes()
    images = torch.zeros(len(small), 1, height, width, dtype=torch.uint8)
    images[:, :, (height - 8) // 2 :, (width - 8) // 2 :][:, :, :8, :8] = small.images
    return Dataset("larger", "train", images, small.labels, small.classes)


def test_a_network_smaller_than_the_images_learns_from_random_crops_of_them():
    ann, *again, other = (network() for _ in range(4))
    arguments = {"batch_size": 16, "progress": False}
    for one, seed in zip((*again, other), (0, 0, 1), strict=True):
        train_network(one, larger(), epochs=2, seed=seed, **arguments)
    assert equal(*again) and not equal(again[0], other)
    history = train_network(ann, larger(), epochs=30, **arguments)
    assert history[-1]["loss"] < history[0]["loss"] and evaluate(ann, stripes()) >= 80


def test_training_sees_crops_of_the_networks_size_at_many_places(monkeypatch):
    import sys

    seen = []

    def watched(*arguments):
        seen.append(augment(*arguments))
        return seen[-1]

    monkeypatch.setattr(sys.modules["ann_snn_utils.ann.train"], "augment", watched)
    train_network(network(), larger(), epochs=1, batch_size=16, progress=False)
    assert all(batch.shape[1:] == (1, 8, 8) for batch in seen)
    corners = {tuple((crop[0] > 0).sum(dim).gt(0).int().tolist()) for crop in torch.cat(seen) for dim in (0, 1)}
    assert len(corners) == 3  # nothing, or a line on either side, is dark


@pytest.mark.parametrize(("height", "width"), [(7, 12), (12, 7)])
def test_images_smaller_than_the_network_on_either_side_are_refused(height, width):
    small = Dataset(
        "narrow",
        "train",
        torch.zeros(4, 1, height, width, dtype=torch.uint8),
        torch.arange(4) % 2,
        ("upper", "lower"),
    )
    with pytest.raises(ValueError, match=rf"narrow has images \(1, {height}, {width}\).*build it for this data"):
        train_network(network(), small, epochs=1)


def test_smoothed_labels_raise_the_loss_of_the_same_network_and_belong_to_the_training(tmp_path):
    plain, smooth = network(), network()
    path = tmp_path / "c.safetensors"
    sharp_loss = train(plain, epochs=8)[-1]["loss"]
    smooth_loss = train(smooth, epochs=8, label_smoothing=0.3, checkpoint=path)[-1]["loss"]
    assert smooth_loss > sharp_loss and not equal(plain, smooth)
    with pytest.raises(ValueError, match=r"another training \(label_smoothing: 0.3 there, 0.0 here\)"):
        train(network(), epochs=8, checkpoint=path)


def test_muon_moves_layers_in_orthogonal_steps_relative_to_weights_of_unit_norm():
    ann = network()
    moved = [raw_weight(layer.conv) for layer in ann.layers]
    optimizer = Optimizer(ann, "muon", 3e-3, 0.0, steps=10)
    for _ in range(2):
        before = [weight.detach().clone() for weight in moved]
        ann(stripes(16).images).square().sum().backward()
        optimizer.step()
    for weight, old in zip(moved, before, strict=True):
        assert weight.grad is None and float(weight.detach().norm()) == pytest.approx(len(weight) ** 0.5, rel=1e-5)
        step = torch.linalg.svdvals((weight - old).detach().flatten(1))
        assert step.max() < 2 * step.median() and not torch.equal(weight, old)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (7, 7)])
def test_muon_steps_as_that_of_torch_and_by_float32_where_bfloat16_is_slow(shape, fast, monkeypatch):
    monkeypatch.setattr("ann_snn_utils.ann.optimizer.multiplies_bfloat16", lambda device: fast)
    generator = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(4, *shape, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    own = Muon([ours], 0.1, 0.6)
    of_torch = torch.optim.Muon([theirs], 0.1, weight_decay=0, momentum=0.6, ns_steps=3)
    for gradient in gradients:
        for parameter, optimizer in ((ours, own), (theirs, of_torch)):
            parameter.grad = gradient.clone()
            optimizer.step()
    assert torch.equal(ours, theirs) == fast
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.01)


def courses(steps: int = 10, **how) -> tuple[list[list[float]], list[list[float]]]:
    """Learning rate and momentum of each optimizer over a training, step by step."""
    ann = network()
    optimizer = Optimizer(ann, how.pop("name", "muon"), 3e-3, 0.0, steps, **how)
    rates, momenta = [], []
    for _ in range(steps):
        groups = [each.param_groups[0] for each in optimizer.each]
        rates.append([group["lr"] for group in groups])
        momenta.append([group.get("momentum", group.get("betas", [None])[0]) for group in groups])
        ann(stripes(16).images).square().sum().backward()
        optimizer.step()
    return [list(course) for course in zip(*rates, strict=True)], [list(one) for one in zip(*momenta, strict=True)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_momentum_is_what_was_asked_for_throughout(schedule):
    _, (adamw, muon) = courses(schedule=schedule, momentum=0.6)
    assert set(muon) == {0.6} and set(adamw) == {0.9}
    _, (alone,) = courses(schedule=schedule, momentum=0.7, name="adamw")
    assert set(alone) == {0.7}


def test_without_a_momentum_one_cycle_moves_it_against_the_rate_and_linear_leaves_it():
    (_, rate), (_, cycled) = courses(schedule="one-cycle")
    assert rate.index(max(rate)) == cycled.index(min(cycled)) and min(cycled) == pytest.approx(0.85)
    _, (adamw, muon) = courses(schedule="linear")
    assert set(muon) == {0.95} and set(adamw) == {0.9}


def test_a_linear_schedule_falls_from_the_learning_rate_to_nothing_in_equal_steps():
    (adamw, muon), _ = courses(schedule="linear", steps=4)
    assert adamw == pytest.approx([3e-3, 2.25e-3, 1.5e-3, 0.75e-3])
    assert muon == pytest.approx([0.05, 0.0375, 0.025, 0.0125])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", range(1, 8))
def test_a_training_of_few_steps_has_a_rate_for_each(schedule, steps):
    for rates, largest in zip(courses(schedule=schedule, steps=steps)[0], (3e-3, 0.05), strict=True):
        assert len(rates) == steps and all(0 < rate <= largest * (1 + 1e-9) for rate in rates)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frozen_filters_stay_as_they_are_and_all_else_learns(optimizer):
    ann = network(quantized=False)
    before = {name: tensor.clone() for name, tensor in ann.state_dict().items()}
    train(ann, epochs=1, optimizer=optimizer, freeze_encoder=True)
    same = [name for name, tensor in ann.state_dict().items() if torch.equal(tensor, before[name])]
    assert same == ["layers.0.conv.weight"]
    train(ann, epochs=1, optimizer=optimizer)
    assert not torch.equal(ann.state_dict()["layers.0.conv.weight"], before["layers.0.conv.weight"])


def arrows(samples: int = 128) -> Dataset:
    """Arrows that point left or right: one class is the mirror image of the other."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(samples) % 2
    images = torch.randint(0, 40, (samples, 1, 8, 8), generator=generator, dtype=torch.uint8)
    for row, width in enumerate((1, 2, 3, 4, 3, 2, 1)):
        images[:, 0, row, 4 - width : 5] = 200
    images[labels == 1] = images[labels == 1].flip(3)
    return Dataset("arrows", "train", images, labels, ("left", "right"))


@pytest.mark.parametrize(("augmentation", "learnt"), [("none", True), ("reflect", True), ("reflect-flip", False)])
def test_left_and_right_are_learnt_where_images_are_not_mirrored(augmentation, learnt):
    ann = network()
    train_network(ann, arrows(), epochs=30, batch_size=16, augmentation=augmentation, progress=False)
    assert (evaluate(ann, arrows()) >= 105) is learnt


def test_each_image_is_mirrored_in_every_other_epoch(monkeypatch):
    import sys

    asked = []

    def watched(images, how, generator, size, mirrored):
        asked.append((images, mirrored))
        return augment(images, how, generator, size, mirrored)

    monkeypatch.setattr(sys.modules["ann_snn_utils.ann.train"], "augment", watched)
    train(network(), epochs=2, augmentation="reflect-flip")
    turned = [
        {
            image.cpu().numpy().tobytes(): bool(turn)
            for images, mirrored in epoch
            for image, turn in zip(images, mirrored, strict=True)
        }
        for epoch in (asked[:6], asked[6:])
    ]
    assert turned[0].keys() == turned[1].keys() and len(turned[0]) == 96
    assert all(turned[0][image] != turned[1][image] for image in turned[0])
    assert 20 < sum(turned[0].values()) < 76


def test_a_network_takes_on_the_answers_of_its_teacher_instead_of_the_labels(tmp_path):
    teacher, pupil = network(quantized=False), network()
    train(teacher, epochs=8)
    swapped = stripes()
    wrong = Dataset("wrong", "train", swapped.images, 1 - swapped.labels, swapped.classes)
    path, kept = tmp_path / "c.safetensors", [tensor.clone() for tensor in teacher.state_dict().values()]
    train_network(
        pupil, wrong, epochs=8, batch_size=16, teacher=teacher, distillation=1.0, progress=False, checkpoint=path
    )
    assert evaluate(pupil, swapped) >= 90
    assert all(torch.equal(a, b) for a, b in zip(kept, teacher.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match=r"another training \(distillation: 1.0 there, 0.0 here, teacher: "):
        train_network(network(), wrong, epochs=8, batch_size=16, checkpoint=path)


def test_augmentation_moves_pixels_and_keeps_them():
    images = torch.zeros(50, 1, 9, 9, dtype=torch.uint8)
    images[:, 0, 4, 4] = 200
    moved = augment(images, "shift", torch.Generator().manual_seed(0))
    assert moved.shape == images.shape and (moved.sum((1, 2, 3)) == 200).all()
    rows = moved.amax((1, 3)).argmax(1)
    assert set(rows.tolist()) == {2, 3, 4, 5, 6}
    assert torch.equal(augment(images, "none", torch.Generator()), images)


def test_equal_scores_predict_the_first_class():
    ann = network().eval()
    torch.nn.init.zeros_(ann.classifier.parametrizations.weight.original)
    assert predict(ann, stripes(4).images).tolist() == [0, 0, 0, 0]


def test_the_device_is_chosen_automatically():
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick_device().type == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda t, m: t.pop("generator"),
        lambda t, m: t["ann.layers.0.norm.weight"].fill_(torch.nan),
        lambda t, m: m.update(history=[]) or m["history"].append({}),
        lambda t, m: m.pop("groups"),
        lambda t, m: t.update({"optimizer.0.0.exp_avg": torch.zeros(3)}),
    ],
)
def test_a_damaged_checkpoint_is_named_with_the_remedy(tmp_path, change):
    path = tmp_path / "c.safetensors"
    train(network(), checkpoint=path)
    tensors, metadata = load_tensors(path)
    change(tensors, metadata)
    save_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match=r"c.safetensors is damaged .*: remove it to train from the start"):
        train(network(), checkpoint=path)
