"""When a key is taken back, what is open for its identity ends; what others have open goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc, common_pb2, inference_pb2_grpc
from sage_common import keys_file
from sage_common.grants import Grant, Role
from sage_common.keys_file import Key, hash_of
from scheduler_svc.wiring.scheduler_service import SchedulerService
from tests.unit.access.json_web_keys import AUDIENCE, SigningKey, write_jwks
from tests.unit.transport.served import WITHIN_S, WireExecutor, reason_of, refusal, serving
from tests.unit.transport.test_access import GRANTS, proof, request


def write_keys(path: Path, grants: dict[str, Grant]) -> None:
    path.write_text("")
    for name, grant in grants.items():
        keys_file.add(path, Key(name=name, sha256=hash_of(f"key-{name}"), grant=grant))


@asynccontextmanager
async def guarded(tmp_path: Path, **access: Any) -> AsyncIterator[tuple[SchedulerService, grpc.aio.Channel]]:
    write_keys(tmp_path / "keys.toml", GRANTS)
    async with (
        serving(access={"keys_file": tmp_path / "keys.toml", **access}) as scheduler,
        grpc.aio.insecure_channel(f"127.0.0.1:{scheduler.port}") as channel,
    ):
        yield scheduler, channel


async def ending(call: Any) -> str:
    """Read until the call ends, and return the reason."""
    async with asyncio.timeout(WITHIN_S):
        while not call.done():
            with suppress(grpc.aio.AioRpcError):
                await call.read()
    return reason_of(await refusal(call))


async def watching(channel: grpc.aio.Channel, metadata: Any) -> Any:
    call: Any = admin_pb2_grpc.AdminServiceStub(channel).WatchFleet(admin_pb2.WatchFleetRequest(), metadata=metadata)
    assert (await call.read()).HasField("snapshot")
    return call


async def test_open_calls_of_a_revoked_key_end_and_those_of_others_go_on(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (scheduler, channel):
        executor = WireExecutor(channel, metadata=proof("exe"))
        await executor.whole()
        streams: dict[str, Any] = {}
        for name in ("app", "other"):
            streams[name] = inference_pb2_grpc.InferenceServiceStub(channel).Generate(request(), metadata=proof(name))
            assert (await streams[name].read()).HasField("accepted")
        watchers = {name: await watching(channel, proof(name)) for name in ("obs", "op")}

        write_keys(
            tmp_path / "keys.toml", {name: grant for name, grant in GRANTS.items() if name not in ("app", "obs")}
        )
        scheduler.reload()

        for call in (streams["app"], watchers["obs"]):
            assert await ending(call) == "UNAUTHENTICATED"
        assert not any(call.done() for call in (streams["other"], watchers["op"], executor.control, executor.outputs))
        for each in (streams["other"], watchers["op"], executor.control):
            each.cancel()


async def test_the_session_of_a_revoked_executor_ends(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (scheduler, channel):
        executor = WireExecutor(channel, metadata=proof("exe"))
        await executor.whole()
        watcher = await watching(channel, proof("op"))
        write_keys(tmp_path / "keys.toml", {name: grant for name, grant in GRANTS.items() if name != "exe"})
        scheduler.reload()
        assert await ending(executor.control) == "UNAUTHENTICATED"
        assert await ending(executor.outputs) == "UNAUTHENTICATED"
        again = WireExecutor(channel, metadata=proof("exe"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await again.register()
        assert reason_of(refused.value) == "UNAUTHENTICATED"
        states = set()
        async with asyncio.timeout(WITHIN_S):
            while common_pb2.INSTANCE_STATE_LOST not in states and common_pb2.INSTANCE_STATE_SUSPECT not in states:
                snapshot = (await watcher.read()).snapshot
                states = {instance.state for instance in snapshot.instances}
        watcher.cancel()


async def test_a_key_that_grants_something_else_ends_what_it_opened(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (scheduler, channel):
        call = await watching(channel, proof("obs"))
        write_keys(tmp_path / "keys.toml", GRANTS | {"obs": Grant(role=Role.APPLICATION, tenant="a")})
        scheduler.reload()
        assert await ending(call) == "UNAUTHENTICATED"


async def test_tokens_of_a_removed_signing_key_end_and_a_reload_alone_ends_nothing(tmp_path: Path) -> None:
    gone, kept = SigningKey("gone"), SigningKey("kept")
    jwks = write_jwks(tmp_path / "jwks.json", gone, kept)
    settings = {"jwks_file": str(jwks), "audience": AUDIENCE}
    async with guarded(tmp_path, jwt=settings) as (scheduler, channel):
        calls = {key.kid: await watching(channel, (("authorization", f"Bearer {key.sign()}"),)) for key in (gone, kept)}
        calls["key"] = await watching(channel, proof("op"))
        scheduler.reload()
        await admin_pb2_grpc.AdminServiceStub(channel).GetPolicy(admin_pb2.GetPolicyRequest(), metadata=proof("op"))
        write_jwks(jwks, kept)
        scheduler.reload()
        assert await ending(calls["gone"]) == "UNAUTHENTICATED"
        assert not calls["kept"].done()
        assert not calls["key"].done()
        for name in ("kept", "key"):
            calls[name].cancel()
