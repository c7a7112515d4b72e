"""Threads that share an image leave the record of one thread, whichever of them comes first, last or never."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import current_thread, main_thread

import pytest
import torch
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import networks, random_ann, random_images
from test_simulate import agree, needs_kernel

from ann_snn_utils.simulator.events import loop
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert

FAULTS = st.sampled_from([{}, {"fault": "flip", "fault_rate": 0.2}, {"fault": "delete", "fault_rate": 0.5}])


def in_turn(order: Callable[[range], Iterable[int]]) -> Callable:
    """Members one after the other, in this order, all of them before the call is closed."""

    def run(library, threads, work):
        newest = ctypes.c_int64(2)
        call = loop.Call(number=1, newest=ctypes.addressof(newest))
        for thread in order(range(threads)):
            work(thread, ctypes.addressof(call))

    return run


# How the threads of a team come to an image. One after the other, the first finds everything to do and all others
# nothing; and the one that says what came of it may be the last.
ORDERS: dict[str, Callable] = {
    "together": loop._in_threads,
    "one after the other": in_turn(iter),
    "the last one first": in_turn(reversed),
    "alone": in_turn(lambda threads: threads[:1]),
}


@contextmanager
def team(threads: int, order: str) -> Iterator[None]:
    """So many threads share every image, however small the network."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_SHARED", 0)
        patch.setattr(loop, "_in_threads", ORDERS[order])
        torch.set_num_threads(threads)
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("order", ORDERS)
@tries(40)
@given(
    ann=networks(),
    time_steps=st.one_of(st.none(), st.integers(1, 40)),
    threads=st.integers(2, 4),
    samples=st.integers(1, 2),
    seed=st.integers(0, 1000),
    faults=FAULTS,
)
def test_a_team_leaves_the_record_of_one_thread(order, ann, time_steps, threads, samples, seed, faults):
    needs_kernel()
    if faults and time_steps is None:
        time_steps = 20
    snn, images = convert(ann, max_levels=512), random_images(seed, ann.spec.in_shape, samples)
    alone = simulate(snn, images, time_steps, backend="events", batch_size=1, **faults)
    with team(threads, order):
        # Twice: the second run works in the memory of the first.
        for _ in range(2):
            agree(alone, simulate(snn, images, time_steps, backend="events", batch_size=1, **faults))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("time_steps", [None, 40, 400])
def test_a_team_that_runs_long_ends_when_all_is_silent_whoever_sees_it_first(order, time_steps):
    needs_kernel()
    snn, images = convert(random_ann(1, k=3), max_levels=512), random_images(1, (1, 8, 8), samples=1)
    alone = simulate(snn, images, time_steps, backend="events")
    assert alone.time_steps > 32
    with team(3, order):
        agree(alone, simulate(snn, images, time_steps, backend="events"))


