"""Finding the scheduler that leads, among several addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from executor_svc.runtime.link import LinkBroken, NotLeader
from executor_svc.runtime.messages.registration import HeldAttempt, Identity, Register, Role, Welcome
from executor_svc.runtime.session.opener import SessionOpener
from executor_svc.runtime.session.timings import SessionTimings
from tests.unit.executor.memory_link import WELCOME, MemoryDialer, MemoryLink
from tests.unit.executor.test_session import running, session_of
from tests.unit.executor.workbench import workbench

PATIENT = SessionTimings(first_retry_s=3600.0, most_retry_s=3600.0, dial_timeout_s=3600.0, dial_next_s=0.001)
LED = replace(WELCOME, leader_lease_s=3600.0)


class StandbyLink(MemoryLink):
    async def register(self, register: Register) -> Welcome:
        raise NotLeader("another one leads", leaders=["b", "elsewhere"], retry_s=0.001)


class SilentLink(MemoryLink):
    """Connected, and never answered: its scheduler is stopped, or its host is gone."""

    async def register(self, register: Register) -> Welcome:
        await asyncio.get_running_loop().create_future()
        raise AssertionError


class UnreachableLink(MemoryLink):
    async def register(self, register: Register) -> Welcome:
        raise LinkBroken("connection refused")


class Dialer:
    """Gives the links of each address in turn, the last one again and again."""

    def __init__(self, links: Mapping[str, list[MemoryLink]]) -> None:
        self.links = {address: list(each) for address, each in links.items()}
        self.dialled: list[str] = []

    def dial(self, address: str) -> MemoryLink:
        self.dialled.append(address)
        left = self.links[address]
        return left.pop(0) if len(left) > 1 else left[0]


def opener(dialer: Dialer, timings: SessionTimings = PATIENT) -> SessionOpener:
    held: tuple[HeldAttempt, ...] = ()
    return SessionOpener(
        identity=Identity(instance_id="one", engine_start_id="e", role=Role.GENERAL, model="sim"),
        addresses=list(dialer.links),
        dialer=dialer,
        held=lambda: held,
        automatic_role=lambda: None,
        timings=timings,
    )


async def test_an_address_that_does_not_answer_holds_up_nobody() -> None:
    silent, good = SilentLink(), MemoryLink()
    async with asyncio.timeout(5):
        link, _ = await opener(Dialer({"a": [silent], "b": [good]})).open()
    assert link is good
    assert silent.closed


async def test_a_standby_is_asked_again_when_it_says_and_the_leader_that_it_names_first() -> None:
    leader = MemoryLink()
    dialer = Dialer({"a": [StandbyLink()], "b": [StandbyLink(), leader]})
    async with asyncio.timeout(5):
        link, _ = await opener(dialer, replace(PATIENT, dial_next_s=3600.0)).open()
    assert link is leader
    assert dialer.dialled == ["a", "b", "b"]


async def test_a_scheduler_that_is_away_is_dialled_often_once_there_was_a_session() -> None:
    """It may be about to start again, and waits for its instances: the longest pause is a fraction of a second."""
    again = MemoryLink()
    found = opener(Dialer({"a": [MemoryLink(), UnreachableLink(), again]}))  # pauses of an hour
    async with asyncio.timeout(5):
        await found.open()
        link, _ = await found.open()
    assert link is again


async def test_of_two_sessions_at_once_one_is_closed() -> None:
    class Slow(MemoryLink):
        async def open_outputs(self, session_id: str) -> None:
            await released.wait()

    released = asyncio.Event()
    first, second = Slow(), Slow()
    opening = asyncio.create_task(opener(Dialer({"a": [first], "b": [second]})).open())
    async with asyncio.timeout(5):
        while second.registered is None:
            await asyncio.sleep(0.001)
        released.set()
        link, _ = await opening
    assert {first.closed, second.closed} == {True, False}
    assert not link.closed  # type: ignore[attr-defined]


async def test_a_scheduler_of_an_older_epoch_than_one_seen_is_refused() -> None:
    new, old = MemoryLink(replace(LED, epoch=5)), MemoryLink(replace(LED, epoch=4))
    newest = MemoryLink(replace(LED, epoch=6))
    found = opener(Dialer({"a": [new, old, newest]}), replace(PATIENT, first_retry_s=0.001))
    async with asyncio.timeout(5):
        await found.open()
        link, welcome = await found.open()
    assert link is newest
    assert old.closed
    assert welcome.epoch == 6


async def test_a_leader_that_is_silent_for_its_lease_is_left() -> None:
    silent, other = MemoryLink(replace(WELCOME, leader_lease_s=0.02, heartbeat_interval_s=0.01)), MemoryLink()
    async with workbench(reading=False) as bench:
        dialer = MemoryDialer(silent, other)
        async with running(session_of(bench, dialer, "a", "b")), asyncio.timeout(5):
            while other.registered is None:
                await asyncio.sleep(0.001)
    assert silent.closed


@pytest.mark.parametrize(("led", "refused"), [(LED, True), (WELCOME, False)])
async def test_once_its_attempts_are_given_up_an_older_epoch_counts_only_where_one_leads(
    led: Welcome, refused: bool
) -> None:
    """Without a database epochs are times, and a clock may be set back."""
    async with workbench(reading=False) as bench:
        first = MemoryLink(replace(led, epoch=9, lease_s=0.01))
        older = [MemoryLink(replace(led, epoch=3)) for _ in range(50)]
        dialer = MemoryDialer(first, *older)
        session = session_of(bench, dialer)
        async with running(session), asyncio.timeout(5):
            while first.registered is None:
                await asyncio.sleep(0.001)
            first.cut()
            while len(dialer.dialled) < 40 and not (session.connected and len(dialer.dialled) > 1):
                await asyncio.sleep(0.001)
            assert session.connected is not refused
