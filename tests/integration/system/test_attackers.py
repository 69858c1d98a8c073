"""What an attacker tries against a fleet with TLS and identities: every attempt is refused, and nobody else notices."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

import sage_client as sage
from executor_svc.runtime.engine_port import Sampling
from sage.controlplane.v1 import executor_pb2, executor_pb2_grpc
from sage_client import Accepted, AsyncClient, AsyncStream, InstanceState, Tokens
from sage_common import keys_file
from sage_common.grants import Grant, Role
from sage_common.keys_file import Key, hash_of
from sage_wire.protocol import PROTOCOL_VERSION
from scheduler_svc.access.audit import LOGGER
from tests.integration.system.local_fleet import MODEL, LocalExecutor, LocalFleet
from tests.support.authority import Authority, needs_openssl
from tests.support.eventually import eventually
from tests.support.lost_status import with_status
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

pytestmark = needs_openssl

PROMPT = "Once upon a time"
WITHIN_S = 5.0
LENGTH = 400
GRANTS = {
    "alice": Grant(role=Role.APPLICATION, tenant="alice"),
    "mallory": Grant(role=Role.APPLICATION, tenant="mallory"),
    "op": Grant(role=Role.OPERATOR),
    "obs": Grant(role=Role.OBSERVER),
    "host-a": Grant(role=Role.EXECUTOR, instances=("a",)),
    "host-m": Grant(role=Role.EXECUTOR, instances=("m",)),
    "twin": Grant(role=Role.EXECUTOR, instances=("a",)),
}
"""Identities by name; each one's key is ``key-`` and its name."""


class SecureFleet(LocalFleet):
    """A fleet with TLS and a keys file; its own client is the operator's."""

    def __init__(self, directory: Path, authority: Authority, **settings: Any) -> None:
        self.directory, self.authority = directory, authority
        self.keys = directory / "keys.toml"
        self.calls: list[Any] = []
        for name, grant in GRANTS.items():
            keys_file.add(self.keys, Key(name=name, sha256=hash_of(f"key-{name}"), grant=grant))
        certificate, key = authority.issue("scheduler")
        self.tls = {"certificate": certificate, "private_key": key}
        super().__init__(tls=self.tls, access={"keys_file": self.keys}, **settings)

    def new_client(self, token: str = "key-op", **options: Any) -> AsyncClient:
        return super().new_client(token=token, tls_ca=self.authority.certificate, **options)

    def caller(self, name: str) -> AsyncClient:
        return self.new_client(token=f"key-{name}")

    def stub(self) -> Any:
        """ExecutorService, for calls with the credentials that ``proof`` gives."""
        credentials = grpc.ssl_channel_credentials(self.authority.certificate.read_bytes())
        channel = grpc.aio.secure_channel(self.address, credentials)
        self._channels.append(channel)
        return executor_pb2_grpc.ExecutorServiceStub(channel)

    async def executor(self, instance_id: str, holder: str) -> LocalExecutor:
        token = self.directory / f"{holder}.token"
        token.write_text(f"key-{holder}\n")
        settings = {"tls": {"ca": self.authority.certificate}, "token_file": token}
        return await self.add(instance_id, settings=settings, step_base_s=0.002)


