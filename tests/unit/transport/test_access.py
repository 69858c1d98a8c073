"""Who may call what: the table of RPCs against the services as they are served, and what each caller is answered."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc, batch_pb2, common_pb2, inference_pb2, inference_pb2_grpc
from sage_common import keys_file
from sage_common.grants import Grant, Role
from sage_common.keys_file import Key, hash_of
from sage_wire.handlers import rewrapped
from scheduler_svc.access import rpcs
from scheduler_svc.access.audit import LOGGER
from scheduler_svc.access.identity import ANYONE, Identity, PermissionDenied
from scheduler_svc.control.watching.fleet_watch import WATCHERS_PER_CLIENT
from scheduler_svc.transport import access_interceptor, health
from scheduler_svc.transport.reflection import V1
from scheduler_svc.wiring.scheduler_service import SchedulerService
from tests.support.lost_status import with_status
from tests.unit.transport.served import MODEL, WITHIN_S, WireExecutor, reason_of, refusal, registration, serving

GRANTS = {
    "app": Grant(role=Role.APPLICATION, tenant="a"),
    "other": Grant(role=Role.APPLICATION, tenant="b"),
    "gate": Grant(role=Role.GATEWAY, tenants=("a", "c")),
    "op": Grant(role=Role.OPERATOR),
    "obs": Grant(role=Role.OBSERVER),
    "exe": Grant(role=Role.EXECUTOR, instances=("a",)),
    "exe2": Grant(role=Role.EXECUTOR, instances=("b",)),
}
"""A caller of each kind; its key is ``key-`` and its name."""


@asynccontextmanager
async def guarded(directory: Path, **settings: Any) -> AsyncIterator[SchedulerService]:
    path = directory / "keys.toml"
    for name, grant in GRANTS.items():
        keys_file.add(path, Key(name=name, sha256=hash_of(f"key-{name}"), grant=grant))
    async with serving(access={"keys_file": path}, **settings) as scheduler:
        yield scheduler


@pytest.fixture
async def scheduler(tmp_path: Path) -> AsyncIterator[SchedulerService]:
    async with guarded(tmp_path) as scheduler:
        yield scheduler


def proof(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer key-{name}"),) if name else ()


@pytest.fixture
async def channel(scheduler: SchedulerService) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{scheduler.port}") as channel:
        yield channel


# --- the table ------------------------------------------------------------------------------------


class Recorder:
    """Takes the place of a gRPC server, and keeps the names of the RPCs that are registered with it."""

    def __init__(self) -> None:
        self.methods: set[str] = set()

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        for handler in handlers:
            self.methods |= set(handler._method_handlers)

    def add_registered_method_handlers(self, service: str, methods: dict[str, Any]) -> None:
        self.methods |= {f"/{service}/{method}" for method in methods}


async def test_every_rpc_that_is_served_has_a_row_and_no_other_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    server = grpc.aio.server

    def made(**options: Any) -> grpc.aio.Server:
        real = server(**options)
        for name in ("add_generic_rpc_handlers", "add_registered_method_handlers"):
            taken = getattr(recorder, name)
            passed_on = getattr(real, name)
            monkeypatch.setattr(real, name, lambda *a, t=taken, p=passed_on: (t(*a), p(*a)))
        return real

    monkeypatch.setattr(grpc.aio, "server", made)
    async with serving():
        pass
    assert recorder.methods == set(rpcs.RULES)


def test_an_rpc_without_a_row_is_refused_to_everyone() -> None:
    for role in (None, *Role):
        grant = next((grant for grant in GRANTS.values() if grant.role is role), None)
        with pytest.raises(PermissionDenied, match="may not call New"):
            rpcs.check(Identity(name="x", grant=grant), "/sage.controlplane.v1.AdminService/New")


def test_who_changes_something_is_an_operator_and_is_audited() -> None:
    changing = {method for method, rule in rpcs.RULES.items() if rule.action}
    assert {method.rpartition("/")[2][:3] for method in changing} == {
        *("Set", "Dra", "Res", "Com", "Exp", "Add", "Rem", "Sle", "Wak"),
    }
    assert all(rpcs.RULES[method].roles == {Role.OPERATOR} for method in changing)


def test_only_health_checks_are_public() -> None:
    public = {method for method, rule in rpcs.RULES.items() if rule.public}
    assert public == {f"/grpc.health.v1.Health/{name}" for name in ("Check", "List", "Watch")}


# --- every RPC, every caller ------------------------------------------------------------------------------------------


def calls() -> Iterator[tuple[str, str, bool]]:
    for method, rule in rpcs.RULES.items():
        for name, grant in GRANTS.items():
            yield method, name, grant.role in rule.roles
        yield method, "", rule.public


async def outcome(channel: grpc.aio.Channel, method: str, name: str) -> grpc.StatusCode:
    """How a call with an empty message ends; OK for a stream that goes on."""
    try:
        return await with_status(lambda: _ended(channel, method, name))
    except grpc.aio.AioRpcError as error:
        return error.code()


async def _ended(channel: grpc.aio.Channel, method: str, name: str) -> grpc.StatusCode:
    call: Any = channel.stream_stream(method, request_serializer=None, response_deserializer=None)(
        metadata=proof(name), timeout=WITHIN_S
    )
    try:
        await call.write(b"")
        await call.done_writing()
        await call.read()
        if not call.done():
            return grpc.StatusCode.OK
        code: grpc.StatusCode = await call.code()
        return code
    finally:
        call.cancel()


REFUSED = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}
TENANT_NAMED = ("/Generate", "/Embed", "/Submit", "/List", "/SubmitBatch", "/ListBatches", "/ListFiles")


async def test_every_rpc_answers_those_of_its_row_and_refuses_all_others(channel: grpc.aio.Channel) -> None:
    for method, name, allowed in calls():
        ended = await outcome(channel, method, name)
        if allowed and not method.endswith(TENANT_NAMED):  # a gateway has to name a tenant there
            assert ended not in REFUSED, (method, name)
        elif not allowed:
            wanted = grpc.StatusCode.PERMISSION_DENIED if name else grpc.StatusCode.UNAUTHENTICATED
            assert ended is wanted, (method, name)


async def test_a_key_that_is_not_known_opens_nothing(channel: grpc.aio.Channel) -> None:
    for method, rule in rpcs.RULES.items():
        if not rule.public:
            assert await outcome(channel, method, "nobody") is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("name", ["", "nobody", "obs"])
async def test_a_message_of_one_who_may_not_call_is_not_decoded(channel: grpc.aio.Channel, name: str) -> None:
    """Work that is done before the check would be done for everyone."""
    for method in ("InferenceService/Generate", "AdminService/SetPolicy"):
        call: Any = channel.unary_unary(f"/sage.controlplane.v1.{method}")
        error = await refused(call(b"\xff" * 1_000, metadata=proof(name), timeout=WITHIN_S))
        assert error.code() in REFUSED


@pytest.mark.parametrize("name", ["", "nobody", "obs"])
async def test_one_who_may_not_call_is_refused_before_a_message_comes(channel: grpc.aio.Channel, name: str) -> None:
    """gRPC would keep up to 16 MiB of each call of nobody's, for as long as its last byte does not come."""
    for method in ("InferenceService/Generate", "AdminService/SetPolicy", "ExecutorService/Control"):
        call: Any = channel.stream_stream(f"/sage.controlplane.v1.{method}")(metadata=proof(name), timeout=WITHIN_S)
        assert (await refused(call.read())).code() in REFUSED


