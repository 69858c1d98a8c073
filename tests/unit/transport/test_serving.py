"""The real server on a free port: health, reflection, what is refused and how, sessions as executors make them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sage.controlplane.v1 import (
    admin_pb2_grpc,
    common_pb2,
    executor_pb2,
    executor_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
)
from sage_wire.protocol import PROTOCOL_VERSION
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.transport import executor_servicer, health
from scheduler_svc.wiring.scheduler_service import SchedulerService
from tests.support.lost_status import with_status
from tests.unit.transport.served import MODEL, WITHIN_S, WireExecutor, dialled, reason_of, registration, serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SERVICES = {health.INFERENCE, health.EXECUTOR, health.ADMIN}


@pytest.fixture
async def scheduler() -> AsyncIterator[SchedulerService]:
    async with serving() as running:
        yield running


@pytest.fixture
async def channel(scheduler: SchedulerService) -> AsyncIterator[grpc.aio.Channel]:
    async with dialled(scheduler) as channel:
        yield channel


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not holds():
            await asyncio.sleep(0.005)


def state(scheduler: SchedulerService, instance_id: str = "a") -> InstanceState | None:
    instance = scheduler.control.scheduler.find_instance(instance_id)
    return instance.state if instance is not None else None


def generate(**fields: object) -> inference_pb2.GenerateRequest:
    sampling = common_pb2.SamplingParams(max_tokens=2)
    spec = inference_pb2.GenerationSpec(tokens=inference_pb2.TokenIds(ids=[1, 2, 3]), sampling=sampling)
    return inference_pb2.GenerateRequest(spec=spec, **fields)  # type: ignore[arg-type]


# --- health and reflection ------------------------------------------------------------------------


async def test_health_follows_the_instances(scheduler: SchedulerService, channel: grpc.aio.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=health.INFERENCE))
    assert (await asyncio.wait_for(watch.read(), WITHIN_S)).status in (
        NOT_SERVING,
        health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
    )
    executor = WireExecutor(channel)
    await executor.whole()
    async with asyncio.timeout(WITHIN_S):
        while (await watch.read()).status != SERVING:
            pass
    for service in ("", *SERVICES):
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING
    await executor.say(goodbye=executor_pb2.Goodbye())
    assert (await asyncio.wait_for(watch.read(), WITHIN_S)).status == NOT_SERVING
    assert (await stub.Check(health_pb2.HealthCheckRequest(service=""))).status == SERVING
    watch.cancel()


async def test_health_knows_nothing_of_other_services(channel: grpc.aio.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Check(health_pb2.HealthCheckRequest(service="other"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services(channel: grpc.aio.Channel) -> None:
    async def ask() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]  # knows no grpc.aio
    answers = [answer async for answer in stub.ServerReflectionInfo(ask())]
    listed = {service.name for service in answers[0].list_services_response.service}
    assert listed >= SERVICES | {"grpc.health.v1.Health"}


# --- what is not here -----------------------------------------------------------------------------


async def test_methods_nobody_ever_heard_of(channel: grpc.aio.Channel) -> None:
    nobodys: Any = channel.unary_unary("/sage.controlplane.v1.InferenceService/Dream")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await nobodys(b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_every_method_is_served_by_a_handler_of_its_own(scheduler: SchedulerService) -> None:
    """A method that is added to the contract and forgotten would answer with the stub's bare UNIMPLEMENTED."""
    services = scheduler._services()
    for servicer, base in (
        (services.inference, inference_pb2_grpc.InferenceServiceServicer),
        (services.executor, executor_pb2_grpc.ExecutorServiceServicer),
        (services.admin, admin_pb2_grpc.AdminServiceServicer),
    ):
        for name in (n for n in vars(base) if not n.startswith("_")):
            assert getattr(type(servicer), name) is not getattr(base, name), f"{type(servicer).__name__}.{name}"


async def all_that_is_said(executor: WireExecutor) -> None:
    """Returns never; raises how the stream ended."""
    while True:
        await executor.hear()


# --- registering ----------------------------------------------------------------------------------


async def test_a_control_stream_begins_with_register(channel: grpc.aio.Channel) -> None:
    executor = WireExecutor(channel)
    await executor.say(heartbeat=executor_pb2.Heartbeat())
    with pytest.raises(grpc.aio.AioRpcError, match="first message must be register") as refused:
        await executor.hear()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(refused.value) == "INVALID_REGISTRATION"


