"""One process that leads again and again, with work under way: nothing of a term is left in it, and no work is lost."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from functools import partial
from typing import Literal

import grpc
import psycopg
import pytest

from executor_svc.config import ExecutorConfig
from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.runtime.engine_port import Sampling
from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc, inference_pb2, inference_pb2_grpc
from sage_client import AsyncClient, InstanceState
from sage_telemetry.settings import TelemetrySettings
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.settings.journal import JournalSection, LeadershipSection, RecoverySection
from scheduler_svc.wiring.scheduler_service import SchedulerService
from scheduler_svc.wiring.standby_service import StandbyService
from tests.integration.system.local_fleet import LocalExecutor
from tests.support.broken_call import is_break
from tests.support.eventually import eventually
from tests.support.free_port import free_port
from tests.support.postgres import Postgres, running_postgres
from tests.support.simulated_answer import ENDLESS, answer
from tests.support.token_check import assert_tokens

RESPONSE = admin_pb2.GetSchedulerResponse
PROMPT = "It was a dark night,"
TERMS = 6
TOKENS = 4_000
STEP_S = 0.003
FEW = 3
"""How many threads, tasks, files and connections may come and go; fewer than one for each term."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


class Leading:
    """A scheduler that a test deprives of its lease."""

    def __init__(self, postgres: Postgres, on_stop: Literal["hand_over", "drain"] = "hand_over") -> None:
        self._url = postgres.url
        telemetry = TelemetrySettings(
            metrics_listen=f"127.0.0.1:{free_port()}", otlp_endpoint=f"http://127.0.0.1:{free_port()}"
        )
        self.service = StandbyService(
            SchedulerConfig(
                listen="127.0.0.1:0",
                policy="fifo",
                journal=JournalSection(url=postgres.url),
                leadership=LeadershipSection(lease_s=1.0),
                recovery=RecoverySection(on_stop=on_stop),
                drain_timeout_s=60.0,
                telemetry=telemetry,
            )
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.service.port}"

    async def epoch_above(self, epoch: int) -> int:
        """The epoch once it leads with one above this."""

        async def above() -> int:
            async with grpc.aio.insecure_channel(self.address) as channel:
                stub = admin_pb2_grpc.AdminServiceStub(channel)
                try:
                    now = await stub.GetScheduler(admin_pb2.GetSchedulerRequest(), timeout=10)
                except grpc.aio.AioRpcError as error:
                    if not is_break(error):  # connections end with a term, and none is taken for a moment
                        raise
                    return 0
            return now.epoch if now.state == RESPONSE.STATE_LEADING and now.epoch > epoch else 0

        return int(await eventually(above, within_s=30.0, what="it leads anew"))

    async def lose_lease(self) -> None:
        def lose() -> None:
            with psycopg.connect(self._url) as connection:
                connection.execute("UPDATE leadership SET lease_until = 0")

        await asyncio.to_thread(lose)

    async def counts(self) -> dict[str, int]:
        threads = [each.name for each in threading.enumerate() if not each.name.startswith("asyncio_")]
        return {
            "threads": len(threads),
            "tasks": len(asyncio.all_tasks()),
            "files": len(os.listdir("/proc/self/fd")),
            "connections": await asyncio.to_thread(self._connections),
        }

    def _connections(self) -> int:
        with psycopg.connect(self._url) as connection:
            row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
            return int((row.fetchone() or (0,))[0])


def executor_of(*addresses: str) -> LocalExecutor:
    simulated = SimulatedSettings(step_base_s=STEP_S, mean_output_tokens=ENDLESS.mean_output_tokens)
    engine = EngineSettings(kind="simulated", model=ModelSettings(model="sim"), simulated=simulated)
    return LocalExecutor(ExecutorConfig(instance_id="gpu-0", scheduler=addresses, engine=engine), None)


def alive(kind: type) -> int:
    gc.collect()
    return sum(type(each) is kind for each in gc.get_objects())