async def test_one_of_two_tokens_is_not_chosen(channel: grpc.aio.Channel) -> None:
    """A proxy in front may have checked the other one."""
    admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
    for names in (("op", "nobody"), ("nobody", "op"), ("op", "op")):
        metadata = tuple(header for name in names for header in proof(name))
        error = await refused(admin.GetPolicy(admin_pb2.GetPolicyRequest(), metadata=metadata))
        assert reason_of(error) == "UNAUTHENTICATED"


async def test_without_identities_everyone_may_call_everything() -> None:
    async with serving() as scheduler, grpc.aio.insecure_channel(f"127.0.0.1:{scheduler.port}") as channel:
        for method in rpcs.RULES:
            assert await outcome(channel, method, "") not in REFUSED, method


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
def test_every_kind_of_handler_is_wrapped(kind: str) -> None:
    """One that an interceptor passed on as it is would be open to everyone."""
    made = getattr(grpc, f"{kind}_rpc_method_handler")(lambda request, context: None)
    unary, stream = object(), object()
    wrapped = rewrapped(made, unary=lambda call: unary, stream=lambda call: stream, decoder=None)
    assert getattr(wrapped, kind) is (unary if kind.endswith("unary") else stream)


# --- tenants --------------------------------------------------------------------------------------


def request(request_id: str = "r", **fields: Any) -> inference_pb2.GenerateRequest:
    spec = inference_pb2.GenerationSpec(
        model=MODEL,
        tokens=inference_pb2.TokenIds(ids=[1, 2, 3]),
        sampling=common_pb2.SamplingParams(max_tokens=100),
    )
    return inference_pb2.GenerateRequest(request_id=request_id, spec=spec, **fields)