def test_a_wide_network_is_shared_and_leaves_the_same_whoever_takes_its_rows(monkeypatch):
    needs_kernel()
    snn = convert(random_ann(3, network="96C3-256C3-P2-288C3-40", in_shape=(3, 20, 20), k=0, padding="same"))
    images, shared = random_images(3, (3, 20, 20), samples=1), []
    alone = simulate(snn, images, 6, backend="events", fault="flip", fault_rate=0.01)
    run = loop._run_together

    def watched(net, task, threads, start, end):
        run(net, task, threads, start, end)
        shared.append(threads)

    monkeypatch.setattr(loop, "_run_together", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    records = [simulate(snn, images, 6, backend="events", fault="flip", fault_rate=0.01) for _ in range(20)]
    torch.set_num_threads(before)
    for record in records:
        agree(alone, record)
    assert shared == 20 * [2]


def test_a_team_has_eight_threads_at_most(monkeypatch):
    needs_kernel()
    monkeypatch.setattr(loop, "_SHARED", 0)
    called, run = [], loop._in_threads
    monkeypatch.setattr(loop, "_in_threads", lambda *args: (called.append(args[1]), run(*args)))
    before = torch.get_num_threads()
    torch.set_num_threads(100)
    simulate(convert(random_ann(2)), random_images(2, (1, 8, 8), 1), 4, backend="events")
    torch.set_num_threads(before)
    assert called == [8]


def test_fewer_than_half_as_many_images_as_threads_are_shared_and_more_are_not(monkeypatch):
    needs_kernel()
    snn, shared = convert(random_ann(2)), []
    monkeypatch.setattr(loop, "_SHARED", 0)
    for name in ("_run_together", "_run_apart"):
        run = getattr(loop, name)
        monkeypatch.setattr(loop, name, lambda *args, run=run, name=name: (shared.append(name), run(*args)))
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    for samples in (1, 2, 3, 9):
        simulate(snn, random_images(2, (1, 8, 8), samples), 4, backend="events")
    torch.set_num_threads(before)
    assert shared == ["_run_together", "_run_together", "_run_apart", "_run_apart"]


@pytest.mark.parametrize("shared", [0, 2**24])
def test_who_comes_when_the_first_is_done_is_turned_away(shared, monkeypatch):
    needs_kernel()
    snn, images = convert(random_ann(2)), random_images(2, (1, 8, 8), 2)
    alone, asked = simulate(snn, images, 6, backend="events"), SimpleQueue()
    monkeypatch.setattr(loop, "_SHARED", shared)
    # No thread serves it until the run is over.
    monkeypatch.setattr(loop, "_CREW", [asked])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    record = simulate(snn, images, 6, backend="events", batch_size=1 if not shared else None)
    torch.set_num_threads(before)
    again = simulate(snn, images, 6, backend="events")
    while not asked.empty():
        asked.get()()
    agree(alone, record)
    agree(alone, again)


def test_who_is_turned_away_is_not_waited_for(monkeypatch):
    needs_kernel()
    snn, images, waited_for = convert(random_ann(2)), random_images(2, (1, 8, 8), 2), []

    def late(library, threads, work):
        newest = ctypes.c_int64(2)
        call = loop.Call(number=1, newest=ctypes.addressof(newest))
        for thread in range(threads):
            work(thread, ctypes.addressof(call))
            waited_for.append(library.close_call(ctypes.addressof(call)))

    monkeypatch.setattr(loop, "_in_threads", late)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    simulate(snn, images, 6, backend="events")
    torch.set_num_threads(before)
    assert waited_for == [0, 0]


def test_a_thread_that_cannot_come_is_not_missed(monkeypatch):
    needs_kernel()
    snn, images = convert(random_ann(2)), random_images(2, (1, 8, 8), 9)
    alone, room, asked = simulate(snn, images, 6, backend="events"), loop._room, []

    def none_for_others(net, size):
        asked.append(current_thread())
        if current_thread() is not main_thread():
            raise MemoryError
        return room(net, size)

    monkeypatch.setattr(loop, "_room", none_for_others)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    while len(set(asked)) < 2:
        agree(alone, simulate(snn, images, 6, backend="events"))
    torch.set_num_threads(before)


@pytest.mark.parametrize("shared", [0, 2**24])
def test_what_threads_work_on_stays_where_an_interrupt_ends_the_wait_for_them(shared, monkeypatch):
    needs_kernel()
    snn, images, works = convert(random_ann(2)), random_images(2, (1, 8, 8), 2), []
    pointed_at = weakref.ref(images)

    def interrupted(library, threads, work):
        works.append(work)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_SHARED", shared)
    monkeypatch.setattr(loop, "_in_threads", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.run_events(snn, images, 4, None, batch_size=1)
    del images, snn
    gc.collect()
    assert pointed_at() is not None
    works.clear()
    gc.collect()
    assert pointed_at() is None


def test_a_thread_that_does_not_start_is_asked_nothing(monkeypatch):
    needs_kernel()

    class Refused:
        def __init__(self, **_):
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(loop, "_CREW", [])
    monkeypatch.setattr(loop, "Thread", Refused)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with pytest.raises(RuntimeError):
        simulate(convert(random_ann(2)), random_images(2, (1, 8, 8), 2), 4, backend="events")
    torch.set_num_threads(before)
    assert loop._CREW == []
