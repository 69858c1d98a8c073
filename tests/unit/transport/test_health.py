"""Health checks: statuses, those who watch them, and watchers that do harm."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sage_common.virtual_clock import VirtualClock
from sage_wire.health import HealthServicer
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.transport import health
from tests.support import http2
from tests.support.eventually import eventually
from tests.unit.transport.served import WITHIN_S, serving

Response = health_pb2.HealthCheckResponse
messages: Any = health_pb2  # the stubs lack some


class Aborted(Exception):
    """What the context of a refused call raises."""


class Watcher:
    """Takes the place of a call's context.  ``stuck``: it takes no message."""

    def __init__(self, *, stuck: bool = False) -> None:
        self.seen: list[int] = []
        self._stuck = stuck

    async def write(self, response: Response) -> None:
        self.seen.append(response.status)
        if self._stuck:
            await asyncio.Event().wait()

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Aborted(code.name)


def watch(servicer: HealthServicer, watcher: Watcher, service: str = "s") -> asyncio.Task[None]:
    context: Any = watcher
    return asyncio.ensure_future(servicer.Watch(health_pb2.HealthCheckRequest(service=service), context))


async def test_a_watcher_sees_each_change_once() -> None:
    servicer, watcher = HealthServicer(), Watcher()
    task = watch(servicer, watcher)
    await eventually(lambda: watcher.seen == [Response.SERVICE_UNKNOWN], what="the status at the start")
    for serving_now in (True, True, False):
        servicer.set("s", serving=serving_now)
        servicer.set("another", serving=serving_now)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert watcher.seen[1:] == [Response.SERVING, Response.NOT_SERVING]
    task.cancel()


async def test_a_watcher_that_takes_no_message_holds_nobody_up() -> None:
    servicer, stuck, other = HealthServicer(), Watcher(stuck=True), Watcher()
    tasks = [watch(servicer, stuck), watch(servicer, other)]
    await eventually(lambda: bool(stuck.seen and other.seen), what="the first writes")
    servicer.set("s", serving=True)
    await eventually(lambda: other.seen[-1] == Response.SERVING, what="the change")
    servicer.leave()
    await eventually(lambda: other.seen[-1] == Response.NOT_SERVING, what="the end")
    servicer.set("s", serving=True)
    context: Any = other
    answer = await servicer.Check(health_pb2.HealthCheckRequest(service="s"), context)
    assert answer.status == Response.NOT_SERVING, "it is leaving for good"
    for task in tasks:
        task.cancel()


async def test_watchers_are_bounded_and_their_places_come_back() -> None:
    servicer = HealthServicer(watchers_limit=2)
    tasks = [watch(servicer, Watcher(stuck=True)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Aborted, match="RESOURCE_EXHAUSTED"):
        await watch(servicer, Watcher())
    tasks[0].cancel()
    await asyncio.wait({tasks[0]})
    third = Watcher()
    tasks[0] = watch(servicer, third)
    await eventually(lambda: bool(third.seen), what="a place")
    for task in tasks:
        task.cancel()


async def test_all_statuses_are_listed(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as scheduler, grpc.aio.insecure_channel(f"127.0.0.1:{scheduler.port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        found = (await stub.List(messages.HealthListRequest(), timeout=WITHIN_S)).statuses
        assert {found[name].status for name in ("", health.EXECUTOR, health.ADMIN)} == {Response.SERVING}
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Check(health_pb2.HealthCheckRequest(service="none"), timeout=WITHIN_S)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert not caplog.records or "failed" not in caplog.text


async def test_a_client_that_allows_no_byte_neither_freezes_statuses_nor_the_end() -> None:
    async with asyncio.timeout(WITHIN_S):
        async with serving() as scheduler:
            _, writer = await asyncio.open_connection("127.0.0.1", scheduler.port)
            writer.write(http2.call("/grpc.health.v1.Health/Watch", window=0))
            await eventually(lambda: scheduler._health.servicer._watchers == 1, what="the watcher")
            scheduler._health.servicer.set("", serving=False)
        writer.close()


async def test_a_scheduler_that_leads_no_more_is_not_serving_while_it_ends_its_term() -> None:
    servicer, clock = HealthServicer(), VirtualClock()
    scheduler: Any = SimpleNamespace(
        instances=lambda: [SimpleNamespace(state=InstanceState.READY)], pd_settings=SimpleNamespace(enabled=False)
    )
    reporter = health.HealthReporter(scheduler, clock, servicer=servicer)
    task = asyncio.create_task(reporter.run())
    await clock.advance(1.0)

    async def status(service: str) -> int:
        context: Any = None
        return (await servicer.Check(health_pb2.HealthCheckRequest(service=service), context)).status

    assert await status(health.INFERENCE) == await status(health.ADMIN) == Response.SERVING
    reporter.stand_by()
    await clock.advance(1.0)
    assert await status(health.INFERENCE) == await status(health.ADMIN) == Response.NOT_SERVING
    assert await status("") == Response.SERVING
    task.cancel()
