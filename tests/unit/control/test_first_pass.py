"""A request that finds capacity at once is with its executor before its client is told anything."""

from __future__ import annotations

import asyncio

import pytest

from scheduler_svc.access.audit import Audit
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.errors import DeadlineExceeded, QueueFull
from scheduler_svc.domain.request import RequestState
from scheduler_svc.tokenization.store import TokenizerStore
from scheduler_svc.transport.batches.batch_servicer import BatchServicer
from scheduler_svc.transport.batches.file_servicer import FileServicer
from scheduler_svc.transport.client_sessions.session_servicer import SessionServicer
from scheduler_svc.transport.detached_servicer import DetachedServicer
from scheduler_svc.transport.inference_servicer import InferenceServicer
from scheduler_svc.transport.model_files import ModelFiles
from scheduler_svc.transport.outbox import Outbox
from tests.unit.control.world import ModelledExecutor, World


class ClientGone(Exception):
    """What ends a stream here, at its first write."""


class FirstWrite:
    """A stream's write that notes what an executor had been told when the client was told for the first time."""

    def __init__(self, executor: ModelledExecutor) -> None:
        self._executor = executor
        self.log_then: list[str] = []

    async def __call__(self, message: object) -> None:
        self.log_then = list(self._executor.log)
        raise ClientGone


async def test_a_request_that_finds_capacity_is_assigned_before_its_client_hears_of_it() -> None:
    async with World() as world:
        a = world.add("a")
        subscription = await world.plane.intake.submit(world.submission("r"))
        assert (subscription.live.state, a.log) == (RequestState.QUEUED, [])

        await world.plane.intake.first_pass(subscription)

        assert (subscription.live.state, a.log) == (RequestState.RUNNING, ["assign r"])


async def test_the_servicer_says_accepted_once_the_executor_has_the_request() -> None:
    async with World() as world:
        a = world.add("a")
        plane = world.plane
        sessions = SessionServicer(plane.intake, plane.scheduler, world.clock, Audit(), epoch=plane.epoch)
        detached = DetachedServicer(plane.intake, plane.loop_lag, None, plane.wall_s)
        models = ModelFiles(plane.scheduler, plane.models, TokenizerStore(), world.clock)
        batches, files = BatchServicer(None, lambda: 0.0), FileServicer(None, world.clock)
        servicer = InferenceServicer(
            plane.intake, plane.scheduler, sessions, detached, batches, files, models, epoch=plane.epoch
        )
        subscription = await world.plane.intake.submit(world.submission("r"))
        write = FirstWrite(a)

        with pytest.raises(ClientGone):
            await servicer._stream(subscription, write)  # type: ignore[arg-type]

        assert write.log_then == ["assign r"]


async def test_a_request_that_finds_none_waits_for_one_pass_only() -> None:
    async with World() as world:
        world.add("a", max_running=1)
        for n in range(3):
            await world.submit(f"r{n}")
        subscription = await world.plane.intake.submit(world.submission("waits"))

        await world.plane.intake.first_pass(subscription)
        await world.plane.intake.first_pass(subscription)  # no pass is due: not a wait for the next one

        assert subscription.live.state is RequestState.QUEUED


async def test_an_attached_client_waits_for_no_pass() -> None:
    async with World() as world:
        world.add("a", max_running=1)
        for request_id in ("r0", "r1", "r2", "r"):
            await world.submit(request_id)
        subscription = await world.plane.intake.submit(world.submission("r"))

        await world.plane.intake.first_pass(subscription)

        assert subscription.attached


async def test_one_client_that_goes_away_does_not_stop_the_others_from_hearing_of_the_pass() -> None:
    wakeup = Wakeup()
    wakeup.notify()
    gone, stays = (asyncio.create_task(wakeup.answered()) for _ in range(2))
    await asyncio.sleep(0)

    gone.cancel()
    wakeup.answer()

    await stays


async def test_a_stream_writes_what_a_pass_decided_before_those_who_wait_for_the_pass_go_on() -> None:
    wakeup, outbox, order = Wakeup(), Outbox[str](limit=4), list[str]()

    async def write() -> None:
        order.append(await outbox.get())

    async def client() -> None:
        wakeup.notify()
        await wakeup.answered()
        order.append("client is told")

    async def dispatcher() -> None:
        await wakeup.wait()
        outbox.put("assign")
        wakeup.answer()

    writer, dispatching = asyncio.create_task(write()), asyncio.create_task(dispatcher())
    await asyncio.sleep(0)
    await asyncio.gather(client(), dispatching, writer)

    assert order == ["assign", "client is told"]


async def test_nobody_waits_for_a_pass_of_a_dispatcher_that_ended() -> None:
    async with World() as world:
        world.add("a")
        await world.advance(0.1)
        world.dispatching.cancel()
        await asyncio.gather(world.dispatching, return_exceptions=True)

        subscription = await world.plane.intake.submit(world.submission("r", deadline_s=1.0))
        await world.plane.intake.first_pass(subscription)
        await world.advance(2)

        assert isinstance(subscription.live.outcome, DeadlineExceeded)


async def test_a_queue_is_full_only_if_it_is_so_after_the_pass_that_is_due() -> None:
    async with World(queue={"limit_per_model": 3}) as world:
        world.add("a", max_running=5)
        await world.advance(0.1)
        arriving = [asyncio.create_task(world.plane.intake.submit(world.submission(f"r{n}"))) for n in range(5)]
        subscriptions = await asyncio.gather(*arriving)
        assert all(subscription.live.state is not RequestState.FAILED for subscription in subscriptions)


async def test_a_queue_that_is_full_after_the_pass_refuses() -> None:
    async with World(queue={"limit_per_model": 3}) as world:
        world.add("a", max_running=1)
        await world.advance(0.1)
        arriving = [asyncio.create_task(world.plane.intake.submit(world.submission(f"r{n}"))) for n in range(20)]
        found = await asyncio.gather(*arriving, return_exceptions=True)
        refused = [each for each in found if isinstance(each, QueueFull)]
        assert len(refused) == 20 - world.plane.scheduler.queues()["m"].limit - sum(
            len(executor.held) for executor in world.executors.values()
        )
