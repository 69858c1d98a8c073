"""kill -9 under a request of several choices: each goes on at its own position, and none gets other tokens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from executor_svc.runtime.engine_port import Sampling
from sage_client import Completion, Event, Scheduled, Tokens
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

PROMPT = "Once upon a time,"
TOKENS = 300
STREAMS = 4
SEEDED: dict[str, Any] = {"n": 3, "seed": 11, "temperature": 1.0, "max_tokens": TOKENS, "ignore_eos": True}


class Reading:
    """A request that is read, with its events."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.events: list[Event] = []

    async def run(self) -> Completion:
        async for event in self.stream:
            self.events.append(event)
        found: Completion = await self.stream.result()
        return found

    @property
    def tokens(self) -> dict[int, int]:
        """Output tokens of each choice so far."""
        found: dict[int, int] = {}
        for each in self.events:
            if isinstance(each, Tokens):
                found[each.choice] = found.get(each.choice, 0) + len(each.token_ids)
        return found

    async def is_right(self, number: int, done: Completion) -> None:
        for each in done.choices:
            sampling = Sampling(temperature=1.0, seed=11 + each.index, max_tokens=TOKENS, ignore_eos=True)
            wanted = await answer(f"{PROMPT} {number}", sampling)
            assert_tokens(each.token_ids, wanted.token_ids, f"request {number}, choice {each.index}")
            assert each.text == wanted.text
        assert len(done.choices) == 3


async def running(client: Any) -> tuple[list[Reading], list[asyncio.Task[Completion]]]:
    """Start requests, and wait until each choice of each has tokens."""
    readings = [Reading(client.generate(f"{PROMPT} {number}", **SEEDED)) for number in range(STREAMS)]
    tasks = [asyncio.create_task(each.run()) for each in readings]
    while not all(len(each.tokens) == 3 for each in readings):
        await asyncio.sleep(0.02)
    return readings, tasks


@pytest.mark.parametrize("sessions", [True, False], ids=["session", "generate"])
async def test_an_executor_is_killed_under_three_choices(logs: Path, simulated: list[str], sessions: bool) -> None:
    async with FleetProcesses(logs, ["--policy", "fifo"]) as fleet, fleet.client(use_sessions=sessions) as client:
        executors = {name: fleet.launch(name, simulated) for name in ("a", "b")}
        await fleet.ready("a", "b")
        readings, tasks = await running(client)
        first = next(each for each in readings[0].events if isinstance(each, Scheduled))
        executors[first.decision.instance_id].kill()
        for number, (reading, task) in enumerate(zip(readings, tasks, strict=True)):
            await reading.is_right(number, await task)
        resumed = [e for each in readings for e in each.events if isinstance(e, Scheduled) and e.resumed_from_token]
        assert {each.choice for each in resumed} == {0, 1, 2}


@pytest.mark.parametrize("end", ["kill", "terminate"])
@pytest.mark.parametrize("sessions", [True, False], ids=["session", "generate"])
async def test_the_scheduler_ends_under_three_choices(
    logs: Path, simulated: list[str], tmp_path: Path, sessions: bool, end: str
) -> None:
    flags = ["--state-dir", str(tmp_path / "state"), "--policy", "fifo"]
    listen = f"127.0.0.1:{free_port()}"
    async with FleetProcesses(logs, flags, listen=listen) as fleet, fleet.client(use_sessions=sessions) as client:
        for name in ("a", "b"):
            fleet.launch(name, simulated)
        await fleet.ready("a", "b")
        readings, tasks = await running(client)
        getattr(fleet.scheduler, end)()
        await fleet.scheduler.ended()
        fleet.scheduler.start()
        for number, (reading, task) in enumerate(zip(readings, tasks, strict=True)):
            await reading.is_right(number, await task)
