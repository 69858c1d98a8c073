"""Every policy on the same two real engines, in turns, on the same arrivals."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sage_client import AsyncClient
from tests.bench.engines import Engine
from tests.bench.pd.fleet import fleet
from tests.bench.policies.traffic import Traffic
from tests.bench.real_engines.load_run import LoadRun, play, saturation
from tests.bench.real_engines.machine_turn import machine_turn
from tests.bench.real_engines.window import prompts, window

POLICIES = ("fifo", "priority", "slo_aware", "cost_optimized", "adaptive")
PRICES = (2.0, 3.0)  # per hour, of the two engines
WARMING = 32  # requests before anything is measured
SATURATING = 320  # requests at once: two and a half times the slots of the two engines


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be measured."""

    traffic: Traffic
    loads: Sequence[float]  # shares of the measured capacity
    policies: Sequence[str]
    turns: int  # each runs every policy at one load; the loads take turns
    run_s: float  # of arrivals
    recording: Path  # that the scheduler writes
    lock: Path | None  # held during a turn


async def policy_rounds(engines: Sequence[Engine], plan: Plan, done: Callable[[LoadRun], None]) -> None:
    """Measure, and give each run to ``done``.  Raises ChildFailed where the fleet does not start."""
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    async with AsyncExitStack() as stack:
        async with machine_turn(plan.lock):
            client = await stack.enter_async_context(_fleet(engines, plan.recording))
            await _saturation(client, plan.traffic, WARMING)
            capacity = await _saturation(client, plan.traffic, SATURATING)
        _say(f"capacity: {capacity:.2f} requests/s")
        for turn in range(1, plan.turns + 1):
            load = plan.loads[turn % len(plan.loads)]
            requests = window(plan.traffic, rate=load * capacity, duration_s=plan.run_s, seed=turn)
            async with machine_turn(plan.lock):
                _say(f"turn {turn}: load {load:g}")
                for policy in _rotated(plan.policies, turn):
                    await asyncio.sleep(engines[0].settle_s)
                    await client.set_policy(policy)
                    answers = await play(client, requests, prompts(requests, f"{turn}/{policy}"))
                    run = LoadRun(
                        begun=begun, turn=turn, load=load, rate=load * capacity, policy=policy, answers=answers
                    )
                    done(run)
                    _say(f"  {policy}: {_in_words(run)}")


def _fleet(engines: Sequence[Engine], recording: Path) -> AbstractAsyncContextManager[AsyncClient]:
    flags = ("--record", str(recording))
    return fleet(engines, ("general", "general"), split=False, prices=PRICES, scheduler_flags=flags)


async def _saturation(client: AsyncClient, traffic: Traffic, count: int) -> float:
    """Return the requests per second that the fleet answers under ``fifo`` when so many are there at once."""
    await client.set_policy("fifo")
    requests = window(traffic, rate=float(count), duration_s=1.0, seed=0)
    return await saturation(client, requests, prompts(requests, f"saturation/{time.monotonic()}"))


def _rotated(policies: Sequence[str], turn: int) -> list[str]:
    """Return the policies in another order each turn, so that none always follows the same one."""
    begin = turn % len(policies)
    return [*policies[begin:], *policies[:begin]]


def _in_words(run: LoadRun) -> str:
    kept = sum(each.in_target for each in run.answers)
    return f"{kept} of {len(run.answers)} in target"


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
