"""A fleet with identities and tight bounds, and an operator who undoes what the fuzzer does to its executors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc

from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc, common_pb2
from sage_client import AsyncClient
from sage_common import keys_file
from sage_common.grants import Grant, Role
from sage_common.keys_file import Key, hash_of
from scheduler_svc.access import rpcs
from tests.fuzz.contract_rpcs import Rpc
from tests.fuzz.fuzzer import Identity
from tests.integration.pd.pd_fleet import KV
from tests.integration.system.local_fleet import LocalFleet
from tests.support.eventually import eventually

GRANTS = {
    "witness": Grant(role=Role.APPLICATION, tenant="witness"),
    "application": Grant(role=Role.APPLICATION, tenant="fuzz"),
    "gateway": Grant(role=Role.GATEWAY, tenants=("fuzz-*",)),
    "operator": Grant(role=Role.OPERATOR),
    "observer": Grant(role=Role.OBSERVER),
    "rogue": Grant(role=Role.EXECUTOR, instances=("rogue-*",)),
    "fleet": Grant(role=Role.EXECUTOR, instances=("real-*",)),
}
"""Identities by name; each one's key is ``key-`` and its name."""

CALLERS = ("application", "gateway", "operator", "observer", "rogue")  # the fuzzer's
REAL = ("real-1", "real-2")
SEES_EVERY_TENANT = frozenset({"operator", "observer"})
TENANT_DEFAULT = {"waiting_limit": 50, "running_limit": 4}
SETTINGS: dict[str, Any] = {
    "queue": {"limit_per_model": 300, "orphan_timeout_s": 2.0, "default_deadline_s": 20.0},
    "record": {"requests": 50, "memory_bytes": 4 * 2**20},
    "instance": {"forget_after_s": 2.0, "probation_s": 0.2},
    "prefix": {"max_index_bytes": 2**20},
    "detached": {"default_deadline_s": 20.0, "keep_result_s": 5.0, "keep_result_limit_s": 10.0, "tenant_requests": 100},
    "tenant_default": TENANT_DEFAULT,
    "tenants": {"witness": {}},
    "telemetry": {"metrics_listen": "127.0.0.1:0"},
    "pd_separation": {"enabled": True},
}
ENGINE: dict[str, Any] = {
    "step_base_s": 0.001,
    "prefill_tokens_per_s": 1e6,
    "kv_capacity_tokens": 1_048_576,
    "kv_transfer": KV,
}
UNDO_EVERY_S = 0.1
IDLE_WITHIN_S = 40.0


class FuzzedFleet(LocalFleet):
    """A scheduler with two executors; its own client is the operator's."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        keys = directory / "keys.toml"
        for name, grant in GRANTS.items():
            keys_file.add(keys, Key(name=name, sha256=hash_of(f"key-{name}"), grant=grant))
        super().__init__(access={"keys_file": keys}, state_dir=directory / "state", **SETTINGS)

    def new_client(self, token: str = "key-operator", **options: Any) -> AsyncClient:
        return super().new_client(token=token, **options)

    async def add_real(self) -> None:
        """Start the executors that serve the witnesses."""
        token = self._directory / "fleet.token"
        token.write_text("key-fleet\n")
        for instance_id in REAL:
            await self.add(instance_id, settings={"token_file": token, "role": "hybrid"}, **ENGINE)

    async def undo(self) -> None:
        """Take back what the fuzzer did as an operator to the real instances, again and again, until cancelled."""
        admin: Any = admin_pb2_grpc.AdminServiceStub(self.channel())
        proof = metadata_of("operator")
        while True:
            await asyncio.sleep(UNDO_EVERY_S)
            for instance_id in REAL:
                with suppress(grpc.aio.AioRpcError):  # nothing to take back
                    await admin.ResumeInstance(admin_pb2.ResumeInstanceRequest(instance_id=instance_id), metadata=proof)
                role = admin_pb2.SetInstanceRoleRequest(instance_id=instance_id, role=common_pb2.INSTANCE_ROLE_HYBRID)
                await admin.SetInstanceRole(role, metadata=proof)

    async def until_idle(self) -> None:
        """Wait until nothing is left of any request: no attempt, no reservation, no byte that counts."""
        await eventually(lambda: not self.left_over(), within_s=IDLE_WITHIN_S, what="the fleet to be idle", every_s=0.1)

    def left_over(self) -> dict[str, Any]:
        """Return what is left of requests in the scheduler and in the real executors; empty if nothing is."""
        control = self.scheduler.control
        for name in self.executors:
            control.intake.ends.release_all(name)  # kept a minute for readers, who do not come any more
        found = {
            "live requests": len(control.requests),
            "attempts": len(control.attempts),
            "bytes of prompts": control.intake._memory.total,
            "reservations": control.scheduler.live_attempts(),
        }
        for name, executor in self.executors.items():
            assert executor._service is not None
            found[f"attempts held by {name}"] = len(executor._service.attempts.held)
        return {what: count for what, count in found.items() if count}


def metadata_of(name: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata that proves an identity."""
    return (("authorization", f"Bearer key-{name}"),)


def identities(rpc: Rpc) -> tuple[Sequence[Identity], Sequence[Identity]]:
    """Return who may call an RPC, and who may not, one that says nothing of itself among them."""
    rule = rpcs.RULES.get(rpc.path)
    allowed = {name for name in CALLERS if rule is None or GRANTS[name].role in rule.roles}
    may = [_identity(name) for name in CALLERS if name in allowed]
    return may, [*(_identity(name) for name in CALLERS if name not in allowed), Identity(name="nobody", metadata=())]


def _identity(name: str) -> Identity:
    return Identity(
        name=name,
        metadata=metadata_of(name),
        tenant="fuzz-1" if name == "gateway" else "",
        sees_every_tenant=name in SEES_EVERY_TENANT,
    )
