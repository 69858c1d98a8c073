"""Which of several schedulers leads, in virtual time: one at a time, and none past its lease."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from sage_common.virtual_clock import VirtualClock
from scheduler_svc.control.leadership.leadership import MARGIN, Leadership
from scheduler_svc.control.leadership.term import Term
from scheduler_svc.control.leadership.term_clock import TermClock
from scheduler_svc.domain.errors import NotLeader
from tests.support.memory_leadership import MemoryLeadership, Row

LEASE_S = 2.0


class Candidate:
    """A scheduler that claims the lease again whenever it has lost it."""

    def __init__(self, row: Row, clock: VirtualClock, name: str) -> None:
        self.leadership = Leadership(MemoryLeadership(row, name), clock, LEASE_S)
        self.terms: list[Term] = []
        self.task = asyncio.create_task(self._run(), name=name)

    async def _run(self) -> None:
        while True:
            term, _ = await self.leadership.campaign()
            self.terms.append(term)
            await self.leadership.hold(term)

    @property
    def leads(self) -> bool:
        return bool(self.terms) and not self.terms[-1].over

    async def die(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


async def test_one_leads_and_the_others_know_which() -> None:
    clock = VirtualClock()
    row = Row(clock)
    one, two = Candidate(row, clock, "a:1"), Candidate(row, clock, "b:2")
    await clock.advance(60)
    assert (one.leads, two.leads) == (True, False)
    assert len(one.terms) == 1
    assert two.leadership.leader is not None
    assert two.leadership.leader.addresses == ("a:1",)
    assert 0 < two.leadership.lease_left_s <= LEASE_S
    await one.die()
    await two.die()


async def test_the_next_one_leads_within_the_lease_of_a_leader_that_died() -> None:
    clock = VirtualClock()
    row = Row(clock)
    one, two = Candidate(row, clock, "a:1"), Candidate(row, clock, "b:2")
    await clock.advance(60)
    await one.die()
    await clock.advance(LEASE_S + LEASE_S / 8)
    assert two.leads
    assert two.terms[0].epoch == one.terms[0].epoch + 1
    await two.die()


async def test_a_lease_that_is_given_back_is_taken_at_the_next_look() -> None:
    clock = VirtualClock()
    row = Row(clock)
    one, two = Candidate(row, clock, "a:1"), Candidate(row, clock, "b:2")
    await clock.advance(60)
    await one.die()
    one.terms[0].end("it stops")
    await one.leadership.release(one.terms[0])
    await clock.advance(LEASE_S / 8 + 0.001)
    assert two.leads
    await two.die()


async def test_without_its_database_a_leader_stops_when_its_lease_ends_and_leads_again_with_a_new_epoch() -> None:
    clock = VirtualClock()
    row = Row(clock)
    one = Candidate(row, clock, "a:1")
    await clock.advance(10)
    row.away = True
    await clock.advance(LEASE_S * 0.5)
    assert one.leads
    assert one.leadership.trouble == "nobody is there"
    await clock.advance(LEASE_S)
    assert {one.leads} == {False}
    with pytest.raises(NotLeader, match="its lease ended"):
        one.terms[0].check()
    row.away = False
    await clock.advance(1)
    assert one.leads
    assert [term.epoch for term in one.terms] == [1, 2]
    assert one.leadership.trouble == ""
    await one.die()


async def test_an_answer_that_comes_after_the_lease_makes_nobody_lead() -> None:
    clock = VirtualClock()
    row = Row(clock)
    one = Candidate(row, clock, "a:1")
    await clock.advance(10)
    row.late_s = LEASE_S * 1.5
    await clock.advance(LEASE_S * 2)
    assert not one.leads
    row.late_s = 0.0
    await one.die()


async def test_a_lease_counts_from_before_it_was_asked_for() -> None:
    clock = VirtualClock()
    row = Row(clock, late_s=0.5)
    one = Candidate(row, clock, "a:1")
    await clock.advance(0.6)
    assert one.terms[0].left_s == pytest.approx(LEASE_S * (1 - MARGIN) - 0.6)
    await one.die()


async def test_a_process_that_was_stopped_finds_its_term_over_before_any_timer_runs() -> None:
    """Its clock went on; the event loop may first run what writes."""

    class Frozen(VirtualClock):
        skipped = 0.0

        def now(self) -> float:
            return super().now() + self.skipped

    clock = Frozen()
    term = Term(clock, epoch=1, lease_s=LEASE_S, until=LEASE_S)
    term.check()
    clock.skipped = 3600.0
    assert term.over
    with pytest.raises(NotLeader):
        term.check()
    clock.skipped = 0.0
    with pytest.raises(NotLeader):
        term.check()
    term.renewed(3600.0)
    assert term.over


async def test_what_a_term_planned_does_not_happen_after_it() -> None:
    clock = VirtualClock()
    of_term = TermClock(clock)
    happened: list[str] = []
    of_term.call_at(1.0, lambda: happened.append("in the term"))
    of_term.call_at(3.0, lambda: happened.append("after it"))
    await clock.advance(2)
    of_term.end()
    of_term.call_at(4.0, lambda: happened.append("set after it"))
    await clock.advance(10)
    assert happened == ["in the term"]


@pytest.mark.parametrize("seed", range(30))
async def test_never_do_two_lead_at_once(seed: int) -> None:
    clock = VirtualClock()
    row = Row(clock)
    source = random.Random(seed)
    candidates = [Candidate(row, clock, f"{name}:1") for name in "abc"]
    seen: list[int] = []
    for _ in range(200):
        row.away = source.random() < 0.2
        row.late_s = source.choice([0.0, 0.0, 0.1, 1.0, 3.0])
        if source.random() < 0.05:
            index = source.randrange(3)
            await candidates[index].die()
            for term in candidates[index].terms:
                term.end("it died")
            candidates[index] = Candidate(row, clock, f"{'abc'[index]}:1")
        await clock.advance(source.uniform(0.01, 1.0))
        leading = [each for each in candidates if each.leads]
        assert len(leading) <= 1
        seen.extend(each.terms[-1].epoch for each in leading)
    assert seen == sorted(seen)
    assert len(set(seen)) > 1
    for each in candidates:
        await each.die()
