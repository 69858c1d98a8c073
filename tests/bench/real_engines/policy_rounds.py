"""Every policy on the same two real engines, in turns, on the same arrivals."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
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
SATURATING = 2.5  # requests at once by slots
TRIES = 3  # of a run that the machine disturbs


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be measured."""

    traffic: Traffic
    targets: str  # "mixed": five classes with their own; "equal"
    loads: Sequence[float]  # shares of the measured capacity
    policies: Sequence[str]
    turns: int  # each runs every policy at every load
    run_s: float  # of arrivals
    recording: Path  # that the scheduler writes
    lock: Path | None  # held during a turn


async def policy_rounds(engines: Sequence[Engine], plan: Plan, done: Callable[[LoadRun], None]) -> None:
    """Measure, and give each run to ``done``.  Raises ChildFailed where the fleet does not start."""
    saturating = int(SATURATING * sum(engine.settings.vllm.max_running or 0 for engine in engines))
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    async with AsyncExitStack() as stack:
        capacity, client = 0.0, None
        for turn in range(1, plan.turns + 1):
            async with machine_turn(plan.lock):
                if client is None:
                    client = await stack.enter_async_context(_fleet(engines, plan.recording))
                    capacity = await _capacity(client, plan, saturating)
                for load in plan.loads:
                    begin = LoadRun(begun=begun, turn=turn, load=load, rate=load * capacity, policy="", answers=[])
                    async for run in _runs(client, plan, begin, engines[0].settle_s):
                        done(run)
                        _say(f"turn {turn}, load {load:g}, {run.policy}: {_in_words(run)}")


async def _runs(client: AsyncClient, plan: Plan, begin: LoadRun, settle_s: float) -> AsyncIterator[LoadRun]:
    """Send the turn's window under each policy, again where the machine disturbed it, and yield all runs."""
    turn, rate = begin.turn, begin.rate
    requests = window(plan.traffic, plan.targets, rate=rate, duration_s=plan.run_s, seed=turn)
    for policy in _rotated(plan.policies, turn):
        for attempt in range(TRIES):
            await asyncio.sleep(settle_s)
            await client.set_policy(policy)
            sent = prompts(requests, f"{turn}/{rate}/{policy}/{attempt}")
            answers, late_s = await play(client, requests, sent)
            run = replace(begin, policy=policy, answers=answers, late_s=late_s)
            yield run
            if not run.disturbed:
                break


def _fleet(engines: Sequence[Engine], recording: Path) -> AbstractAsyncContextManager[AsyncClient]:
    roles = ("general",) * len(engines)
    flags = ("--record", str(recording))
    return fleet(engines, roles, split=False, prices=PRICES[: len(engines)], scheduler_flags=flags)


async def _capacity(client: AsyncClient, plan: Plan, saturating: int) -> float:
    """Return the requests per second that the fleet answers under ``fifo``, once it has had some."""
    await client.set_policy("fifo")
    found = 0.0
    for count in (WARMING, saturating):
        requests = window(plan.traffic, plan.targets, rate=float(count), duration_s=1.0, seed=0)
        found = await saturation(client, requests, prompts(requests, f"capacity/{count}"))
    _say(f"capacity: {found:.2f} requests/s")
    return found


def _rotated(policies: Sequence[str], turn: int) -> list[str]:
    """Return the policies in another order each turn, so that none always follows the same one."""
    begin = turn % len(policies)
    return [*policies[begin:], *policies[:begin]]


def _in_words(run: LoadRun) -> str:
    kept = sum(each.in_target for each in run.answers)
    words = f"{kept} of {len(run.answers)} in target"
    return f"{words}; left out: sent {run.late_s:.2f} s late on average" if run.disturbed else words


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
