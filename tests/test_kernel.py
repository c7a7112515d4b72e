"""The kernel is compiled once, where it may be kept, and a run goes on without it where it cannot be had."""

from __future__ import annotations

import ctypes
import platform
import shutil
from functools import lru_cache

import pytest
from networks import random_ann, random_images
from test_simulate import agree

from ann_snn_utils.files import cpu_info
from ann_snn_utils.simulator.events import build
from ann_snn_utils.simulator.events.loop import Task
from ann_snn_utils.simulator.run import BACKENDS, choose_backend, simulate
from ann_snn_utils.snn.conversion import convert

# What processors with AVX2 alone compile for, where this one has it too.
AVX2 = ["x86_64_v3"] if any("avx2" in line for line in cpu_info()) else []
needs_a_compiler = pytest.mark.skipif(build.compiler() is None, reason="no ziglang")


@needs_a_compiler
def test_it_is_compiled_into_a_new_folder_once_and_nothing_else_is_left_there(tmp_path, monkeypatch):
    folder, compiled = tmp_path / "new", []
    monkeypatch.setattr(
        build, "_compile", lambda target, bits: compiled.append(bits) or target.write_bytes(b"code")
    )
    first, second, wide = (build._compiled(folder, bits) for bits in (16, 16, 32))
    assert compiled == [16, 32] and first == second != wide
    assert sorted(folder.iterdir()) == sorted([first, wide])


@needs_a_compiler
def test_another_source_or_processor_or_compiler_is_compiled_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_compile", lambda target, bits: target.write_bytes(b"code"))
    source = tmp_path / "kernel.c"
    source.write_text("// another")
    made = [build._compiled(tmp_path, 16)]
    for name, value in {"_SOURCE": source, "_processor": lambda: "another", "compiler": lambda: "/zig"}.items():
        monkeypatch.setattr(build, name, value)
        made.append(build._compiled(tmp_path, 16))
    assert len(set(made)) == 4


@needs_a_compiler
def test_a_folder_that_cannot_be_written_to_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    compiled = build.kernel(16)._name
    monkeypatch.setattr(build, "_compile", lambda target, bits: shutil.copyfile(compiled, target))
    monkeypatch.setattr(build, "_folders", lambda: iter([tmp_path / "file", tmp_path]))
    library = build.kernel.__wrapped__(16)
    assert len(list(tmp_path.glob("kernel-*"))) == 1
    task = Task(members=1, depth=2, steps=4, slots=2, event_room=100, mark_room=16, row_room=30)
    # Two slots for the events of four steps, of four bytes each.
    assert library.room_of(ctypes.byref(task)) > 2 * 4 * 4 * 100


@needs_a_compiler
def test_a_kernel_that_does_not_compile_is_told_and_run_without(tmp_path, monkeypatch, caplog):
    source = tmp_path / "kernel.c"
    source.write_text("no program")
    monkeypatch.setattr(build, "_SOURCE", source)
    monkeypatch.setattr(build, "kernel", build.kernel.__wrapped__)
    monkeypatch.setattr("ann_snn_utils.simulator.run.hindrance", build.hindrance.__wrapped__)
    snn = convert(random_ann(2))
    with caplog.at_level("INFO"):
        assert choose_backend(snn, 8) == "dense"
    assert "simulating with dense tensors: compiling kernel.c failed" in caplog.text
    with pytest.raises(ValueError, match="backend='events' cannot run this network: compiling"):
        simulate(snn, random_images(2, (1, 8, 8)), 8, backend="events")


@pytest.mark.slow
@needs_a_compiler
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="another processor")
@pytest.mark.parametrize("processor", ["native", "x86_64", *AVX2])
def test_wide_layers_run_exactly_and_without_the_instructions_of_newer_processors(processor, monkeypatch):
    monkeypatch.setattr(build, "_PROCESSOR", processor)
    kernel = lru_cache(build.kernel.__wrapped__)
    for module in ("build", "loop"):
        monkeypatch.setattr(f"ann_snn_utils.simulator.events.{module}.kernel", kernel)
    for network in ("40C3-260C3-P2-520", "33C3-300C3-17C3-70"):
        backends_agree_on(network)


def backends_agree_on(network: str) -> None:
    snn = convert(random_ann(3, network=network, in_shape=(2, 8, 6), padding="same"))
    images = random_images(3, (2, 8, 6), samples=3)
    for arguments in (dict(time_steps=9), dict(time_steps=35, fault="flip", fault_rate=0.2)):
        agree(*(simulate(snn, images, backend=name, **arguments) for name in BACKENDS))
