"""Any run can be opened, and where there is none, a bundled network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import random_ann

from ann_snn_utils import codes, load_ann, simulate
from ann_snn_utils.ann.graph import Branch, Node, graph_text
from ann_snn_utils.ann.store import save_ann, save_pretrained
from ann_snn_utils.cli import main
from ann_snn_utils.runs import gallery
from ann_snn_utils.runs.evaluation import evaluate_network, evaluation_table
from ann_snn_utils.runs.folder import run_folder
from ann_snn_utils.runs.manifest import record_stage
from ann_snn_utils.snn.conversion import convert
from ann_snn_utils.snn.store import load_snn, save_snn

SOURCE = {"name": "digits", "size": 8, "limit": 40}


@pytest.fixture
def bundle(tmp_path, monkeypatch, runs):
    folder = tmp_path / "pretrained"
    save_pretrained(random_ann(1, classes=10), "tiny", folder, source=SOURCE, correct=1, samples=40)
    for name in ("list_pretrained", "load_pretrained"):
        original = getattr(gallery, name)
        monkeypatch.setattr(gallery, name, lambda *a, original=original: original(*a, folder=folder))


def finished_run(name: str = "mine", source: dict = SOURCE) -> None:
    folder, ann = run_folder(name, create=True), random_ann(2, classes=10)
    save_ann(ann, folder / "qann.safetensors", source=source)
    save_snn(convert(ann), folder / "snn.safetensors")
    record_stage(folder, "03_convert", parameters={}, inputs=[], artifacts=["snn.safetensors"])


def test_without_a_run_the_bundled_network_opens(bundle):
    network = gallery.open_network()
    assert network.name == "bundled:tiny" and gallery.network_names() == ["bundled:tiny"]
    assert network.snn.integer and network.samples.in_shape == (1, 8, 8) and len(network.samples) == 40


def test_the_latest_run_opens_first_and_all_can_be_chosen(bundle):
    finished_run()
    assert gallery.open_network().name == "mine"
    assert gallery.network_names() == ["mine", "bundled:tiny"]
    assert gallery.open_network("bundled:tiny").name == "bundled:tiny"


def test_a_run_whose_data_are_elsewhere_does_not_keep_the_notebook_from_opening(bundle, tmp_path):
    finished_run(source={"name": str(tmp_path / "moved")})
    assert gallery.open_network().name == "bundled:tiny"
    with pytest.raises((OSError, ValueError), match="moved"):
        gallery.open_network("mine")


def test_samples_come_in_the_order_of_subset_so_that_a_prefix_is_a_subset(bundle):
    test = gallery.open_network().samples
    from ann_snn_utils.data.dataset import load_dataset

    again = load_dataset(split="test", **SOURCE)
    assert torch.equal(test.images[:16], again.subset(16).images)


def test_a_run_that_is_not_there_is_named(bundle):
    with pytest.raises(FileNotFoundError, match="nosuch"):
        gallery.open_network("nosuch")


def test_a_bundled_network_becomes_a_run_once(bundle):
    folder = gallery.unpack("tiny")
    snn = load_snn(folder / "snn.safetensors")
    assert snn.metadata["source"] == SOURCE and snn.integer
    before = (folder / "snn.safetensors").stat().st_mtime_ns
    assert gallery.unpack("tiny") == folder and (folder / "snn.safetensors").stat().st_mtime_ns == before


def test_a_bundled_network_does_not_take_the_place_of_a_run_of_its_name(bundle):
    finished_run("tiny")
    with pytest.raises(ValueError, match="run 'tiny' holds another network than bundled:tiny"):
        gallery.unpack("tiny")


def test_a_bundled_network_does_not_replace_a_quantized_one_that_is_not_converted_yet(bundle):
    qann = run_folder("tiny", create=True) / "qann.safetensors"
    save_ann(random_ann(2, classes=10), qann, source=SOURCE)
    before = qann.read_bytes()
    with pytest.raises(ValueError, match="run 'tiny' holds another network than bundled:tiny"):
        gallery.unpack("tiny")
    assert qann.read_bytes() == before and not (qann.parent / "snn.safetensors").exists()


def test_a_bundled_network_is_named_with_and_without_a_blank(bundle):
    assert gallery.bundled_name("bundled:tiny") == gallery.bundled_name("bundled: tiny") == "tiny"
    assert gallery.bundled_name("tiny") is None
    assert gallery.open_network("bundled: tiny").name == "bundled:tiny"


def own_pair(**changed):
    """A network with max pooling, a residual addition and a bias, such as a torch model becomes, and its SNN."""
    nodes = [
        Node("stem", (Branch((-1,), (3, 3), padding=1),), 4, step=0.3),
        Node("pool", (Branch((0,), (2, 2), 2),), kind="maximum"),
        Node("add", (Branch((1,), (3, 3), padding=1), Branch((1,), identity=True)), 4, step=0.25, highest=3),
    ]
    settings = {"in_shape": (1, 8, 8), "classes": 10, "levels": 3, "ternary": False} | changed
    ann = random_ann(3, network=graph_text(nodes, average=2, bias=True), **settings)
    return ann, convert(ann)


@pytest.mark.parametrize("place", ["mine", "folder/mine"])
def test_a_network_of_ones_own_is_found_by_its_name_or_path_to_the_last_bit(bundle, tmp_path, place):
    ann, snn = own_pair()
    name = place if place == "mine" else str(tmp_path / place)
    with pytest.raises(TypeError, match="takes no heldout: options are limit, size, crop, held_out"):
        gallery.save_network(name, ann, snn, "digits", size=8, heldout=30)
    folder = gallery.save_network(name, ann, snn, "digits", size=8, limit=40)
    assert folder == (run_folder("mine") if place == "mine" else tmp_path / place)
    found = gallery.open_network(name)
    assert len(found.samples) == 40 and found.ann.spec == ann.spec
    (before, scores), (after, again) = codes(ann, found.samples.images), codes(found.ann, found.samples.images)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True)) and torch.equal(scores, again)
    one, other = simulate(snn, found.samples), simulate(found.snn, found.samples)
    assert torch.equal(one.logits, other.logits) and (one.sops == other.sops).all()
    assert ("mine" in gallery.network_names()) == (place == "mine")
    # What was found as it was kept is what it is compared with.
    evaluated = evaluate_network(name)
    assert evaluated.recorded and evaluated.recorded["samples"] == 40 and not evaluated.differences
    told = "reproduced: every recorded number above\nnot measured: the full-precision network"
    assert evaluation_table(evaluated).endswith(told)
    with pytest.raises(ValueError, match="holds a network already"):
        gallery.save_network(name, ann, snn, "digits", size=8)


def test_what_was_recorded_of_a_network_is_not_kept_of_the_one_that_it_became(bundle):
    ann, _ = own_pair()
    ann.metadata = {"seed": 3, "snn_correct": {"1": 40}, "spikes_per_sample": 1.0, "silence_step": 1, "run": "old"}
    folder = gallery.save_network("mine", ann, convert(ann), "digits", size=8, limit=40)
    told = load_ann(folder / "qann.safetensors").metadata
    assert told["seed"] == 3 and told["samples"] == 40 and not {"run", "silence_step"} & set(told)
    assert not evaluate_network("mine").differences


def test_only_a_pair_with_its_images_is_kept(bundle, tmp_path):
    ann, snn = own_pair()
    with pytest.raises(ValueError, match="'digits' are \\(1, 28, 28\\) in 10 classes, those of the network"):
        gallery.save_network("mine", ann, snn, "digits")
    with pytest.raises(ValueError, match="not made of this quantized one; give convert"):
        gallery.save_network("mine", own_pair(levels=4)[0], snn, "digits", size=8)
    other = convert(random_ann(4, **ann.spec.to_dict() | {"in_shape": (1, 8, 8)}))
    with pytest.raises(ValueError, match="the networks differ, Mismatch.*convert the quantized one again"):
        gallery.save_network(str(tmp_path / "other"), ann, other, "digits", size=8, limit=40)
    assert snn.bias is not None
    shifted = replace(snn, bias=snn.bias + 100)
    with pytest.raises(ValueError, match="differ, in class scores of 40 images; convert"):
        gallery.save_network(str(tmp_path / "other"), ann, shifted, "digits", size=8, limit=40)
    with pytest.raises(ValueError, match="unknown data set 'nosuch'"):
        gallery.save_network("mine", ann, snn, "nosuch")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file: give the path of a new folder"):
        gallery.save_network(str(tmp_path / "file"), ann, snn, "digits", size=8, limit=40)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "other").exists(), "a refused pair leaves nothing"


def test_of_a_pair_that_cannot_be_written_neither_file_stays(bundle, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(gallery, "save_snn", full)
        with pytest.raises(OSError, match="No space left"):
            gallery.save_network(str(tmp_path / "mine"), *own_pair(), "digits", size=8, limit=40)
    assert not list((tmp_path / "mine").iterdir())
    gallery.save_network(str(tmp_path / "mine"), *own_pair(), "digits", size=8, limit=40)


@pytest.mark.slow
def test_every_command_takes_a_network_of_ones_own(bundle, tmp_path, capsys):
    name = str(tmp_path / "mine")
    gallery.save_network(name, *own_pair(), "digits", size=8, limit=40)
    for command, *options in (
        ("evaluate",),
        ("energy",),
        ("simulate", "--samples", "9"),
        ("animate", "--out", str(tmp_path / "one.html")),
        ("bundle", "--samples", "2", "--out", str(tmp_path / "bundle")),
    ):
        assert main([command, name, *options]) == 0, capsys.readouterr().err
        out = capsys.readouterr().out
        assert "layers" not in out or "graph of 3 layers" in out
    assert main(["simulate", name, "--samples", "41"]) == 2
    assert "41 samples of 'digits': choose 1 to 40" in capsys.readouterr().err
    assert main(["bundle", name, "--samples", "41", "--out", str(tmp_path / "more")]) == 2
    assert "choose 1 to 40" in capsys.readouterr().err and not (tmp_path / "more").exists()
    with pytest.raises(FileNotFoundError, match="holds no snn.safetensors: save_network keeps"):
        gallery.open_network(str(tmp_path / "elsewhere"))
    gallery.save_network("mine", *own_pair(), "digits", size=8, limit=40)
    assert main(["collect", "mine"]) == 2 and "'mine' was trained elsewhere" in capsys.readouterr().err
    assert (tmp_path / "one.html").is_file() and (tmp_path / "bundle" / "manifest.json").is_file()
    assert load_ann(tmp_path / "mine" / "qann.safetensors").spec.graph.read_out.bias


def test_images_that_were_asked_for_have_no_stand_ins(tmp_path):
    asked = str(tmp_path / "nowhere")
    with pytest.raises(OSError, match="nowhere"):
        gallery.open_network("bundled:digits-lenet-k0", asked, lambda ann, missing: pytest.fail("drawn"))
