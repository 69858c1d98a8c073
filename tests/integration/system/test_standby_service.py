"""Two schedulers of one process and database: one leads, the other one refuses calls and says which."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from sage.controlplane.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    executor_pb2,
    executor_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
)
from sage_client import AsyncClient
from sage_telemetry.settings import TelemetrySettings
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.settings.journal import JournalSection, LeadershipSection
from scheduler_svc.storage.journal.database import Fence
from scheduler_svc.storage.journal.errors import UnusableJournal
from scheduler_svc.storage.journal.journal import Journal, JournalSettings
from scheduler_svc.transport.health import ADMIN, EXECUTOR, INFERENCE
from scheduler_svc.wiring.standby_service import StandbyService
from tests.integration.telemetry.scraped_page import fetch
from tests.support.eventually import eventually
from tests.support.free_port import free_port
from tests.support.lost_status import with_status
from tests.support.postgres import Postgres, running_postgres

RESPONSE = admin_pb2.GetSchedulerResponse
HEALTH = health_pb2.HealthCheckResponse
LEASE_S = 3.0  # long enough for a machine that is busy
BROKEN_LIMIT_S = 4.5  # of the journal of those that ``Broken`` keeps from leading


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@asynccontextmanager
async def running(
    postgres: Postgres,
    lease_s: float = LEASE_S,
    metrics_listen: str | None = None,
    journal_limit_s: float = 5.0,
) -> AsyncIterator[StandbyService]:
    service = StandbyService(
        SchedulerConfig(
            listen="127.0.0.1:0",
            journal=JournalSection(url=postgres.url, limit_s=journal_limit_s),
            leadership=LeadershipSection(lease_s=lease_s),
            telemetry=TelemetrySettings(metrics_listen=metrics_listen),
        )
    )
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


def address(service: StandbyService) -> str:
    return f"127.0.0.1:{service.port}"


async def state(service: StandbyService) -> admin_pb2.GetSchedulerResponse:
    async with grpc.aio.insecure_channel(address(service)) as channel:
        request = admin_pb2.GetSchedulerRequest()  # one whose term has just ended listens again in a moment
        return await admin_pb2_grpc.AdminServiceStub(channel).GetScheduler(request, wait_for_ready=True, timeout=20)


async def leads(service: StandbyService) -> bool:
    return (await state(service)).state == RESPONSE.STATE_LEADING


async def health(service: StandbyService) -> list[int]:
    async with grpc.aio.insecure_channel(address(service)) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        names = ("", EXECUTOR, ADMIN, INFERENCE)
        return [(await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in names]


def details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo]:
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    assert any(each.Unpack(info) for each in status.details)
    assert any(each.Unpack(retry) for each in status.details)
    return info, retry


async def test_a_standby_refuses_every_call_and_names_the_leader(postgres: Postgres) -> None:
    async with running(postgres) as one:
        await eventually(lambda: leads(one), what="the first one leads")
        async with running(postgres) as two, grpc.aio.insecure_channel(address(two)) as channel:

            async def knows() -> bool:
                return (await state(two)).leader == address(one)

            await eventually(knows, what="the second one knows who leads")
            inference = inference_pb2_grpc.InferenceServiceStub(channel)
            executor = executor_pb2_grpc.ExecutorServiceStub(channel)
            opening = inference_pb2.SessionRequest(open=inference_pb2.Open())
            register = executor_pb2.ControlRequest(register=executor_pb2.Register(instance_id="i"))
            calls: list[Callable[[], Any]] = [
                lambda: inference.Generate(inference_pb2.GenerateRequest()).read(),
                lambda: inference.Session(iter([opening])).read(),
                lambda: inference.Cancel(inference_pb2.CancelRequest(request_id="r")),
                lambda: executor.Control(iter([register])).read(),
                lambda: admin_pb2_grpc.AdminServiceStub(channel).GetPolicy(admin_pb2.GetPolicyRequest()),
            ]
            for call in calls:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await with_status(call)
                info, retry = details(refused.value)
                assert (refused.value.code(), info.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_LEADER")
                assert info.metadata["leader"] == address(one)
                assert info.metadata["epoch"] == str((await state(one)).epoch)
                assert retry.retry_delay.ToTimedelta().total_seconds() > 0
            assert await health(two) == [HEALTH.SERVING, *[HEALTH.NOT_SERVING] * 3]
            assert (await health(one))[:3] == [HEALTH.SERVING] * 3


async def test_a_leader_answers_calls_of_every_kind_and_exports_its_row_without_the_key(postgres: Postgres) -> None:
    async with running(postgres) as one, AsyncClient(address(one)) as client:
        await eventually(lambda: leads(one), what="it leads")
        assert [each async for each in client.list_usage()] == []
        async with aclosing(client.watch_fleet()) as snapshots:
            async for each in snapshots:
                assert each.policy
                break
        rows = [json.loads(line) async for line in client.export_journal(tables=["leadership"])]
        assert [(row["epoch"], row["addresses"]) for row in rows] == [((await state(one)).epoch, address(one))]
        assert "adoption_key" not in rows[0]


async def test_a_leader_that_stops_ends_its_streams_and_the_standby_leads_before_the_lease_would_end(
    postgres: Postgres,
) -> None:
    async with running(postgres, lease_s=50.0) as one:
        await eventually(lambda: leads(one), what="the first one leads")
        async with running(postgres, lease_s=50.0) as two, grpc.aio.insecure_channel(address(one)) as channel:
            session: Any = inference_pb2_grpc.InferenceServiceStub(channel).Session()
            await session.write(inference_pb2.SessionRequest(open=inference_pb2.Open(protocol_version=1)))
            opened = (await session.read()).opened
            assert opened.leader_lease.seconds == 50
            await one.stop()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await session.read()
            assert details(refused.value)[0].reason == "NOT_LEADER"
            await eventually(lambda: leads(two), within_s=20.0, what="the second one leads")
            assert (await state(two)).epoch > opened.epoch


async def test_the_next_leader_does_what_operators_told_the_one_before(postgres: Postgres) -> None:
    async with running(postgres) as one:
        await eventually(lambda: leads(one), what="the first one leads")
        async with running(postgres) as two, AsyncClient(f"{address(one)},{address(two)}") as client:
            await client.set_policy("priority")
            await one.stop()
            assert (await client.get_policy()).policy == "priority"
            assert await leads(two)


async def test_without_its_database_it_stands_by_and_leads_again_with_a_new_epoch(postgres: Postgres) -> None:
    metrics_port = free_port()

    async def says_that_it_leads(value: int) -> bool:
        try:
            page = await asyncio.to_thread(fetch, metrics_port)
        except OSError:  # between the page of a standby and that of a leader
            return False
        return f"sage_scheduler_leads {value}.0" in page

    async with running(postgres, lease_s=1.0, metrics_listen=f"127.0.0.1:{metrics_port}") as one:
        await eventually(lambda: leads(one), what="it leads")
        await eventually(lambda: says_that_it_leads(1), what="its metrics say so")
        first = (await state(one)).epoch
        await asyncio.to_thread(postgres.stop)
        try:

            async def says_why() -> bool:
                found = await state(one)
                return found.state == RESPONSE.STATE_STANDBY and bool(found.troubles)

            await eventually(says_why, what="it stands by")
            await eventually(lambda: says_that_it_leads(0), what="its metrics say so")
        finally:
            await asyncio.to_thread(postgres.start)
        await eventually(lambda: leads(one), what="it leads again")
        assert (await state(one)).epoch > first


class Broken:
    """A journal that cannot be opened by schedulers with a certain limit for writes, a number of times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.tried = 0

        def opened(settings: JournalSettings, fence: Fence) -> Journal:
            if settings.limit_s == BROKEN_LIMIT_S and self.tried < times:
                self.tried += 1
                raise UnusableJournal("journal: the server went away")
            return Journal(settings, fence)

        monkeypatch.setattr("scheduler_svc.wiring.standby_service.Journal", opened)


async def test_a_database_that_goes_away_just_when_it_begins_to_lead_ends_nothing(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    Broken(monkeypatch, times=2)
    metrics = f"127.0.0.1:{free_port()}"
    async with running(postgres, metrics_listen=metrics, journal_limit_s=BROKEN_LIMIT_S) as one:
        failing = asyncio.ensure_future(one.failure())

        async def over() -> bool:
            return failing.done() or await leads(one)

        await eventually(over, what="it leads")
        assert not failing.done(), failing.result()
        failing.cancel()


async def test_a_scheduler_that_cannot_lead_leaves_it_to_another_one(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one looks now and then only, and must find the lease free once."""
    broken = Broken(monkeypatch, times=1_000)
    async with running(postgres, journal_limit_s=BROKEN_LIMIT_S):
        await eventually(lambda: broken.tried > 0, what="the first one tries")
        async with running(postgres) as two:
            await eventually(lambda: leads(two), what="the second one leads", within_s=10.0)
