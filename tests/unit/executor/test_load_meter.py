"""What heartbeats say about load."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from executor_svc.runtime.engine_port import Iteration
from executor_svc.runtime.session.load_meter import LoadMeter, sample
from executor_svc.runtime.session.loop_lag import LoopLag
from tests.unit.executor.workbench import LONG, workbench


def iterations(count: int) -> list[Iteration]:
    return [
        Iteration(index=index, prefill_tokens=0, decode_tokens=1, running=1, kv_used_tokens=1, elapsed_s=0.01)
        for index in range(1, count + 1)
    ]


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200, 256])
def test_a_sample_is_bounded_in_order_and_has_the_latest(count: int) -> None:
    taken = sample(iterations(count), 64)
    assert len(taken) == min(count, 64)
    indexes = [iteration.index for iteration in taken]
    assert indexes == sorted(set(indexes))
    assert not count or indexes[-1] == count


def test_a_sample_is_spread_evenly() -> None:
    indexes = [iteration.index for iteration in sample(iterations(256), 64)]
    assert {later - earlier for earlier, later in pairwise(indexes)} == {4}


async def test_before_the_engine_is_up_a_heartbeat_has_no_load() -> None:
    meter = LoadMeter(LoopLag())
    beat = meter.heartbeat(last_assign=0, interval_s=1.0)
    assert beat.load is None
    assert beat.number == 1
    assert meter.heartbeat(last_assign=0, interval_s=1.0).number == 2


async def test_rates_are_taken_over_at_least_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    async with workbench() as bench:
        meter = LoadMeter(LoopLag())
        meter.watch(bench.engine)
        monkeypatch.setattr(loop, "time", lambda: 100.0)
        assert meter.heartbeat(0, interval_s=1.0).generation_tokens_per_s == 0.0
        await bench.run(LONG)
        monkeypatch.setattr(loop, "time", lambda: 102.0)
        assert meter.heartbeat(0, interval_s=1.0).generation_tokens_per_s == LONG.max_tokens / 2
        monkeypatch.setattr(loop, "time", lambda: 102.1)  # soon after a change: the rate does not jump
        assert meter.heartbeat(0, interval_s=1.0).generation_tokens_per_s == pytest.approx(LONG.max_tokens / 2.1)
        monkeypatch.setattr(loop, "time", lambda: 104.0)
        assert meter.heartbeat(0, interval_s=1.0).generation_tokens_per_s == 0.0
        monkeypatch.undo()


async def test_a_loop_that_was_held_up_shows() -> None:
    lag = LoopLag()
    lag.start()
    try:
        time.sleep(0.25)  # noqa: ASYNC251  # holds the loop up: that is the point
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert lag.take() > 0.1
        assert lag.take() == 0.0
    finally:
        lag.stop()
