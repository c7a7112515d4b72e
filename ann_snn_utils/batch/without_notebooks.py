"""Training and simulating a run from the command line, without notebooks and with the same artifacts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..ann.initialise import initialise
from ..ann.network import ANN, build_ann, copy_weights
from ..ann.recipes import Recipe, recipe
from ..ann.reference import evaluate
from ..ann.store import load_ann, save_ann
from ..ann.train import pick_device, set_seed, train
from ..data.dataset import SPLITS, Dataset, identity_of, load_recorded, load_splits, source_of
from ..measure.logs import log_folder, write_logs
from ..runs.folder import require, run_folder
from ..runs.manifest import read_manifest, record_stage
from ..simulator.record import Record
from ..simulator.run import simulate
from ..snn.store import load_snn
from ..tables import aligned

ANN_FILE, QANN_FILE, SNN_FILE = "ann.safetensors", "qann.safetensors", "snn.safetensors"


def train_ann(folder: Path, parameters: Mapping[str, Any], device: str = "auto") -> Path:
    """Train the full-precision network into folder/ann.safetensors with the parameters of 01_train_ann."""
    chosen = pick_device(device)
    source = source_of(parameters)
    training, test = load_splits(**source)
    set_seed(parameters["seed"])
    ann = build_ann(
        parameters["network"],
        test.in_shape,
        len(test.classes),
        quantized=False,
        padding=parameters["padding"] or None,
    )
    plan = recipe(parameters["dataset"], parameters)
    initialise(ann, plan.initialisation, training.images)
    return _train(folder, ANN_FILE, "01_train_ann", ann, (training, test), plan, parameters, chosen, source, {})


def train_qann(folder: Path, parameters: Mapping[str, Any], device: str = "auto") -> Path:
    """Train the quantized network, from folder/ann.safetensors, into folder/qann.safetensors."""
    chosen = pick_device(device)
    ann = load_ann(require(folder, ANN_FILE))
    source, spec = ann.metadata["source"], ann.spec
    training, test = (load_recorded(ann.metadata, split) for split in SPLITS)
    set_seed(parameters["seed"])
    qann = build_ann(
        spec.network,
        spec.in_shape,
        spec.classes,
        k=parameters["k"],
        ternary=parameters["ternary"],
        levels=parameters["levels"],
        clip=parameters["clip"] or None,
        padding=spec.padding,
        int8_ends=parameters["int8_ends"],
    )
    copy_weights(ann, qann)
    plan = recipe(source["name"], parameters)
    kept = {"ann_correct": ann.metadata["correct"]}
    splits, teacher = (training, test), ann if parameters["distillation"] else None
    return _train(folder, QANN_FILE, "02_quantize", qann, splits, plan, parameters, chosen, source, kept, teacher)


def _train(
    folder: Path,
    file: str,
    stage: str,
    ann: ANN,
    splits: tuple[Dataset, Dataset],
    plan: Recipe,
    parameters: Mapping[str, Any],
    device: Any,
    source: dict[str, Any],
    kept: dict[str, Any],
    teacher: ANN | None = None,
) -> Path:
    started, (training, test) = time.monotonic(), splits
    history = train(
        ann,
        training,
        **plan.training(quantized=file == QANN_FILE),
        batch_size=parameters["batch_size"],
        device=str(device),
        seed=parameters["seed"],
        teacher=teacher,
        distillation=parameters.get("distillation", 0.0),
        checkpoint=folder / file.replace(".safetensors", ".checkpoint.safetensors"),
    )
    ann.cpu()
    correct, samples = evaluate(ann, test), len(test)
    kept |= {"source": source, "data": identity_of(training, test)}
    save_ann(ann, folder / file, samples=samples, correct=correct, seed=parameters["seed"], **kept)
    record_stage(
        folder,
        stage,
        parameters={**parameters, **plan.resolved(parameters)},
        inputs=[ANN_FILE] if file != ANN_FILE else [],
        artifacts=[file],
        seconds=round(time.monotonic() - started, 1),
        device=str(device),
        metrics={
            "accuracy": correct / samples,
            "correct": correct,
            "samples": samples,
            "history": history,
            "data": {split.split: split.sha256 for split in splits},
        },
    )
    print(f"{correct:,} of {samples:,} test images correct: {100 * correct / samples:.2f} %")
    return folder / file


def check_same_ann(folder: Path, given: Mapping[str, Any]) -> None:
    """Raise ValueError where the run's full-precision network was trained with other parameters than given."""
    recorded = read_manifest(folder)["stages"].get("01_train_ann", {}).get("parameters", {})
    for name, value in given.items():
        if name in recorded and recorded[name] != value:
            raise ValueError(
                f"{name}={value!r}: run {folder.name!r} has an {ANN_FILE} trained with {recorded[name]!r}; leave "
                f"{name} out, or name another run"
            )


def simulate_run(
    run: str,
    time_steps: int | None,
    samples: int | None,
    logs: bool,
    dataset: str | None = None,
    **disturbance: Any,
) -> tuple[str, Path | None]:
    """Give a run's table of accuracy, spikes and SOPs over time, and the folder of its six logs if wanted.

    time_steps: None runs until every image is silent. disturbance: noise_ratio, seed, fault and fault_rate of
    `simulate`. dataset: where the run's images lie now. logs: written in batches of 200 images (50 for CIFAR-10),
    as published.
    """
    folder = run_folder(run)
    snn = load_snn(require(folder, SNN_FILE))
    test = load_recorded(snn.metadata, dataset=dataset)
    test = test.subset(min(samples, len(test))) if samples else test
    record = simulate(snn, test, time_steps, progress=True, **disturbance)
    table = over_time(record)
    if not logs:
        return table, None
    size = 50 if "cifar" in test.name.lower() else 200
    starts = range(0, len(test), size)
    batches = (
        simulate(
            snn,
            test.subset(range(start, min(start + size, len(test)))),
            record.time_steps,
            **disturbance | {"seed": disturbance.get("seed", 0) + start // size},
        )
        for start in starts
    )
    target = log_folder(snn, folder / "figs")
    write_logs(batches, target)
    return table, target


def over_time(record: Record) -> str:
    """Give a record of labelled images as a table with one line for each step."""
    right = (record.predictions == record.labels).sum(1)
    rows = [("T", "correct", "accuracy", "silent", "spikes/image", "SOPs/image")]
    images = record.samples
    for step in range(record.time_steps):
        silent = int(((record.settled_at > 0) & (record.settled_at < step + 1)).sum())
        spikes, sops = record.spike_num[step] / images, record.sop_num[step] / images
        rows.append(
            (
                str(step + 1),
                f"{int(right[step]):,}",
                f"{100 * int(right[step]) / images:.2f} %",
                f"{silent:,}",
                f"{spikes:,.1f}",
                f"{sops:,.0f}",
            )
        )
    return "\n".join(aligned(rows))
