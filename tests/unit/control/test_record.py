"""The record of ended requests: bounded in bytes, whatever makes a request large."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.record_size import record_size
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest, RequestCancelled
from tests.unit.control.world import World

BOUND = 2**20
LARGE = 300_000


def long_output(live: LiveRequest) -> None:
    live.output.append(1, 0, [7], "x" * LARGE, None)


def many_log_probabilities(live: LiveRequest) -> None:
    live.output.append(1, 0, [7] * 30, "x", [bytes(LARGE // 30)] * 30)


def held_back_text(live: LiveRequest) -> None:
    live.output.close("x" * LARGE)


def long_history(live: LiveRequest) -> None:
    for _ in range(100):
        live.note(0.0, "requeued", "x" * (LARGE // 100))


def large_tags(live: LiveRequest) -> None:
    live.request = replace(live.request, tags={"note": "x" * LARGE})


def many_violations(live: LiveRequest) -> None:
    live.outcome = InvalidRequest([FieldViolation(field="f", description="x" * (LARGE // 20))] * 10)


GROW = [long_output, many_log_probabilities, held_back_text, long_history, large_tags, many_violations]


@pytest.mark.parametrize("grow", GROW)
async def test_the_oldest_are_forgotten_when_the_bytes_run_out(grow: Callable[[LiveRequest], None]) -> None:
    async with World(record={"memory_bytes": BOUND}) as world:
        world.add("a", max_running=1)
        requests = world.plane.requests
        for number in range(10):
            await world.submit(f"r{number}", max_tokens=100)
            [live] = requests
            grow(live)
            requests.end(live, live.outcome or RequestCancelled("enough"))
        kept = [live.key.request_id for live in requests.recent()]
        assert kept == ["r9", "r8", "r7"], "as many as fit"
        assert requests.recorded_bytes <= BOUND
        assert requests.recorded_bytes == sum(map(record_size, requests.recent()))


async def test_the_latest_stays_whatever_its_size() -> None:
    async with World(record={"memory_bytes": BOUND}) as world:
        world.add("a")
        await world.submit("r", max_tokens=100)
        [live] = world.plane.requests
        live.output.append(1, 0, [7], "x" * 2 * BOUND, None)
        world.plane.requests.end(live, RequestCancelled("enough"))
        assert [each.key.request_id for each in world.plane.requests.recent()] == ["r"]


async def test_the_estimate_is_near_what_python_says() -> None:
    """Of requests as people send them; an estimate far from it would make the bound a lie."""
    async with World() as world:
        world.add("a", max_running=64)
        await finished(world, "warm-up", 5)
        gc.collect()
        tracemalloc.start()
        try:
            before, counted = tracemalloc.get_traced_memory()[0], world.plane.requests.recorded_bytes
            await finished(world, "r", 40)
            gc.collect()
            measured = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        estimated = world.plane.requests.recorded_bytes - counted
        assert 0.5 < estimated / measured < 2.0, f"{estimated} estimated, {measured} measured"


async def finished(world: World, name: str, count: int) -> None:
    for number in range(count):
        reader = await world.submit(f"{name}{number}", max_tokens=64)
        await world.advance(1.0)
        assert reader.finished is not None
