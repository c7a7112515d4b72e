"""The latest value wins: nothing stale is delivered, and the event loop never waits."""

from __future__ import annotations

import asyncio
import threading

from ann_snn_utils.explore.worker import Latest


def recorder(compute):
    log = {"delivered": [], "progress": [], "failed": []}
    worker = Latest(compute, log["delivered"].append, log["progress"].append, log["failed"].append)
    return worker, log


def test_without_an_event_loop_a_result_is_there_at_once():
    worker, log = recorder(lambda value, report: report(0.5) or value * 2)
    worker.submit(4)
    worker.submit(5)
    assert log["delivered"] == [8, 10] and log["progress"] == [0.5, None] * 2


def test_values_that_came_in_between_are_never_computed():
    computed, started, go = [], threading.Event(), threading.Event()

    def compute(value, report):
        computed.append(value)
        started.set()
        assert go.wait(10)
        return value

    async def drag():
        worker, log = recorder(compute)
        worker.submit(0)
        assert started.wait(10)
        for value in range(1, 50):
            worker.submit(value)
        go.set()
        while log["progress"] != [None]:
            await asyncio.sleep(0.005)
        return log

    log = asyncio.run(asyncio.wait_for(drag(), 20))
    assert computed == [0, 49] and log["delivered"] == [0, 49]


def test_a_report_drops_work_that_a_newer_value_made_stale():
    started, go = threading.Event(), threading.Event()

    def compute(value, report):
        started.set()
        assert go.wait(10)
        report(0.5)
        return value

    async def drag():
        worker, log = recorder(compute)
        worker.submit("old")
        assert started.wait(10)
        worker.submit("new")
        go.set()
        while None not in log["progress"]:
            await asyncio.sleep(0.005)
        return log

    assert asyncio.run(asyncio.wait_for(drag(), 20))["delivered"] == ["new"]


def test_the_event_loop_runs_while_a_value_is_computed_and_gets_the_result_itself():
    go = threading.Event()

    async def watch():
        threads = []
        worker = Latest(
            lambda value, report: go.wait(10), lambda _: threads.append(threading.current_thread()), print, print
        )
        worker.submit(1)
        await asyncio.sleep(0)
        go.set()  # reached only if submit did not wait
        while not threads:
            await asyncio.sleep(0.005)
        return threads[0]

    assert asyncio.run(asyncio.wait_for(watch(), 20)) is threading.main_thread()


def test_an_error_is_told_and_the_next_value_is_computed():
    def compute(value, report):
        if value < 0:
            raise ValueError("give a number from 0")
        return value

    worker, log = recorder(compute)
    worker.submit(-1)
    worker.submit(3)
    assert str(log["failed"][0]) == "give a number from 0" and log["delivered"] == [3]
