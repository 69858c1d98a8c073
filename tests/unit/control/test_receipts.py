"""Requests that waited when their scheduler died come back with a receipt and keep their place."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.requests.intake import RETURNING_AT_ONCE
from scheduler_svc.control.requests.receipts import GOOD_FOR_S
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.domain.errors import DeadlineExceeded, NoInstance, QueueFull, Recovering
from scheduler_svc.domain.request import RequestState
from scheduler_svc.storage.adoption_key import AdoptionKey
from scheduler_svc.transport.signed_receipts import SIGNATURE_BYTES, SignedReceipts
from tests.unit.control.test_adoption import Next
from tests.unit.control.world import KEY, World

WALL = 1_700_000_000.0


async def accepted(request_id: str, *, waited_s: float = 5.0, **options: Any) -> tuple[Submission, bytes]:
    """A request that an earlier scheduler accepted ``waited_s`` before it died, and its receipt."""
    async with World(adopts=True) as world:
        world.wall_at = WALL - waited_s
        world.add("a", max_running=1)
        await world.submit("runs", max_tokens=1_000)
        submitted = world.submission(request_id, **options)
        subscription = await world.plane.intake.submit(submitted)
        return submitted, world.plane.intake.receipts.of(subscription.live)


def after(**config: Any) -> Next:
    """The next scheduler, whose instances came back."""
    found = Next(config=SchedulerConfig(policy="fifo", **config), wall=lambda: WALL)
    found.register("a")
    return found


async def test_a_request_that_waited_keeps_its_place_and_its_deadline() -> None:
    submitted, receipt = await accepted("r", waited_s=5.0, deadline_s=60.0)
    scheduler = after()
    now = scheduler.clock.now()
    live = (await scheduler.plane.intake.submit(replace(submitted, receipt=receipt))).live
    assert live.state is RequestState.QUEUED
    assert live.request.arrived_at == pytest.approx(now - 5.0, abs=0.01)
    assert live.request.deadline_at == pytest.approx(now + 55.0, abs=0.01)
    assert any(entry.event == "returned" for entry in live.history)


async def test_it_passes_the_limits_at_the_door() -> None:
    submitted, receipt = await accepted("r")
    scheduler = after(queue={"limit_per_model": 1})
    intake, room = scheduler.plane.intake, scheduler.links["a"].max_running
    dispatching = asyncio.create_task(scheduler.plane.dispatcher.run())

    async def fill() -> None:
        for number in range(4 * room):
            await intake.submit(replace(submitted, key=submitted.key._replace(request_id=str(number))))

    with pytest.raises(QueueFull):
        await fill()
    assert (await intake.submit(replace(submitted, receipt=receipt))).live.state is RequestState.QUEUED
    dispatching.cancel()


async def test_while_requests_may_still_come_back_it_has_to_wait() -> None:
    submitted, receipt = await accepted("r")
    scheduler = Next("a", "missing", wall=lambda: WALL)
    scheduler.register("a")
    with pytest.raises(Recovering):  # it may have been placed since, and run at the missing one
        await scheduler.plane.intake.submit(replace(submitted, receipt=receipt))


async def test_those_whose_model_is_away_do_not_hold_up_the_others() -> None:
    submitted, receipt = await accepted("r")
    scheduler = after(models={"away": {}})
    intake = scheduler.plane.intake
    found = SignedReceipts(KEY).read(receipt)
    assert found is not None
    waiting = []
    for number in range(RETURNING_AT_ONCE):
        key = submitted.key._replace(request_id=str(number))
        its_receipt = SignedReceipts(KEY).write(replace(found, key=key))
        other = replace(submitted, key=key, model="away", wait_for_instance=True, receipt=its_receipt)
        waiting.append(asyncio.create_task(intake.submit(other)))
    await asyncio.sleep(0)
    async with asyncio.timeout(5.0):
        assert (await intake.submit(replace(submitted, receipt=receipt))).live.state is RequestState.QUEUED
    for each in waiting:
        assert not each.done()
        each.cancel()


async def test_a_receipt_past_its_deadline_says_so() -> None:
    submitted, receipt = await accepted("r", waited_s=61.0, deadline_s=60.0)
    with pytest.raises(DeadlineExceeded):
        await after().plane.intake.submit(replace(submitted, receipt=receipt))


@pytest.mark.parametrize("what", ["late", "used", "forged", "of another fleet", "of other content", "of this epoch"])
async def test_a_receipt_that_does_not_count_makes_a_new_request(what: str) -> None:
    submitted, receipt = await accepted("r")
    scheduler = after()
    intake, clock = scheduler.plane.intake, scheduler.clock
    if what == "late":
        await clock.advance(GOOD_FOR_S + 1)
    elif what == "used":
        intake.receipts.use(submitted.key)
    elif what == "forged":
        receipt = receipt[:SIGNATURE_BYTES] + receipt[SIGNATURE_BYTES:].replace(b"r", b"s")
    elif what == "of another fleet":
        found = SignedReceipts(KEY).read(receipt)
        assert found is not None
        receipt = SignedReceipts(AdoptionKey(b"x" * 32)).write(found)
    elif what == "of other content":
        submitted = replace(submitted, digest=b"other")
    else:
        found = SignedReceipts(KEY).read(receipt)
        assert found is not None
        receipt = SignedReceipts(KEY).write(replace(found, epoch=scheduler.plane.epoch))
    live = (await intake.submit(replace(submitted, receipt=receipt))).live
    assert live.request.arrived_at == pytest.approx(clock.now(), abs=0.01)


async def test_an_id_that_no_scheduler_can_know_need_not_wait() -> None:
    async with World() as world:
        submitted = world.submission("r")
    scheduler = Next("a", "missing")
    with pytest.raises(Recovering):  # its model's instances may still come back
        await scheduler.plane.intake.submit(replace(submitted, fresh=True))
    scheduler.register("a")
    with pytest.raises(Recovering):
        await scheduler.plane.intake.submit(submitted)
    live = (await scheduler.plane.intake.submit(replace(submitted, fresh=True))).live
    assert live.state is RequestState.QUEUED
    elsewhere = submitted.key._replace(request_id="other")
    with pytest.raises(Recovering):  # it has tokens, so it is not new
        await scheduler.plane.intake.submit(replace(submitted, key=elsewhere, fresh=True, after_token=3))


async def test_once_recovery_is_over_a_model_that_is_not_there_is_refused() -> None:
    async with World() as world:
        submitted = world.submission("r")
    with pytest.raises(NoInstance):
        await Next().plane.intake.submit(replace(submitted, fresh=True))