def proof(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer key-{name}"),)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def fleet(tmp_path: Path, authority: Authority) -> AsyncIterator[SecureFleet]:
    async with SecureFleet(tmp_path, authority) as fleet:
        await fleet.executor("a", "host-a")
        yield fleet


@pytest.fixture
async def witness(fleet: SecureFleet) -> AsyncStream:
    """A stream of Alice's that runs while the attack is made."""
    stream = fleet.caller("alice").generate(PROMPT, temperature=0, max_tokens=LENGTH, request_id="hers")
    while not isinstance(await anext(stream), Tokens):
        pass
    return stream


async def assert_unharmed(fleet: SecureFleet, witness: AsyncStream) -> None:
    wanted = (await answer(PROMPT, Sampling(temperature=0, max_tokens=LENGTH))).token_ids
    done = await witness.result()
    assert_tokens(done.token_ids, wanted)
    assert done.attempts == 1
    assert (await fleet.instance("a")).state is InstanceState.READY


async def registered(fleet: SecureFleet, holder: str, instance_id: str, **fields: Any) -> executor_pb2.Welcome:
    """Register an instance as an attacker would.  Raises AioRpcError where it is refused."""
    call: Any = fleet.stub().Control(metadata=proof(holder), timeout=WITHIN_S)
    register = executor_pb2.Register(
        protocol_version=PROTOCOL_VERSION, instance_id=instance_id, model=MODEL, **{"engine_start_id": "x", **fields}
    )
    await call.write(executor_pb2.ControlRequest(register=register))
    answer = await call.read()
    assert isinstance(answer, executor_pb2.ControlResponse)
    fleet.calls.append(call)  # one that is collected is cancelled
    return answer.welcome


async def outputs_answer(fleet: SecureFleet, holder: str, session_id: str) -> Any:
    """Open the output stream of a session.  Raises AioRpcError where it is refused."""
    call: Any = fleet.stub().Outputs(metadata=proof(holder), timeout=WITHIN_S)
    await call.write(executor_pb2.OutputsRequest(hello=executor_pb2.Hello(session_id=session_id)))
    return await call.read()


async def refused(code: grpc.StatusCode, attack: Callable[..., Awaitable[Any]], *args: Any, **fields: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await with_status(lambda: attack(*args, **fields))
    assert error.value.code() is code


async def test_taking_over_a_live_executor_with_what_is_listed(fleet: SecureFleet, witness: AsyncStream) -> None:
    """As the holder of another executor's key, and as one that may register this very id."""
    shown = await fleet.caller("obs").get_instance("a")
    assert "start" not in " ".join(shown.__slots__)
    known = {"price_per_hour": shown.price_per_hour, "software_version": shown.software_version}
    await refused(grpc.StatusCode.PERMISSION_DENIED, registered, fleet, "host-m", "a", **known)
    await refused(grpc.StatusCode.ALREADY_EXISTS, registered, fleet, "twin", "a", **known)
    start = fleet.scheduler.control.scheduler.instance("a").spec.engine_start_id
    for secret in (b"", b"guess", bytes(16)):
        stolen = {"engine_start_id": start, "resume_secret": secret}
        await refused(grpc.StatusCode.ALREADY_EXISTS, registered, fleet, "twin", "a", **stolen)
    await assert_unharmed(fleet, witness)


async def test_opening_the_output_stream_of_anothers_session(fleet: SecureFleet, witness: AsyncStream) -> None:
    session = fleet.scheduler.control.instances.table.find("a")
    assert session is not None
    for holder, session_id in (("host-m", session.session_id), ("host-a", "guess"), ("twin", session.session_id)):
        await refused(grpc.StatusCode.FAILED_PRECONDITION, outputs_answer, fleet, holder, session_id)
    await assert_unharmed(fleet, witness)


async def test_writing_into_another_executors_streams(fleet: SecureFleet, witness: AsyncStream) -> None:
    """An executor with a session of its own sends tokens and ends for attempts that are not its own."""
    welcome = await registered(fleet, "host-m", "m")
    call: Any = fleet.stub().Outputs(metadata=proof("host-m"), timeout=WITHIN_S)
    await call.write(executor_pb2.OutputsRequest(hello=executor_pb2.Hello(session_id=welcome.session_id)))
    for number in range(20):
        forged = executor_pb2.AssignmentTokens(
            attempt_number=number, first_index=witness.next_token, token_ids=[1, 2, 3], text="forged"
        )
        await call.write(executor_pb2.OutputsRequest(frame=executor_pb2.Frame(tokens=[forged])))
        columns = executor_pb2.StepFrame(
            attempt_numbers=[number], first_indexes=[witness.next_token], token_ids=[1], text_lengths=[6], text="forged"
        )
        await call.write(executor_pb2.OutputsRequest(step=columns))
        ended = executor_pb2.AssignmentEnded(attempt_number=number, cause=executor_pb2.AssignmentEnded.CAUSE_FAILED)
        await call.write(executor_pb2.OutputsRequest(ended=ended))
        await call.write(
            executor_pb2.OutputsRequest(rejected=executor_pb2.AssignmentRejected(attempt_number=number, message="no"))
        )
    await assert_unharmed(fleet, witness)


async def test_registering_as_an_executor_with_another_roles_key(fleet: SecureFleet, witness: AsyncStream) -> None:
    for name in ("mallory", "op", "obs"):
        for instance_id in ("m", "a"):
            await refused(grpc.StatusCode.PERMISSION_DENIED, registered, fleet, name, instance_id)
    assert [i.instance_id for i in (await fleet.client.list_instances()).instances] == ["a"]
    await assert_unharmed(fleet, witness)


async def test_reaching_for_another_tenants_request(fleet: SecureFleet, witness: AsyncStream) -> None:
    mallory = fleet.caller("mallory")
    for tenant in ("", "alice"):
        with pytest.raises(sage.RequestNotFoundError):
            await mallory.cancel("hers", tenant=tenant)
        with pytest.raises(sage.RequestNotFoundError):
            await mallory.explain("hers", tenant=tenant)
    with pytest.raises(sage.AuthenticationError, match="tenant") as denied:
        await mallory.generate(PROMPT, temperature=0, max_tokens=LENGTH, request_id="hers", tenant="alice").result()
    assert denied.value.reason == "PERMISSION_DENIED"
    stream = mallory.generate(PROMPT, temperature=0, max_tokens=LENGTH, request_id="hers", after_token=0)
    accepted = await anext(stream)
    assert isinstance(accepted, Accepted)
    assert not accepted.attached, "the same id of another tenant is another request"
    await stream.cancel()
    async for snapshot in mallory.watch_fleet():
        assert snapshot.decisions
        assert not any(decision.tenant or decision.request_id for decision in snapshot.decisions)
        break
    await assert_unharmed(fleet, witness)


async def test_changing_how_the_control_plane_works(fleet: SecureFleet, witness: AsyncStream) -> None:
    for name in ("mallory", "obs", "host-m"):
        caller = fleet.caller(name)
        for attempt in (
            caller.set_policy("priority"),
            caller.drain_instance("a"),
            caller.resume_instance("a"),
            caller.set_instance_role("a", "decoding"),
            caller.set_prefill_decode("always"),
        ):
            with pytest.raises(sage.AuthenticationError):
                await attempt
    assert (await fleet.client.get_policy()).policy == "fifo"
    await assert_unharmed(fleet, witness)


async def test_without_a_key_with_a_wrong_one_and_without_tls(
    fleet: SecureFleet, witness: AsyncStream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    for token in ("", "key-nobody", hash_of("key-op"), "e30.e30."):
        with pytest.raises(sage.AuthenticationError):
            await fleet.new_client(token=token).list_instances()
    plain = LocalFleet.new_client(fleet, token="key-op")
    with pytest.raises(sage.UnavailableError):
        await plain.list_instances()
    with socket.create_connection(("127.0.0.1", fleet.scheduler.port)) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
    await assert_unharmed(fleet, witness)
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert sum("refused: ListInstances by 'unknown'" in line for line in lines) == 4
    assert not any(PROMPT in line or "key-" in line for line in lines)


async def test_a_key_that_is_taken_away_opens_nothing_more(fleet: SecureFleet, witness: AsyncStream) -> None:
    mallory = fleet.caller("mallory")
    await mallory.list_instances()
    text = fleet.keys.read_text()
    fleet.keys.write_text(text.replace(hash_of("key-mallory"), hash_of("another")))
    fleet.scheduler.reload()

    async def is_refused() -> bool:
        try:
            await mallory.list_instances()
        except sage.AuthenticationError:
            return True
        return False

    await eventually(is_refused, what="the key to be refused")
    await assert_unharmed(fleet, witness)


async def test_a_new_certificate_is_shown_without_a_restart(fleet: SecureFleet, tmp_path: Path) -> None:
    """New handshakes use it; connections that are open go on."""
    other = Authority(tmp_path / "other")
    before, stranger = fleet.client, fleet.new_client()
    newer = LocalFleet.new_client(fleet, token="key-op", tls_ca=other.certificate)
    await before.list_instances()
    with pytest.raises(sage.UnavailableError):
        await newer.list_instances()
    for now, then in zip(fleet.tls.values(), other.issue("scheduler"), strict=True):
        now.write_bytes(then.read_bytes())
    fleet.scheduler.reload()

    async def trusted() -> bool:
        try:
            await newer.list_instances()
        except sage.UnavailableError:
            return False
        return True

    await eventually(trusted, what="the new certificate")
    await before.list_instances()
    with pytest.raises(sage.UnavailableError):
        await stranger.list_instances()