async def test_a_control_stream_that_says_nothing_is_ended(
    channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_servicer, "FIRST_MESSAGE_TIMEOUT_S", 0.05)
    with pytest.raises(grpc.aio.AioRpcError, match="first message must be register"):
        await WireExecutor(channel).hear()


async def test_registering_twice_on_one_stream_is_refused(channel: grpc.aio.Channel) -> None:
    executor = WireExecutor(channel)
    await executor.register()
    await executor.say(register=registration())
    with pytest.raises(grpc.aio.AioRpcError, match="already registered"):
        await executor.hear()


async def test_a_welcome_says_everything(scheduler: SchedulerService, channel: grpc.aio.Channel) -> None:
    welcome = await WireExecutor(channel).register(registration(role=common_pb2.INSTANCE_ROLE_DECODING))
    assert welcome.protocol_version == PROTOCOL_VERSION
    assert welcome.session_id
    assert welcome.epoch == scheduler.control.epoch
    assert welcome.lease.ToTimedelta().total_seconds() == 5.0
    assert welcome.heartbeat_interval.ToTimedelta().total_seconds() == 0.5
    assert welcome.role == common_pb2.INSTANCE_ROLE_DECODING
    assert not welcome.keep


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [(PROTOCOL_VERSION - 1, PROTOCOL_VERSION - 1), (PROTOCOL_VERSION + 1, PROTOCOL_VERSION)],
)
async def test_a_neighbouring_version_is_spoken_with(channel: grpc.aio.Channel, offered: int, agreed: int) -> None:
    welcome = await WireExecutor(channel).register(registration(protocol_version=offered))
    assert welcome.protocol_version == agreed


async def test_a_version_too_new_is_refused(scheduler: SchedulerService, channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="is not spoken here") as refused:
        await WireExecutor(channel).register(registration(protocol_version=PROTOCOL_VERSION + 2))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(refused.value) == "PROTOCOL_VERSION"
    assert state(scheduler) is None


async def test_a_registration_that_makes_no_sense_is_refused(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="model: is empty") as refused:
        await WireExecutor(channel).register(registration(model=""))
    assert reason_of(refused.value) == "INVALID_REGISTRATION"


async def test_a_second_executor_of_the_same_id_is_refused(
    scheduler: SchedulerService, channel: grpc.aio.Channel
) -> None:
    first = WireExecutor(channel)
    await first.whole()
    with pytest.raises(grpc.aio.AioRpcError, match="'a' is in use") as refused:
        await WireExecutor(channel).register(registration(engine_start_id="another"))
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason_of(refused.value) == "DUPLICATE_INSTANCE"
    await until(lambda: state(scheduler) is InstanceState.READY)


async def test_one_instance_too_many_is_refused(scheduler: SchedulerService, channel: grpc.aio.Channel) -> None:
    domain, now = scheduler.control.scheduler, scheduler.control.clock.now()
    for n in range(domain.settings.max_instances):
        domain.register(InstanceSpec(instance_id=f"i{n}", model="m"), now)
    with pytest.raises(grpc.aio.AioRpcError, match="bound of 4096 instances") as refused:
        await WireExecutor(channel).register(registration("b"))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_output_stream_of_an_unknown_session_is_refused(channel: grpc.aio.Channel) -> None:
    executor = WireExecutor(channel)
    await executor.open_outputs("made-up")
    with pytest.raises(grpc.aio.AioRpcError, match="no session of this id") as refused:
        await executor.outputs.read()
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(refused.value) == "UNKNOWN_SESSION"


# --- sessions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reported", [common_pb2.INSTANCE_STATE_LOST, common_pb2.INSTANCE_STATE_SUSPECT, 77, 0])
async def test_what_is_no_state_of_an_engine_is_refused(
    scheduler: SchedulerService, channel: grpc.aio.Channel, reported: int
) -> None:
    executor = WireExecutor(channel)
    await executor.whole()
    status = executor_pb2.EngineStatus()
    status.MergeFromString(executor_pb2.EngineStatus(state=reported).SerializeToString())  # type: ignore[arg-type]
    await executor.say(engine_status=status)
    with pytest.raises(grpc.aio.AioRpcError, match="not a state of an engine"):
        await all_that_is_said(executor)