@asynccontextmanager
async def running(channel: grpc.aio.Channel, name: str, **fields: Any) -> AsyncIterator[Any]:
    """A request of a caller that was accepted and does not end."""
    call: Any = inference_pb2_grpc.InferenceServiceStub(channel).Generate(request(**fields), metadata=proof(name))
    try:
        assert (await call.read()).HasField("accepted")
        yield call
    finally:
        call.cancel()


@pytest.fixture
async def instance(channel: grpc.aio.Channel) -> AsyncIterator[WireExecutor]:
    """An instance that takes work and says nothing more."""
    executor = WireExecutor(channel, metadata=proof("exe"))
    await executor.whole()
    yield executor
    executor.control.cancel()


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


async def test_another_tenants_name_is_refused_and_the_field_is_named(channel: grpc.aio.Channel) -> None:
    stub: Any = inference_pb2_grpc.InferenceServiceStub(channel)
    for name, tenant in (("app", "b"), ("app", "default"), ("gate", "b"), ("gate", "")):
        error = await refused(stub.Generate(request(tenant=tenant), metadata=proof(name)).read())
        assert reason_of(error) == "PERMISSION_DENIED"
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it reads what both kinds of call have
        assert status is not None
        named = error_details_pb2.BadRequest()
        assert any(detail.Unpack(named) for detail in status.details)
        assert [violation.field for violation in named.field_violations] == ["tenant"]


async def test_a_request_belongs_to_its_callers_tenant(
    scheduler: SchedulerService, channel: grpc.aio.Channel, instance: WireExecutor
) -> None:
    async with running(channel, "app"), running(channel, "gate", tenant="c"):
        tenants = {str(live.key) for live in scheduler.control.requests}
    assert tenants == {"a/r", "c/r"}


@pytest.mark.parametrize("named", ["", "a", "b"])
async def test_another_tenants_request_is_as_if_it_were_not_there(
    channel: grpc.aio.Channel, instance: WireExecutor, named: str
) -> None:
    """The answer about an id of another tenant is that about an id of nobody, to the letter."""
    inference: Any = inference_pb2_grpc.InferenceServiceStub(channel)
    admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
    async with running(channel, "app"):
        for call, message in (
            (inference.Cancel, inference_pb2.CancelRequest),
            (admin.Explain, admin_pb2.ExplainRequest),
        ):
            there = await refused(call(message(request_id="r", tenant=named), metadata=proof("other")))
            nowhere = await refused(call(message(request_id="s", tenant=named), metadata=proof("other")))
            assert reason_of(there) == "REQUEST_NOT_FOUND"
            assert str(there.details()).replace("'r'", "'s'") == nowhere.details()
        for name in ("app", "gate", "op", "obs"):
            tenant = "" if name == "app" else "a"
            await admin.Explain(admin_pb2.ExplainRequest(request_id="r", tenant=tenant), metadata=proof(name))


