"""Refused calls are counted by reason, whoever is refused and wherever; other ends of calls are not."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest

from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc, inference_pb2, inference_pb2_grpc
from sage_telemetry.catalogue import CALLS_REFUSED
from sage_wire.protocol import PROTOCOL_VERSION
from scheduler_svc.telemetry.call_metrics import REFUSALS
from scheduler_svc.wiring.scheduler_service import SchedulerService
from tests.support.eventually import eventually
from tests.unit.transport.served import WireExecutor, registration
from tests.unit.transport.test_access import guarded, proof, refused, request

SAMPLE = re.compile(r'^sage_calls_refused_total\{reason="(\w+)",rpc="(\w+)"\} (\d+)', re.MULTILINE)


def page(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        return str(response.read().decode())


async def counts(scheduler: SchedulerService) -> dict[tuple[str, str], int]:
    port = scheduler.telemetry.exports.metrics_port
    text = await asyncio.to_thread(page, port)
    return {(rpc, reason): int(count) for reason, rpc, count in SAMPLE.findall(text)}


async def test_refusals_count_by_call_and_reason(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "telemetry": {"metrics_listen": "127.0.0.1:0"},
        "tenants": {"b": {"tokens_per_minute": 1}},
    }
    async with (
        guarded(tmp_path, **settings) as scheduler,
        grpc.aio.insecure_channel(f"127.0.0.1:{scheduler.port}") as channel,
    ):
        inference: Any = inference_pb2_grpc.InferenceServiceStub(channel)
        admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
        executor = WireExecutor(channel, metadata=proof("exe"))
        await executor.whole()
        for name in ("", "nobody"):
            await refused(admin.SetPolicy(admin_pb2.SetPolicyRequest(), metadata=proof(name)))
        await refused(admin.SetPolicy(admin_pb2.SetPolicyRequest(), metadata=proof("obs")))
        await refused(inference.Generate(request(tenant="b"), metadata=proof("app")).read())
        await refused(WireExecutor(channel, metadata=proof("exe")).register(registration(engine_start_id="other")))
        first = inference.Generate(request(), metadata=proof("other"))
        await first.read()
        await refused(inference.Generate(request("r2"), metadata=proof("other")).read())
        await refused(inference.Get(inference_pb2.GetRequest(request_id="none"), metadata=proof("app")))
        expected = {
            ("SetPolicy", "unauthenticated"): 2,
            ("SetPolicy", "permission_denied"): 1,
            ("Generate", "permission_denied"): 1,
            ("Control", "duplicate_instance"): 1,
            ("Generate", "tenant_limit"): 1,
        }

        async def counted() -> bool:
            return await counts(scheduler) == expected

        await eventually(counted, within_s=5.0, what="the page to have every refusal, and no other end")
        first.cancel()
        executor.control.cancel()


@pytest.mark.parametrize("code", sorted(reason.code for reason in REFUSALS))
def test_every_limit_and_every_denial_is_a_refusal(code: str) -> None:
    assert code.lower() in CALLS_REFUSED.labels["reason"]


async def test_refusals_of_a_sessions_requests_count_too(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "telemetry": {"metrics_listen": "127.0.0.1:0"},
        "tenants": {"b": {"tokens_per_minute": 1}},
    }
    async with (
        guarded(tmp_path, **settings) as scheduler,
        grpc.aio.insecure_channel(f"127.0.0.1:{scheduler.port}") as channel,
    ):
        stub: Any = inference_pb2_grpc.InferenceServiceStub(channel)
        call = stub.Session(metadata=proof("app"))
        first = inference_pb2.SessionRequest(open=inference_pb2.Open(protocol_version=PROTOCOL_VERSION))
        first.submit.add(handle=1, request=request(tenant="b"))
        await call.write(first)

        async def counted() -> bool:
            return await counts(scheduler) == {("Session", "permission_denied"): 1}

        await eventually(counted, within_s=10, what="the refusal to be counted")
        call.cancel()