async def test_a_control_stream_that_ends_makes_its_instance_suspect_and_then_lost(
    scheduler: SchedulerService, channel: grpc.aio.Channel
) -> None:
    executor = WireExecutor(channel)
    await executor.whole()
    await until(lambda: state(scheduler) is InstanceState.READY)
    executor.control.cancel()
    await until(lambda: state(scheduler) is InstanceState.SUSPECT)
    await until(lambda: state(scheduler) is InstanceState.LOST)


async def test_a_goodbye_is_believed_at_once(scheduler: SchedulerService, channel: grpc.aio.Channel) -> None:
    executor = WireExecutor(channel)
    await executor.whole()
    await until(lambda: state(scheduler) is InstanceState.READY)
    await executor.say(goodbye=executor_pb2.Goodbye(reason="scaled down"))
    await until(lambda: state(scheduler) is InstanceState.LOST)
    assert scheduler.control.scheduler.instance("a").state_reason == "said goodbye: scaled down"


async def test_an_output_stream_may_be_opened_anew(scheduler: SchedulerService, channel: grpc.aio.Channel) -> None:
    """And the end of the older one, which is noticed later, means nothing."""
    executor = WireExecutor(channel)
    await executor.whole()
    await until(lambda: state(scheduler) is InstanceState.READY)
    older = executor.outputs
    await executor.open_outputs()
    assert await older.code() is grpc.StatusCode.OK
    await asyncio.sleep(0.05)
    assert state(scheduler) is InstanceState.READY
    await asyncio.sleep(0.4)  # past the grace a broken stream is given
    assert state(scheduler) is InstanceState.READY


async def test_a_welcome_that_cannot_be_delivered_is_a_broken_stream(scheduler: SchedulerService) -> None:
    async with dialled(scheduler) as channel:
        executor = WireExecutor(channel)
        await executor.say(register=registration())
    await until(lambda: state(scheduler) in (None, InstanceState.LOST))
    async with dialled(scheduler) as channel:
        await WireExecutor(channel).register(registration(engine_start_id="another"))


# --- requests -------------------------------------------------------------------------------------


async def the_assign(executor: WireExecutor) -> executor_pb2.Assign:
    while True:
        said = await executor.hear()
        if said.HasField("assign"):
            return said.assign


async def test_a_request_from_end_to_end(scheduler: SchedulerService, channel: grpc.aio.Channel) -> None:
    executor = WireExecutor(channel)
    await executor.whole()
    await until(lambda: state(scheduler) is InstanceState.READY)
    call = inference_pb2_grpc.InferenceServiceStub(channel).Generate(generate(request_id="r"))
    assign = await the_assign(executor)
    assert (assign.request_id, list(assign.prompt_token_ids)) == ("r", [1, 2, 3])
    attempt = assign.attempt.number
    await executor.report(accepted=executor_pb2.AssignmentAccepted(attempt_number=attempt))
    tokens = executor_pb2.AssignmentTokens(attempt_number=attempt, token_ids=[7, 8], text="ab")
    await executor.report(frame=executor_pb2.Frame(tokens=[tokens]))
    await executor.report(
        ended=executor_pb2.AssignmentEnded(
            attempt_number=attempt,
            cause=executor_pb2.AssignmentEnded.CAUSE_FINISHED,
            finish_reason=common_pb2.FINISH_REASON_LENGTH,
            total_tokens=2,
        )
    )
    events = [event async for event in call]
    assert [e.WhichOneof("event") for e in events] == ["accepted", "scheduled", "tokens", "finished"]
    assert list(events[2].tokens.token_ids) == [7, 8]
    acks = await asyncio.wait_for(executor.outputs.read(), WITHIN_S)
    assert isinstance(acks, executor_pb2.OutputsResponse)
    assert [(a.attempt_number, a.tokens, a.ended) for a in acks.acks] == [(attempt, 2, True)]


async def test_a_rejection_for_a_reason_of_a_later_version_is_a_rejection(
    scheduler: SchedulerService, channel: grpc.aio.Channel
) -> None:
    executor = WireExecutor(channel)
    await executor.whole()
    await until(lambda: state(scheduler) is InstanceState.READY)
    call = inference_pb2_grpc.InferenceServiceStub(channel).Generate(generate(request_id="r"))
    rejected = executor_pb2.AssignmentRejected(attempt_number=(await the_assign(executor)).attempt.number)
    rejected.MergeFromString(executor_pb2.AssignmentRejected(reason=77).SerializeToString())  # type: ignore[arg-type]
    await executor.report(rejected=rejected)
    again = await the_assign(executor)
    assert again.request_id == "r"
    call.cancel()