async def test_detached_work_is_seen_by_its_tenant_alone(tmp_path: Path) -> None:
    async with (
        guarded(tmp_path, state_dir=tmp_path / "state") as scheduler,
        grpc.aio.insecure_channel(f"127.0.0.1:{scheduler.port}") as channel,
    ):
        await WireExecutor(channel, metadata=proof("exe")).whole()
        stub: Any = inference_pb2_grpc.InferenceServiceStub(channel)
        submitted = inference_pb2.SubmitRequest(request_id="r", spec=request().spec)
        assert not (await stub.Submit(submitted, metadata=proof("app"))).accepted.attached
        assert not (await stub.Submit(submitted, metadata=proof("other"))).accepted.attached, "ids are a tenant's"
        for name, tenant in (("app", ""), ("app", "a"), ("gate", "a")):
            got = await stub.Get(inference_pb2.GetRequest(request_id="r", tenant=tenant), metadata=proof(name))
            assert (got.request.tenant, got.request.detached) == ("a", True)
            listed = await stub.List(inference_pb2.ListRequest(tenant=tenant), metadata=proof(name))
            assert [(each.tenant, each.request_id) for each in listed.requests] == [("a", "r")]
        for name, tenant in (("app", "b"), ("gate", "b"), ("gate", "c")):
            there = await refused(
                stub.Get(inference_pb2.GetRequest(request_id="r", tenant=tenant), metadata=proof(name))
            )
            stream = stub.Attach(inference_pb2.AttachRequest(request_id="r", tenant=tenant), metadata=proof(name))
            for error in (there, await refused(stream.read())):
                assert reason_of(error) == "REQUEST_NOT_FOUND", (name, tenant)
        for call in (
            stub.List(inference_pb2.ListRequest(tenant="b"), metadata=proof("app")),
            stub.Submit(inference_pb2.SubmitRequest(tenant="b", spec=request().spec), metadata=proof("app")),
        ):
            assert reason_of(await refused(call)) == "PERMISSION_DENIED"


async def test_files_and_batches_are_seen_by_their_tenant_alone(tmp_path: Path) -> None:
    async with (
        guarded(tmp_path, state_dir=tmp_path / "state") as scheduler,
        grpc.aio.insecure_channel(f"127.0.0.1:{scheduler.port}") as channel,
    ):
        stub: Any = inference_pb2_grpc.InferenceServiceStub(channel)

        async def upload(tenant: str, name: str) -> Any:
            new = batch_pb2.NewFile(file_id="f", tenant=tenant)
            call = stub.UploadFile(metadata=proof(name))
            await call.write(batch_pb2.UploadFileRequest(file=new, content=b"{}"))
            await call.done_writing()
            return await call

        for name, tenant in (("app", "a"), ("other", "b")):
            assert not (await upload("", name)).existed, "ids are a tenant's"
            batch = inference_pb2.SubmitBatchRequest(batch_id="b", input_file_id="f")
            submitted = await stub.SubmitBatch(batch, metadata=proof(name))
            assert (submitted.batch.tenant, submitted.attached) == (tenant, False)
        assert (await upload("a", "gate")).existed
        for name, tenant in (("app", "b"), ("gate", "b"), ("gate", "c")):
            metadata = proof(name)
            stream = stub.DownloadFile(batch_pb2.DownloadFileRequest(file_id="f", tenant=tenant), metadata=metadata)
            for call, reason in (
                (stub.GetBatch(batch_pb2.GetBatchRequest(batch_id="b", tenant=tenant), metadata=metadata), "BATCH"),
                (
                    stub.CancelBatch(batch_pb2.CancelBatchRequest(batch_id="b", tenant=tenant), metadata=metadata),
                    "BATCH",
                ),
                (stub.GetFile(batch_pb2.GetFileRequest(file_id="f", tenant=tenant), metadata=metadata), "FILE"),
                (stub.DeleteFile(batch_pb2.DeleteFileRequest(file_id="f", tenant=tenant), metadata=metadata), "FILE"),
                (stream.read(), "FILE"),
            ):
                assert reason_of(await refused(call)) == f"{reason}_NOT_FOUND", (name, tenant)
        for call in (
            stub.ListFiles(batch_pb2.ListFilesRequest(tenant="b"), metadata=proof("app")),
            stub.ListBatches(batch_pb2.ListBatchesRequest(tenant="b"), metadata=proof("app")),
            upload("b", "app"),
        ):
            assert reason_of(await refused(call)) == "PERMISSION_DENIED"


