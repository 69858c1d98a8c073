"""Two schedulers on one PostgreSQL: the leader dies, freezes, loses its database or stops; its requests go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from executor_svc.runtime.engine_port import Sampling
from externalscaler import externalscaler_pb2, externalscaler_pb2_grpc
from sage.controlplane.v1 import admin_pb2, inference_pb2, inference_pb2_grpc
from sage_client import AsyncClient, AsyncDetachedRequest, Completion, UsageRecord
from tests.support.eventually import eventually
from tests.support.network_proxy import NetworkProxy
from tests.support.postgres import Postgres, running_postgres
from tests.support.service_process import ServiceProcess
from tests.support.simulated_answer import answer
from tests.support.standby_fleet import LEASE_S, StandbyFleet, pause, resume
from tests.support.token_check import assert_tokens

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

NAMES = ("a", "b")
STREAMS = 8
TOKENS = 500
RESPONSE = admin_pb2.GetSchedulerResponse


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@asynccontextmanager
async def running(logs: Path, simulated: list[str], postgres: Postgres) -> AsyncIterator[StandbyFleet]:
    async with StandbyFleet(logs, postgres.url, ("--policy", "fifo")) as fleet:
        for name in NAMES:
            fleet.launch(name, simulated)
        await fleet.ready(*NAMES)
        yield fleet


class Load:
    """Streams that are under way."""

    def __init__(self, client: AsyncClient) -> None:
        self.prompts = [f"It was a dark night, number {number}," for number in range(STREAMS)]
        self._results = [
            asyncio.create_task(client.generate(each, max_tokens=TOKENS, ignore_eos=True, temperature=0).result())
            for each in self.prompts
        ]

    async def are_right(self) -> None:
        sampling = Sampling(temperature=0, max_tokens=TOKENS, ignore_eos=True)
        results: list[Completion] = await asyncio.gather(*self._results)
        for prompt, result in zip(self.prompts, results, strict=True):
            wanted = await answer(prompt, sampling)
            assert_tokens(list(result.token_ids), wanted.token_ids, prompt)
            assert result.text == wanted.text


async def detached_work(client: AsyncClient) -> dict[str, AsyncDetachedRequest]:
    """As many requests as streams, by their prompts."""
    prompts = [f"It was a bright morning, number {number}," for number in range(STREAMS)]
    submit = partial(client.submit, max_tokens=TOKENS, ignore_eos=True, temperature=0)
    return dict(zip(prompts, await asyncio.gather(*map(submit, prompts)), strict=True))


async def one_more(client: AsyncClient) -> None:
    await client.generate("And then?", max_tokens=1, ignore_eos=True).result()


@pytest.mark.parametrize("sessions", [True, False], ids=["sessions", "generate"])
@pytest.mark.parametrize("how", ["kill", "terminate", "pause"])
async def test_streams_go_on_with_the_standby(
    logs: Path, simulated: list[str], postgres: Postgres, how: str, sessions: bool
) -> None:
    async with running(logs, simulated, postgres) as fleet, fleet.client(use_sessions=sessions) as client:
        load = Load(client)
        await asyncio.sleep(1.5)
        leader = await fleet.leader()
        began_at = time.monotonic()
        if how == "pause":
            pause(leader)
        else:
            getattr(leader, how)()
        async with fleet.client() as newcomer:
            await one_more(newcomer)
        took_s = time.monotonic() - began_at
        print(f"{how}: the next decision came after {took_s:.2f} s (lease {LEASE_S:g} s)")
        await load.are_right()
        if how == "pause":
            resume(leader)
            await leader.said("leading no more")
            await eventually(lambda: _stands_by(fleet, leader), what="it stands by")
        else:
            await leader.ended()
            leader.start()
            await leader.said("stands by")


@pytest.mark.parametrize("sessions", [True, False], ids=["sessions", "generate"])
async def test_detached_work_and_streams_go_on_when_the_leader_is_killed(
    logs: Path, simulated: list[str], postgres: Postgres, sessions: bool
) -> None:
    """Also for readers that were attached to the leader, and each request runs and is recorded once."""
    began = datetime.now(UTC)
    async with running(logs, simulated, postgres) as fleet, fleet.client(use_sessions=sessions) as client:
        load, work = Load(client), await detached_work(client)
        readers = [asyncio.create_task(client.attach(each.request_id).result()) for each in work.values()]
        await asyncio.sleep(1.0)
        leader = await fleet.leader()
        leader.kill()
        await load.are_right()
        sampling = Sampling(temperature=0, max_tokens=TOKENS, ignore_eos=True)
        for (prompt, submitted), reader in zip(work.items(), readers, strict=True):
            wanted = await answer(prompt, sampling)
            for result in (await reader, await submitted.result()):
                assert_tokens(list(result.token_ids), wanted.token_ids, prompt)
                assert result.text == wanted.text

        async def records() -> list[UsageRecord]:
            found = [each async for each in client.list_usage(since=began) if each.output_tokens == TOKENS]
            return found if len(found) >= 2 * STREAMS else []

        found = await eventually(records, within_s=30.0, what="usage records of all requests", every_s=0.2)
        assert len({each.request_id for each in found}) == len(found) == 2 * STREAMS
        assert {(each.end, each.attempts, each.adopted) for each in found} == {("finished", 1, True)}
        await leader.ended()


async def test_keda_which_knows_one_address_is_led_to_the_next_leader(logs: Path, postgres: Postgres) -> None:
    """A connection through a service of Kubernetes stays with its pod for as long as the pod keeps it open."""
    bounds = '{"m": {"general": {"min": 2, "max": 4}}}'
    scaling = ("--scaling.enabled", "--scaling.interval-s=0.2", f"--scaling.models={bounds}")
    reference = externalscaler_pb2.ScaledObjectRef(name="executor", namespace="sage", scalerMetadata={"model": "m"})
    async with StandbyFleet(logs, postgres.url, scaling) as fleet:
        leader = await fleet.leader()
        async with (
            NetworkProxy(fleet.port_of(leader)) as service,
            grpc.aio.insecure_channel(service.address) as channel,
        ):
            keda: Any = externalscaler_pb2_grpc.ExternalScalerStub(channel)

            async def desired() -> int:
                try:
                    asked = externalscaler_pb2.GetMetricsRequest(scaledObjectRef=reference)
                    [value] = (await keda.GetMetrics(asked, timeout=5)).metricValues
                except grpc.aio.AioRpcError:
                    return 0  # as before the first look, and while the connection leads to a leader that was
                return int(value.metricValue)

            await eventually(desired, within_s=20.0, what="the first numbers")
            stream = keda.StreamIsActive(reference)
            assert (await stream.read()).result
            pause(leader)
            following = await fleet.leader()
            service.lead_to(fleet.port_of(following))
            resume(leader)
            assert await asyncio.wait_for(stream.code(), 20.0) is grpc.StatusCode.UNAVAILABLE
            assert await eventually(desired, within_s=20.0, what="an answer of the next leader") == 2
            assert (await keda.StreamIsActive(reference).read()).result
            assert service.connections > 1


async def test_a_leader_that_was_frozen_sends_nothing_when_it_goes_on(
    logs: Path, simulated: list[str], postgres: Postgres
) -> None:
    """While it was frozen its executors went on sending it tokens, which lie in its connections."""
    async with running(logs, simulated, postgres) as fleet:
        leader = await fleet.leader()
        request = inference_pb2.GenerateRequest(request_id="long")
        request.spec.text = "Once upon a time"
        request.spec.sampling.max_tokens = 2_000
        request.spec.sampling.ignore_eos = True
        async with grpc.aio.insecure_channel(fleet.addresses[leader]) as channel:
            call = inference_pb2_grpc.InferenceServiceStub(channel).Generate(request)
            for _ in range(50):
                await call.read()
            pause(leader)
            read = asyncio.ensure_future(call.read())
            while (await asyncio.wait({read}, timeout=1.0))[0]:  # what was under way
                read = asyncio.ensure_future(call.read())
            other = fleet.standby_of(leader)
            await eventually(lambda: _leads(fleet, other), what="the other one leads", every_s=0.1)
            resume(leader)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await read
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "does not lead" in (refused.value.details() or "")
        async with fleet.client() as client:
            await client.cancel("long")


async def _leads(fleet: StandbyFleet, process: ServiceProcess) -> bool:
    return await fleet.state(process) == RESPONSE.STATE_LEADING


async def _stands_by(fleet: StandbyFleet, process: ServiceProcess) -> bool:
    return await fleet.state(process) == RESPONSE.STATE_STANDBY


async def test_a_restart_of_the_database_is_not_noticed(logs: Path, simulated: list[str], postgres: Postgres) -> None:
    async with running(logs, simulated, postgres) as fleet, fleet.client() as client:
        load = Load(client)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(postgres.restart)
        await one_more(client)
        await load.are_right()


async def test_without_its_database_nobody_leads_and_streams_go_on_when_it_is_back(
    logs: Path, simulated: list[str], postgres: Postgres
) -> None:
    async with running(logs, simulated, postgres) as fleet, fleet.client() as client:
        load = Load(client)
        await asyncio.sleep(1.0)
        leader = await fleet.leader()
        postgres.stop()
        try:
            await leader.said("leading no more: its lease ended")
            waiting = asyncio.create_task(one_more(client))
            await asyncio.sleep(LEASE_S)
            assert not waiting.done()
            assert {await fleet.state(each) for each in fleet.addresses} == {RESPONSE.STATE_STANDBY}
        finally:
            postgres.start()
        await waiting
        await load.are_right()
