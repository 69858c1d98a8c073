from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from executor_svc.engine.simulated.faults import Fault, FaultKind
from sage_client import TenantLimitError, UnknownModelError
from scheduler_svc.domain.pd.pairs import PairState
from tests.integration.stack.prometheus_server import PrometheusServer
from tests.integration.system.local_fleet import LocalFleet
from tests.integration.telemetry.otlp_receiver import OtlpReceiver
from tests.support.eventually import eventually
from tests.support.free_port import free_ports

LIMITED = "limited"  # a tenant that may have no tokens
ADAPTER = "legal"
LONG = "Once upon a time there was a prompt. " * 8
HANDOVER = {"connector": "NixlConnector", "handshake_s": 0.001, "pull_base_s": 0.005}
ROLES = {"executor-prefill": "prefilling", "executor-decode": "decoding", "executor-other": "decoding"}
PACE_S = 0.05  # between two requests: the fleet, its clients and Prometheus share one machine
SPLITTING = {"enabled": True, "routing_policy": "threshold", "prefilling_threshold_input_tokens": 50}

ROLES_CHANGE = {"enabled": True, "interval_s": 0.2, "delay_s": 0.4, "pressed": 1_000.0}  # only where a side is empty
SCALING = {"enabled": True, "interval_s": 0.5, "up_delay_s": 1.0}  # half of the requests miss: more are desired


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """A fleet that splits, works and has had its failures, and the Prometheus that watches it."""

    fleet: LocalFleet
    prometheus: PrometheusServer
    executor_port: int  # of one executor's page

    @property
    def scheduler_port(self) -> int:
        return self.fleet.scheduler.telemetry.exports.metrics_port


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    *ports, own_port = free_ports(len(ROLES) + 1)
    pages = dict(zip(ROLES, ports, strict=True))
    config: dict[str, Any] = {
        "pd_separation": SPLITTING,
        "recording": {"file": tmp_path_factory.mktemp("recording") / "log.jsonl"},
        "journal": {"url": f"sqlite:///{tmp_path_factory.mktemp('journal')}/journal.db"},
        "tenants": {LIMITED: {"tokens_per_minute": 1}},
        "scaling": SCALING,
        "automatic_roles": ROLES_CHANGE,
    }
    async with OtlpReceiver() as receiver, LocalFleet(telemetry=told(receiver, 0), **config) as fleet:
        for name, role in ROLES.items():
            settings = {"telemetry": told(receiver, pages[name]), "role": role, "price_per_hour": 1.0}
            await fleet.add(name, settings=settings, kv_transfer=HANDOVER, adapter_slots=1)
        scheduler = {"scheduler:9464": fleet.scheduler.telemetry.exports.metrics_port}
        targets = {"scheduler": scheduler, "executor": pages}
        async with PrometheusServer(tmp_path_factory.mktemp("prometheus"), own_port, targets) as prometheus:
            await history(fleet)
            working = asyncio.create_task(keep_working(fleet), name="requests")
            yield Stack(fleet=fleet, prometheus=prometheus, executor_port=pages["executor-decode"])
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working


def told(receiver: OtlpReceiver, port: int) -> dict[str, Any]:
    """The section ``telemetry``: everything on."""
    return {
        "otlp_endpoint": receiver.endpoint,
        "metrics_listen": f"127.0.0.1:{port}",
        "trace_push_interval_s": 0.05,
    }


async def history(fleet: LocalFleet) -> None:
    """What fleets go through: refusals, limits, handoffs and outputs that fail, roles and adapters that change."""
    pairs = fleet.scheduler.control.scheduler.pairs()
    await eventually(lambda: sum(pair.state is PairState.USABLE for pair in pairs) >= 2, what="two usable pairs")
    with pytest.raises(UnknownModelError):
        await fleet.client.generate("Hello", model="nobody-serves-this").result()
    await fleet.client.generate("Hello", max_tokens=8, tenant=LIMITED).result()  # which uses its tokens up
    with pytest.raises(TenantLimitError):
        await fleet.client.generate("Hello", tenant=LIMITED).result()
    await fleet.client.set_shadow_policy("slo_aware")
    for name in ("removed", ADAPTER):
        await fleet.client.add_adapter(name, f"org/{name}")
        await fleet.client.generate("Hello", adapter=name, max_tokens=2).result()
        if name != ADAPTER:
            await fleet.client.remove_adapter(name)
    for fault in (Fault(kind=FaultKind.KV_CONNECT), Fault(kind=FaultKind.ERROR, after_tokens=3)):
        for name, role in ROLES.items():
            if role == "decoding":
                fleet.executors[name].engine.inject(fault)
        await fleet.client.generate(LONG, max_tokens=8).result()
    await change_roles(fleet)


async def change_roles(fleet: LocalFleet) -> None:
    """Drain the only prefill executor, so that another one gets its role; then all is as before."""
    roles = fleet.scheduler.control.roles
    await fleet.client.drain_instance("executor-prefill")
    await eventually(lambda: bool(roles.changes), what="a role to change")
    await fleet.client.resume_instance("executor-prefill")
    for name, role in ROLES.items():
        await fleet.client.set_instance_role(name, role)


async def keep_working(fleet: LocalFleet) -> None:
    """Requests of several classes, half of them with a target that nobody can meet, until it is cancelled."""
    for number in range(100_000):
        await fleet.client.generate("Short, so it is not split", max_tokens=2, adapter=ADAPTER).result()
        await fleet.client.generate(
            f"{LONG} {number}",
            max_tokens=20,
            priority=("critical", "normal", "low")[number % 3],
            ttft_target=0.000_001 if number % 2 else 10.0,
            tpot_target=1.0,
        ).result()
        await asyncio.sleep(PACE_S)