async def test_the_same_id_of_another_tenant_is_another_request(
    channel: grpc.aio.Channel, instance: WireExecutor
) -> None:
    async with running(channel, "app"):
        call: Any = inference_pb2_grpc.InferenceServiceStub(channel).Generate(request(), metadata=proof("other"))
        assert not (await call.read()).accepted.attached
        call.cancel()


async def test_a_gateway_cancels_for_its_tenants_and_an_operator_for_all(
    channel: grpc.aio.Channel, instance: WireExecutor
) -> None:
    stub: Any = inference_pb2_grpc.InferenceServiceStub(channel)
    for name in ("gate", "op"):
        async with running(channel, "app"):
            answer = await stub.Cancel(inference_pb2.CancelRequest(request_id="r", tenant="a"), metadata=proof(name))
        assert answer.cancelled or name == "op", "the second one attached to the request that had ended"


async def test_who_watches_the_fleet_sees_requests_only_as_observer_or_operator(
    channel: grpc.aio.Channel, instance: WireExecutor
) -> None:
    admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
    async with running(channel, "app") as call:
        assert (await call.read()).HasField("scheduled")
        for name, seen in (("op", True), ("obs", True), ("app", False), ("other", False), ("gate", False)):
            watching = admin.WatchFleet(admin_pb2.WatchFleetRequest(), metadata=proof(name))
            snapshot = (await watching.read()).snapshot
            watching.cancel()
            (decision,) = snapshot.decisions
            assert ((decision.tenant, decision.request_id) == ("a", "r")) is seen, name
            assert seen or (decision.tenant, decision.request_id) == ("", ""), name


async def test_places_to_watch_from_are_counted_by_identity(channel: grpc.aio.Channel) -> None:
    """All come from one host here."""
    admin: Any = admin_pb2_grpc.AdminServiceStub(channel)

    def watching(name: str) -> Any:
        return admin.WatchFleet(admin_pb2.WatchFleetRequest(), metadata=proof(name))

    taken = [watching("obs") for _ in range(WATCHERS_PER_CLIENT)]
    for each in taken:
        await each.read()
    assert reason_of(await refused(watching("obs").read())) == "LIMIT_REACHED"
    other = watching("op")
    assert (await other.read()).HasField("snapshot")
    for each in (*taken, other):
        each.cancel()