async def test_terms_leave_nothing_behind_and_take_no_work_away(postgres: Postgres) -> None:
    services, requests = alive(SchedulerService), alive(LiveRequest)  # what failed before is kept with its traceback
    leading = Leading(postgres)
    await leading.service.start()
    executor = executor_of(leading.address)
    executor.start()
    try:
        async with AsyncClient(leading.address) as client:
            await eventually(partial(_is_ready, client), what="the executor is ready")
            submitted = await client.submit(PROMPT, temperature=0, max_tokens=TOKENS, ignore_eos=True, timeout=30)
            read = asyncio.create_task(client.attach(submitted.request_id).result())
            streamed = asyncio.create_task(
                client.generate(PROMPT, temperature=0, max_tokens=TOKENS, ignore_eos=True).result()
            )
            epoch, seen = 0, []
            for _ in range(TERMS):
                epoch = await leading.epoch_above(epoch)
                await eventually(partial(_goes_on, client, submitted.request_id), what="its work goes on")
                seen.append(await leading.counts())
                assert alive(SchedulerService) == services + 1
                assert alive(LiveRequest) <= requests + 2
                await leading.lose_lease()
            before = {name: max(each[name] for each in seen[:2]) for name in seen[0]}
            assert {name for name, count in seen[-1].items() if count > before[name] + FEW} == set(), seen
            wanted = await answer(PROMPT, Sampling(temperature=0, max_tokens=TOKENS, ignore_eos=True))
            for result in (await read, await streamed, await submitted.result()):
                assert_tokens(list(result.token_ids), wanted.token_ids)
            assert executor.engine.load().generation_tokens_total == 2 * TOKENS, "each ran once"
    finally:
        await executor.end()
        await leading.service.stop()


async def test_a_lease_that_ends_while_a_scheduler_drains_hands_its_requests_over(postgres: Postgres) -> None:
    """The next leader has them: this one must not hold their readers until it has waited enough, and end them then."""
    leading = Leading(postgres, on_stop="drain")
    await leading.service.start()
    executor = executor_of(leading.address)
    stopping: asyncio.Task[None] | None = None
    executor.start()
    try:
        async with AsyncClient(leading.address) as client, grpc.aio.insecure_channel(leading.address) as channel:
            await eventually(partial(_is_ready, client), what="the executor is ready")
            request = inference_pb2.GenerateRequest(request_id="waits")
            request.spec.text = PROMPT
            request.spec.no_instance = inference_pb2.NO_INSTANCE_WAIT
            await executor.end()
            call = inference_pb2_grpc.InferenceServiceStub(channel).Generate(request)
            assert isinstance(await call.read(), inference_pb2.GenerateResponse)
            stopping = asyncio.create_task(leading.service.stop())
            await leading.lose_lease()
            with pytest.raises(grpc.aio.AioRpcError, match="does not lead"):
                await asyncio.wait_for(call.read(), 30)
            await asyncio.wait_for(asyncio.shield(stopping), 30)
    finally:
        await executor.end()
        await (leading.service.stop() if stopping is None else stopping)


async def test_a_request_that_is_handed_over_is_recorded_once_with_its_real_end(postgres: Postgres) -> None:
    one, other = Leading(postgres), Leading(postgres)
    await one.service.start()
    await one.epoch_above(0)
    await other.service.start()
    executor = executor_of(one.address, other.address)
    executor.start()
    stopped = False
    try:
        async with AsyncClient(f"{one.address},{other.address}") as client:
            await eventually(partial(_is_ready, client), what="the executor is ready")
            streams = [
                client.generate(PROMPT, temperature=0, max_tokens=1_000, ignore_eos=True, request_id=each)
                for each in ("a", "b")
            ]
            results = [asyncio.create_task(each.result()) for each in streams]
            async with AsyncClient(f"{one.address},{other.address}", use_sessions=False) as alone:
                stream = alone.generate(PROMPT, temperature=0, max_tokens=1_000, ignore_eos=True, request_id="c")
                results.append(asyncio.create_task(stream.result()))
                await asyncio.sleep(1.0)
                stopped = True
                await one.service.stop()
                for each in results:
                    assert len((await each).token_ids) == 1_000

            async def records() -> list[tuple[str, str]]:
                found = [each async for each in client.list_usage() if each.request_id in "abc"]
                return sorted((each.request_id, each.end) for each in found) if len(found) >= 3 else []

            assert await eventually(records, what="usage records") == [(each, "finished") for each in "abc"]
    finally:
        await executor.end()
        if not stopped:
            await one.service.stop()
        await other.service.stop()


async def _goes_on(client: AsyncClient, request_id: str) -> bool:
    return (await client.get(request_id)).request.state.value == "running"


async def _is_ready(client: AsyncClient) -> bool:
    return any(each.state is InstanceState.READY for each in (await client.list_instances()).instances)
