"""The asynchronous client against a scheduler that answers as told."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider

import sage_client as sage
from sage.controlplane.v1 import admin_pb2, common_pb2, inference_pb2
from sage_client import AsyncClient, Reconnect
from sage_wire.errors import ErrorReason
from tests.integration.clients.fake_scheduler import (
    FakeScheduler,
    accepted,
    always,
    fail,
    finished,
    instance,
    retry_in,
    scheduled,
    started,
    tokens,
    whole_text,
)
from tests.integration.clients.fake_session import bad_fields

pytestmark = pytest.mark.usefixtures("transport")

Events = AsyncIterator[inference_pb2.GenerateResponse]


async def test_events_come_typed_and_in_order(client: AsyncClient) -> None:
    first, placed, *output, last = [event async for event in client.generate("hi", max_tokens=2)]

    assert isinstance(first, sage.Accepted)
    assert first.expected_wait_s == 0.25
    assert isinstance(placed, sage.Scheduled)
    assert (placed.decision.phase, placed.decision.attempt.epoch) == (sage.Phase.HYBRID, 7)
    pieces = [event for event in output if isinstance(event, sage.Tokens)]
    assert len(pieces) == len(output)
    assert [each.first_index for each in pieces] in ([0], [0, 1]), "what waits is merged"
    assert [(i, each.text_offset) for each in pieces for i in each.token_ids] in (
        [(100, 0), (101, 0)],
        [(100, 0), (101, 2)],
    )
    assert isinstance(last, sage.Finished)


async def test_text_is_the_whole_output(client: AsyncClient) -> None:
    assert "".join([piece async for piece in client.generate("hi", max_tokens=30).text()]) == whole_text(30)


async def test_result_gathers_everything(client: AsyncClient) -> None:
    result = await client.generate("hi", max_tokens=3, request_id="r-1").result()

    assert (result.request_id, result.text, result.token_ids) == ("r-1", whole_text(3), (100, 101, 102))
    assert (result.finish_reason, result.instance_id) == (sage.FinishReason.LENGTH, "executor-1")
    assert result.usage.completion_tokens == 3
    assert result.timings.time_to_first_token_s == pytest.approx(0.02)
    assert result.timings.transfer_s is None
    assert result.slo[0].met


async def test_result_after_reading_still_has_it_all(client: AsyncClient) -> None:
    stream = client.generate("hi", max_tokens=3)
    async for _ in stream:
        pass

    assert (await stream.result()).text == whole_text(3)


async def test_a_request_is_sent_before_anything_is_read(scheduler: FakeScheduler, client: AsyncClient) -> None:
    arrived = asyncio.Event()

    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        arrived.set()
        yield accepted(request)

    scheduler.generate = generate
    stream = client.generate("hi")

    await asyncio.wait_for(arrived.wait(), 5)
    await stream.aclose()


async def test_the_request_carries_what_was_said(scheduler: FakeScheduler, client: AsyncClient) -> None:
    await client.generate(
        messages=[{"role": "user", "content": "hello"}],
        model="tiny",
        priority="critical",
        deadline=2.5,
        tags={"team": "a"},
        no_instance="wait",
        temperature=0.0,
        stop="\n",
        json_schema={"type": "object"},
    ).result()

    spec = scheduler.requests[0].spec
    assert scheduler.requests[0].request_id.startswith("req-")
    assert spec.chat.messages[0].content[0].text == "hello"
    assert (spec.priority, spec.no_instance) == (
        common_pb2.PRIORITY_CRITICAL,
        inference_pb2.NO_INSTANCE_WAIT,
    )
    assert spec.deadline.ToMilliseconds() == 2500
    assert dict(spec.tags) == {"team": "a"}
    assert spec.sampling.HasField("temperature")
    assert not spec.sampling.HasField("top_p")
    assert list(spec.sampling.stop) == ["\n"]
    assert spec.sampling.structured_output.json_schema == '{"type": "object"}'


async def test_every_field_at_fault_is_named(scheduler: FakeScheduler, client: AsyncClient) -> None:
    async def refuse(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        fields = bad_fields(spec__sampling__top_p="must be in (0, 1]", spec__text="is empty")
        await fail(context, ErrorReason.INVALID_REQUEST, "two fields", fields)
        yield accepted(request)

    scheduler.generate = refuse
    with pytest.raises(sage.InvalidRequestError, match="two fields") as caught:
        await client.generate("").result()

    assert [v.field for v in caught.value.violations] == ["spec.sampling.top_p", "spec.text"]
    assert (caught.value.reason, caught.value.status) == ("INVALID_REQUEST", "INVALID_ARGUMENT")
    assert caught.value.metadata == {"model": "tiny"}


async def test_a_full_queue_says_when_to_come_back(scheduler: FakeScheduler, client: AsyncClient) -> None:
    async def refuse(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        await fail(context, ErrorReason.QUEUE_FULL, "full", retry_in(1.5))
        yield accepted(request)

    scheduler.generate = refuse
    with pytest.raises(sage.QueueFullError) as caught:
        await client.generate("hi").result()

    assert caught.value.retry_after_s == 1.5
    assert len(scheduler.requests) == 1


async def test_no_instance_is_not_tried_again_by_itself(scheduler: FakeScheduler, client: AsyncClient) -> None:
    async def refuse(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        await fail(context, ErrorReason.NO_INSTANCE, "nobody serves it")

    scheduler.generate = refuse
    with pytest.raises(sage.NoInstanceError):
        await client.generate("hi").result()

    assert len(scheduler.requests) == 1


async def test_a_failure_is_raised_again_by_result(scheduler: FakeScheduler, client: AsyncClient) -> None:
    async def break_down(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        await fail(context, ErrorReason.GENERATION_FAILED, "all attempts failed")

    scheduler.generate = break_down
    stream = client.generate("hi", request_id="r-9")
    with pytest.raises(sage.GenerationFailedError) as first:
        async for _ in stream:
            pass
    with pytest.raises(sage.GenerationFailedError) as second:
        await stream.result()

    assert first.value is second.value
    assert first.value.request_id == "r-9"


async def test_nobody_there_fails_at_once_where_nothing_is_to_be_sent_again() -> None:
    fake = await started()
    await fake.stop()
    async with AsyncClient(fake.address, reconnect=Reconnect(submit_s=0)) as client:
        with pytest.raises(sage.UnavailableError):
            await asyncio.wait_for(client.generate("hi").result(), 5)
        with pytest.raises(sage.UnavailableError):
            await asyncio.wait_for(client.models(), 5)
        with pytest.raises(sage.UnavailableError):
            await asyncio.wait_for(client.get_policy(), 5)


async def test_a_submission_waits_for_a_scheduler_that_is_started_again() -> None:
    before = await started()
    port = int(before.address.rpartition(":")[2])
    await before.stop()
    async with AsyncClient(before.address, reconnect=Reconnect(first_delay_s=0.02, max_delay_s=0.1)) as client:
        stream = client.generate("hi", max_tokens=3, request_id="one")
        result, models = asyncio.create_task(stream.result()), asyncio.create_task(client.models())
        done, _ = await asyncio.wait([result, models], timeout=0.3, return_when=asyncio.FIRST_COMPLETED)
        assert done == set()
        after = await started(port=port)
        try:
            assert (await asyncio.wait_for(result, 20)).text == whole_text(3)
            await asyncio.wait_for(models, 20)
        finally:
            await after.stop()
    assert {request.request_id for request in after.requests} == {"one"}


async def test_a_submission_is_given_up_in_the_end() -> None:
    fake = await started()
    await fake.stop()
    quick = Reconnect(first_delay_s=0.01, max_delay_s=0.02, submit_s=0.1, attempts=1_000_000)
    async with AsyncClient(fake.address, reconnect=quick) as client:
        with pytest.raises(sage.UnavailableError):
            await asyncio.wait_for(client.generate("hi").result(), 20)


async def test_a_silent_scheduler_is_left_after_the_timeout(scheduler: FakeScheduler, client: AsyncClient) -> None:
    async def be_silent(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        await asyncio.Event().wait()

    scheduler.generate = be_silent
    with pytest.raises(sage.WaitTimeoutError, match=r"0\.2 s"):
        await client.generate("hi", timeout=0.2).result()

    await asyncio.wait_for(scheduler.left.wait(), 5)


async def test_a_silent_scheduler_does_not_hold_a_plain_call(scheduler: FakeScheduler) -> None:
    async def be_silent(request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    scheduler.admin["GetPolicy"] = be_silent
    async with AsyncClient(scheduler.address, timeout=0.2) as client:
        with pytest.raises(sage.WaitTimeoutError, match=r"did not answer within 0\.2 s"):
            await client.get_policy()


async def test_leaving_a_stream_ends_the_call(scheduler: FakeScheduler, client: AsyncClient) -> None:
    async def go_on(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        await asyncio.Event().wait()

    scheduler.generate = go_on
    async with client.generate("hi") as stream:
        assert isinstance(await anext(stream), sage.Accepted)

    await asyncio.wait_for(scheduler.left.wait(), 5)
    with pytest.raises(sage.RequestCancelledError):
        await stream.result()


async def test_a_stream_that_failed_is_garbage_once_it_is_dropped(
    scheduler: FakeScheduler, client: AsyncClient
) -> None:
    async def refuse(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        await fail(context, ErrorReason.UNKNOWN_MODEL, "no such model")
        yield accepted(request)

    async def read() -> weakref.ref[sage.AsyncStream]:
        stream = client.generate("hi")
        with pytest.raises(sage.UnknownModelError):
            await stream.result()
        return weakref.ref(stream)

    scheduler.generate = refuse
    dropped = await read()
    await client.cancel("nobody")  # the tasks of the call are over by then
    gc.collect()
    assert dropped() is None


async def test_closing_from_another_task_ends_the_iteration(scheduler: FakeScheduler, client: AsyncClient) -> None:
    got_first = asyncio.Event()

    async def go_on(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        await asyncio.Event().wait()

    async def read(stream: sage.AsyncStream) -> int:
        count = 0
        async for _ in stream:
            count += 1
            got_first.set()
        return count

    scheduler.generate = go_on
    stream = client.generate("hi")
    reader = asyncio.create_task(read(stream))
    await asyncio.wait_for(got_first.wait(), 5)
    await stream.aclose()

    assert await asyncio.wait_for(reader, 5) == 1


async def test_cancelling_the_reading_task_cancels_the_call(scheduler: FakeScheduler, client: AsyncClient) -> None:
    got_first = asyncio.Event()

    async def go_on(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        await asyncio.Event().wait()

    async def read() -> None:
        async for _ in client.generate("hi"):
            got_first.set()

    scheduler.generate = go_on
    reader = asyncio.create_task(read())
    await asyncio.wait_for(got_first.wait(), 5)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader

    await asyncio.wait_for(scheduler.left.wait(), 5)


async def test_a_request_that_is_not_accepted_yet_is_taken_back(scheduler: FakeScheduler, client: AsyncClient) -> None:
    async def still_tokenizing(request: Any, context: Any) -> AsyncIterator[inference_pb2.GenerateResponse]:
        await asyncio.Event().wait()
        yield accepted(request)

    scheduler.generate, scheduler.knows_requests = still_tokenizing, False
    stream = client.generate("hi", detached=True)
    while not scheduler.requests:
        await asyncio.sleep(0)
    assert (await stream.cancel("changed my mind")).cancelled
    await asyncio.wait_for(scheduler.left.wait(), 5)
    for _ in range(2):
        with pytest.raises(sage.RequestCancelledError):
            await stream.result()


async def test_cancelling_what_the_scheduler_forgot_says_so(scheduler: FakeScheduler, client: AsyncClient) -> None:
    scheduler.knows_requests = False
    stream = client.generate("hi", max_tokens=2)
    await stream.result()
    with pytest.raises(sage.RequestNotFoundError):
        await stream.cancel()


async def test_a_cancel_waits_until_the_scheduler_knows_what_comes_back(
    scheduler: FakeScheduler, client: AsyncClient
) -> None:
    scheduler.recovers_for = 2
    assert (await client.cancel("r")).cancelled
    assert len(scheduler.cancels) == 3


async def test_cancel_names_the_request(scheduler: FakeScheduler) -> None:
    async with AsyncClient(scheduler.address, tenant="acme") as client:
        stream = client.generate("hi", request_id="r-2")
        answer = await stream.cancel("enough")
        await client.cancel("r-3", tenant="other")

    assert answer == sage.Cancellation(cancelled=True, state=sage.RequestState.CANCELLED)
    asked = [(c.request_id, c.tenant, c.reason) for c in scheduler.cancels]
    assert asked == [("r-2", "acme", "enough"), ("r-3", "other", "")]


async def test_missing_tokens_are_noticed(scheduler: FakeScheduler, client: AsyncClient) -> None:
    async def skip(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        for event in (accepted(request), scheduled(), tokens(0), tokens(2), finished(3)):
            yield event

    scheduler.generate = skip
    with pytest.raises(sage.ProtocolError, match="1 to 1 are missing"):
        await client.generate("hi").result()


async def test_a_generate_call_without_an_end_is_noticed(scheduler: FakeScheduler) -> None:
    async def stop_short(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        yield tokens(0)

    scheduler.generate = stop_short
    async with AsyncClient(scheduler.address, use_sessions=False) as client:
        with pytest.raises(sage.ProtocolError, match="without Finished"):
            await client.generate("hi").result()


async def test_joining_later_starts_at_after_token(scheduler: FakeScheduler, client: AsyncClient) -> None:
    stream = client.generate("hi", request_id="r", after_token=5, max_tokens=8)
    result = await stream.result()

    assert result.token_ids == (105, 106, 107)
    assert result.text == whole_text(8)[10:]
    assert stream.next_token == 8


async def test_the_token_goes_with_every_call(scheduler: FakeScheduler) -> None:
    scheduler.admin["ListInstances"] = always(admin_pb2.ListInstancesResponse())
    async with AsyncClient(scheduler.address, token="s3cret") as client:
        await client.generate("hi").result()
        await client.list_instances()

    assert [m["authorization"] for m in scheduler.metadata] == ["Bearer s3cret", "Bearer s3cret"]


async def test_the_token_of_the_environment_is_for_clients_that_are_given_none(
    scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_TOKEN", "from-variable")
    for token in (None, "given", ""):
        async with AsyncClient(scheduler.address, token=token) as client:
            await client.generate("hi").result()

    assert [m.get("authorization") for m in scheduler.metadata] == ["Bearer from-variable", "Bearer given", None]


async def test_the_callers_trace_goes_along(scheduler: FakeScheduler, client: AsyncClient) -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("caller") as span:
        stream = client.generate("hi")
    await stream.result()
    await client.generate("hi").result()

    traced, untraced = scheduler.metadata
    assert f"{span.get_span_context().trace_id:032x}" in traced["traceparent"]
    assert "traceparent" not in untraced


async def test_instances_and_queues_are_read(scheduler: FakeScheduler, client: AsyncClient) -> None:
    scheduler.admin["ListInstances"] = always(
        admin_pb2.ListInstancesResponse(
            instances=[
                instance("a", progress=0.5, state=common_pb2.INSTANCE_STATE_LOADING),
                instance("b", state=97),  # of a newer contract
            ],
            queues=[admin_pb2.QueueInfo(model="tiny", waiting=3, limit=10, waiting_by_priority={"critical": 3})],
        )
    )
    view = await client.list_instances(model="tiny")

    assert scheduler.asked[0].model == "tiny"
    assert [(i.instance_id, i.state, i.progress) for i in view.instances] == [
        ("a", sage.InstanceState.LOADING, 0.5),
        ("b", sage.InstanceState.UNKNOWN, None),
    ]
    assert view.queues[0].waiting_by_priority == {"critical": 3}


async def test_draining_and_resuming_give_the_instance_back(scheduler: FakeScheduler, client: AsyncClient) -> None:
    draining = instance(state=common_pb2.INSTANCE_STATE_DRAINING)
    scheduler.admin["DrainInstance"] = always(admin_pb2.DrainInstanceResponse(instance=draining))
    scheduler.admin["ResumeInstance"] = always(admin_pb2.ResumeInstanceResponse(instance=instance()))
    scheduler.admin["GetInstance"] = always(admin_pb2.GetInstanceResponse(instance=instance()))

    assert (await client.drain_instance("executor-1", reason="x")).state is sage.InstanceState.DRAINING
    assert (await client.resume_instance("executor-1")).state is sage.InstanceState.READY
    assert (await client.get_instance("executor-1")).kv_capacity_tokens == 1000
    assert scheduler.asked[0].reason == "x"


async def test_sleeping_and_waking_give_the_instance_back(scheduler: FakeScheduler, client: AsyncClient) -> None:
    sleeping = instance(state=common_pb2.INSTANCE_STATE_SLEEPING)
    scheduler.admin["SleepInstance"] = always(admin_pb2.SleepInstanceResponse(instance=sleeping))
    scheduler.admin["WakeInstance"] = always(admin_pb2.WakeInstanceResponse(instance=sleeping))

    assert (await client.sleep_instance("executor-1", reason="x")).state is sage.InstanceState.SLEEPING
    assert (await client.wake_instance("executor-1")).instance_id == "executor-1"
    assert scheduler.asked[0].reason == "x"


async def test_an_unknown_policy_is_refused(scheduler: FakeScheduler, client: AsyncClient) -> None:
    async def refuse(request: admin_pb2.SetPolicyRequest, context: Any) -> None:
        await fail(context, ErrorReason.UNKNOWN_POLICY, f"unknown policy {request.policy!r}")

    scheduler.admin["SetPolicy"] = refuse
    with pytest.raises(sage.UnknownPolicyError, match="'random'"):
        await client.set_policy("random")


async def test_policies_and_switches_are_read(scheduler: FakeScheduler, client: AsyncClient) -> None:
    answer = admin_pb2.GetPolicyResponse(
        policy="adaptive",
        delegate="fifo",
        available=[admin_pb2.PolicyInfo(name="fifo", summary="arrival", warning="beware")],
        switches=[admin_pb2.PolicySwitch(from_policy="slo_aware", to_policy="fifo", reason="quiet")],
    )
    scheduler.admin["GetPolicy"] = always(answer)
    scheduler.admin["SetPolicy"] = always(
        admin_pb2.SetPolicyResponse(policy="fifo", previous="adaptive", reordered=2, warning="beware")
    )

    status = await client.get_policy()
    change = await client.set_policy("fifo", reason="test")

    assert (status.policy, status.delegate, status.available[0].name) == ("adaptive", "fifo", "fifo")
    assert status.switches[0].to_policy == "fifo"
    assert status.available[0].warning == "beware"
    assert change == sage.PolicyChange(policy="fifo", previous="adaptive", reordered=2, warning="beware")


async def test_an_explanation_is_read(scheduler: FakeScheduler, client: AsyncClient) -> None:
    answer = admin_pb2.ExplainResponse(
        request_id="r",
        state=inference_pb2.REQUEST_STATE_QUEUED,
        waiting_because="all 2 instances full",
        queue_position=4,
        history=[admin_pb2.HistoryEntry(event="accepted")],
    )
    answer.decisions.append(scheduled().scheduled.decision)
    answer.decisions[0].candidates.add(instance_id="b", filtered_by="room", scores={"start_s": 1.5})
    scheduler.admin["Explain"] = always(answer)

    explanation = await client.explain("r")

    assert (explanation.state, explanation.priority) == (sage.RequestState.QUEUED, sage.Priority.NORMAL)
    assert (explanation.waiting_because, explanation.queue_position) == ("all 2 instances full", 4)
    assert explanation.decisions[0].candidates[0].scores == {"start_s": 1.5}


async def test_an_unforeseen_status_is_internal(scheduler: FakeScheduler, client: AsyncClient) -> None:
    async def explode(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.DATA_LOSS, "gone")

    scheduler.admin["GetPolicy"] = explode
    with pytest.raises(sage.InternalError, match="gone") as caught:
        await client.get_policy()

    assert (caught.value.status, caught.value.reason) == ("DATA_LOSS", "")