async def test_a_client_that_goes_away_cancels_its_request(
    scheduler: SchedulerService, channel: grpc.aio.Channel
) -> None:
    executor = WireExecutor(channel)
    await executor.whole()
    await until(lambda: state(scheduler) is InstanceState.READY)
    call = inference_pb2_grpc.InferenceServiceStub(channel).Generate(generate(request_id="r"))
    attempt = (await the_assign(executor)).attempt.number
    call.cancel()
    async with asyncio.timeout(WITHIN_S):
        while not (said := await executor.hear()).HasField("cancel"):
            pass
    assert said.cancel.attempt.number == attempt


async def test_a_caller_with_the_longest_deadline_there_is_harms_nobody(
    scheduler: SchedulerService, channel: grpc.aio.Channel
) -> None:
    executor = WireExecutor(channel)
    await executor.whole()
    await until(lambda: state(scheduler) is InstanceState.READY)
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    request = generate(request_id="r")
    request.spec.deadline.seconds = 2**63 - 1
    with pytest.raises(grpc.aio.AioRpcError, match=r"spec\.deadline") as refused:
        await stub.Generate(request).read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    request.spec.deadline.seconds = 315_576_000_000
    call = stub.Generate(request)
    assert (await the_assign(executor)).request_id == "r"
    call.cancel()


async def test_many_faults_arrive_as_such(channel: grpc.aio.Channel) -> None:
    """Not as "metadata too large"."""
    executor = WireExecutor(channel)
    await executor.whole()
    turns = [inference_pb2.ChatMessage(content=[inference_pb2.ContentPart()])] * 5_000
    spec = inference_pb2.GenerationSpec(model=MODEL, chat=inference_pb2.Chat(messages=turns))
    call = inference_pb2_grpc.InferenceServiceStub(channel).Generate(inference_pb2.GenerateRequest(spec=spec))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(refused.value) == "INVALID_REQUEST"


async def test_what_goes_wrong_inside_stays_inside(
    scheduler: SchedulerService,
    channel: grpc.aio.Channel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def breaks(*_: object) -> None:
        raise RuntimeError("swordfish")

    monkeypatch.setattr(scheduler.control.intake, "submit", breaks)
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Generate(generate(request_id="r"), metadata=(("traceparent", TRACEPARENT),)).read()
    assert refused.value.code() is grpc.StatusCode.INTERNAL
    assert "swordfish" not in str(refused.value)
    (record,) = [record for record in caplog.records if "swordfish" in str(record.exc_info)]
    assert {"request": "default/r", "traceparent": TRACEPARENT}.items() <= vars(record).items()


async def test_those_who_attach_to_a_failure_leave_nothing_with_it(
    scheduler: SchedulerService, channel: grpc.aio.Channel
) -> None:
    executor = WireExecutor(channel)
    await executor.whole()
    await until(lambda: state(scheduler) is InstanceState.READY)
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    call = stub.Generate(generate(request_id="r"))
    await the_assign(executor)
    await stub.Cancel(inference_pb2.CancelRequest(request_id="r"))
    for _ in range(5):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            [event async for event in call]
        assert refused.value.code() is grpc.StatusCode.CANCELLED
        call = stub.Generate(generate(request_id="r"))
    call.cancel()
    [live] = scheduler.control.requests.recent()
    assert isinstance(live.outcome, Exception)
    assert live.outcome.__traceback__ is None


# --- what cannot be read --------------------------------------------------------------------------


async def first_of(call: Callable[[], Any]) -> Any:
    """Make a call and return the first message of its answer."""
    return await call().read()


async def test_bytes_that_are_no_message_are_refused_and_not_logged(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    def raw(data: bytes) -> bytes:
        return data

    service = "/sage.controlplane.v1."
    calls: list[Callable[[], Any]] = [
        lambda: channel.unary_stream(service + "InferenceService/Generate", request_serializer=raw)(b"\xff\xff"),
        lambda: channel.stream_stream(service + "ExecutorService/Control", request_serializer=raw)(iter([b"\xff\xff"])),
        lambda: channel.unary_stream("/grpc.health.v1.Health/Watch", request_serializer=raw)(b"\xff\xff"),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await with_status(partial(first_of, call))
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "is not a " in (raised.value.details() or "")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.unary_unary(service + "AdminService/ListInstances", request_serializer=raw)(b"\xff\xff")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
