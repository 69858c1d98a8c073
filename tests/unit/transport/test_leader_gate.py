"""Calls while a scheduler leads, when its term ends, and afterwards: what peers are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from sage_common.virtual_clock import VirtualClock
from scheduler_svc.control.leadership.standing import SchedulerState, Standing
from scheduler_svc.control.leadership.term import Term
from scheduler_svc.domain.errors import DeadlineExceeded, NotLeader, RequestNotFound
from scheduler_svc.transport.leader_gate import LeaderGate
from scheduler_svc.transport.server import Services

LEASE_S = 2.0


class Context:
    """A call's context that notes what is written."""

    def __init__(self) -> None:
        self.written: list[Any] = []

    async def write(self, message: Any) -> None:
        self.written.append(message)


class Inference:
    """A servicer whose calls end when the test says how."""

    def __init__(self) -> None:
        self.end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def Get(self, request: Any, context: Any) -> Any:
        return await self.end

    async def Generate(self, request: Any, context: Any) -> AsyncGenerator[Any, None]:
        yield "first"
        yield await self.end


class Gated:
    """A gate that is open for one term on a clock that tests move."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.term = Term(self.clock, epoch=1, lease_s=LEASE_S, until=LEASE_S)
        self.inference = Inference()
        self.gate = LeaderGate(lambda: NotLeader(0.1), lambda: Standing(state=SchedulerState.LEADING))
        services: Any = Services(inference=self.inference, executor=None, admin=None, scaler=None, health=None)  # type: ignore[arg-type]
        self.outside: Any = self.gate.services(None).inference
        self.gate.open(services, self.term)
        self.context = Context()

    def call(self, name: str) -> asyncio.Task[Any]:
        return asyncio.create_task(getattr(self.outside, name)("request", self.context))


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("name", ["Get", "Generate"])
async def test_a_call_ends_as_its_handler_says_while_the_term_lasts(name: str) -> None:
    gated = Gated()
    call = gated.call(name)
    await settled()
    gated.inference.end.set_exception(RequestNotFound("gone"))
    with pytest.raises(RequestNotFound):
        await call


@pytest.mark.parametrize("name", ["Get", "Generate"])
async def test_an_error_after_the_term_is_not_told(name: str) -> None:
    """A process that was frozen finds deadlines over and executors away; the next leader has those requests."""
    gated = Gated()
    call = gated.call(name)
    await settled()
    await gated.clock.advance(LEASE_S + 1)
    gated.inference.end.set_exception(DeadlineExceeded("it waited too long"))
    with pytest.raises(NotLeader):
        await call


@pytest.mark.parametrize("name", ["Get", "Generate"])
async def test_an_answer_after_the_term_is_not_told(name: str) -> None:
    gated = Gated()
    call = gated.call(name)
    await settled()
    await gated.clock.advance(LEASE_S + 1)
    gated.inference.end.set_result("late")
    with pytest.raises(NotLeader):
        await call
    assert gated.context.written == (["first"] if name == "Generate" else [])


async def test_calls_that_do_not_end_by_themselves_end_with_the_gate() -> None:
    gated = Gated()
    call = gated.call("Get")
    await settled()
    gated.term.end("it stops")
    await gated.gate.close(gated.term.error, 0.0)
    with pytest.raises(NotLeader):
        await call
    with pytest.raises(NotLeader):
        await gated.call("Get")