async def test_the_log_names_the_callers_tenant(
    scheduler: SchedulerService,
    channel: grpc.aio.Channel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def breaks(*_: object) -> None:
        raise RuntimeError("swordfish")

    monkeypatch.setattr(scheduler.control.intake, "submit", breaks)
    stub: Any = inference_pb2_grpc.InferenceServiceStub(channel)
    await refused(stub.Generate(request(), metadata=proof("app")).read())
    (record,) = [record for record in caplog.records if "swordfish" in str(record.exc_info)]
    assert vars(record)["request"] == "a/r"


# --- executors ------------------------------------------------------------------------------------


async def test_an_executor_registers_only_the_instances_it_is_bound_to(channel: grpc.aio.Channel) -> None:
    executor = WireExecutor(channel, metadata=proof("exe2"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await executor.register(registration("a"))
    assert reason_of(error.value) == "PERMISSION_DENIED"
    await WireExecutor(channel, metadata=proof("exe")).register(registration("a"))


async def test_an_output_stream_is_of_the_identity_that_registered(
    channel: grpc.aio.Channel, instance: WireExecutor
) -> None:
    """Even one that found out the session's id."""
    thief = WireExecutor(channel, metadata=proof("exe2"))
    await thief.open_outputs(instance.welcome.session_id)
    assert reason_of(await refused(thief.outputs.read())) == "UNKNOWN_SESSION"
    assert not instance.outputs.done()


async def test_without_identities_too_what_is_listed_is_not_enough_to_take_an_executors_place() -> None:
    async with serving() as scheduler, grpc.aio.insecure_channel(f"127.0.0.1:{scheduler.port}") as channel:
        executor, thief = WireExecutor(channel), WireExecutor(channel)
        await executor.whole()
        admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
        shown = (await admin.GetInstance(admin_pb2.GetInstanceRequest(instance_id="a"))).instance
        for start in (shown.engine_start_id, "start"):  # the second one has it from elsewhere
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await thief.register(registration("a", engine_start_id=start))
            assert reason_of(error.value) == "DUPLICATE_INSTANCE"
            thief = WireExecutor(channel)
        await thief.register(registration("a", resume_secret=executor.welcome.resume_secret))


# --- health, reflection, listeners ------------------------------------------------------------------------------------


async def names_by_reflection(port: int, version: str) -> list[str]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(timeout=WITHIN_S)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer: Any = await call.read()
        if answer is grpc.aio.EOF:
            raise await refusal(call)
        call.cancel()
        return [service.name for service in answer.list_services_response.service]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_in_both_versions_can_be_switched_off(version: str) -> None:
    async with serving() as scheduler:
        assert health.ADMIN in await names_by_reflection(scheduler.port, version)
    async with serving(reflection=False) as scheduler:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await names_by_reflection(scheduler.port, version)
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert V1 == "grpc.reflection.v1.ServerReflection"


async def test_executors_and_operators_can_have_addresses_of_their_own() -> None:
    async with serving(executor_listen="127.0.0.1:0", admin_listen="127.0.0.1:0") as scheduler:
        ports = scheduler.ports
        assert len(set(ports.values())) == 3
        served = {key: await names_by_reflection(port, "v1") for key, port in ports.items()}
        for key, service in (
            ("listen", health.INFERENCE),
            ("executor_listen", health.EXECUTOR),
            ("admin_listen", health.ADMIN),
        ):
            ours = [name for name in served[key] if name.startswith("sage.")]
            assert ours == [service]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{ports[key]}") as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=WITHIN_S)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{scheduler.port}") as channel:
            admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
            error = await refused(admin.GetPolicy(admin_pb2.GetPolicyRequest(), timeout=WITHIN_S))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED


# --- the audit log --------------------------------------------------------------------------------


async def test_actions_and_refusals_are_audited_and_prompts_are_not(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
    inference: Any = inference_pb2_grpc.InferenceServiceStub(channel)
    change = admin_pb2.SetPolicyRequest(policy="priority", reason="for\nnow")
    await admin.SetPolicy(change, metadata=proof("op"))
    await refused(admin.SetPolicy(admin_pb2.SetPolicyRequest(policy="none"), metadata=proof("op")))
    await refused(admin.SetPolicy(change, metadata=proof("obs")))
    await admin.GetPolicy(admin_pb2.GetPolicyRequest(), metadata=proof("obs"))
    secret = inference_pb2.GenerateRequest(spec=inference_pb2.GenerationSpec(text="our secret"), tenant="b")
    await refused(inference.Generate(secret, metadata=proof("app")).read())
    await refused(inference.Generate(secret, metadata=proof("nobody")).read())
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    found = [line.replace(line[line.index(" from ") : line.index(": ", line.index(" from "))], "") for line in lines]
    assert found == [
        'action: SetPolicy by \'op\': OK: policy: "priority" reason: "for\\nnow"',
        "action: SetPolicy by 'op': INVALID_ARGUMENT: policy: \"none\"",
        "refused: SetPolicy by 'obs': obs (observer) may not call SetPolicy",
        "refused: Generate by 'app': tenant: app may not send requests as 'b'",
        "refused: Generate by 'unknown': the bearer token is not known",
    ]


async def test_an_action_of_megabytes_is_a_short_line(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing all of it as text would hold the event loop for a second."""
    caplog.set_level(logging.INFO, LOGGER)
    monkeypatch.setattr(access_interceptor, "ACTION_BYTES", 20)
    admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
    await refused(admin.SetPolicy(admin_pb2.SetPolicyRequest(policy="x" * 100), metadata=proof("op")))
    assert caplog.messages[-1].endswith(": INVALID_ARGUMENT: a message of 102 bytes")


async def test_without_identities_actions_are_audited_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    async with serving() as scheduler, grpc.aio.insecure_channel(f"127.0.0.1:{scheduler.port}") as channel:
        admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
        await admin.SetPolicy(admin_pb2.SetPolicyRequest(policy="priority"))
    assert any(f"SetPolicy by {ANYONE.name!r} from ipv4:127.0.0.1" in record.getMessage() for record in caplog.records)
