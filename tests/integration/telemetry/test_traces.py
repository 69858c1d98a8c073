"""One connected tree per request, across processes, below the caller's own span."""

from __future__ import annotations

import json
import logging
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from executor_svc.engine.simulated.faults import Fault, FaultKind
from sage_client import InstanceState
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.integration.telemetry.caller import Caller
from tests.integration.telemetry.catalogued import unlisted
from tests.integration.telemetry.json_log import JsonLog
from tests.integration.telemetry.otlp_receiver import OtlpReceiver, Span, Tree
from tests.support.eventually import eventually
from tests.support.otlp_values import values

CLOCKS_NS = (
    20_000_000  # a process reads its control clock and the system's one after the other; other work may come between
)


@pytest.fixture
def caller(fleet: LocalFleet) -> Caller:
    return Caller(fleet=fleet)


async def test_a_plain_request_is_one_tree_below_the_callers_span(
    receiver: OtlpReceiver, one: LocalExecutor, caller: Caller
) -> None:
    await caller.answer("Once upon a time", max_tokens=6)
    tree = await receiver.until(caller.trace_id, "sage.request", "sage.decode")
    assert tree.drawn(caller.span_id) == [
        "sage.request",
        [
            "sage.admission",
            "sage.queue",
            "sage.decision",
            "sage.attempt",
            ["sage.execute", ["sage.prefill", "sage.decode"]],
        ],
    ]
    assert all(span.wire.trace_state == "app=blue" for span in tree.spans)
    assert not any(span.failed for span in tree.spans)
    request = tree.one("sage.request")
    assert all(span.within(request, CLOCKS_NS) for span in tree.spans)
    assert {span.service for span in tree.spans} == {"sage-scheduler", "sage-executor"}


async def test_the_request_says_what_was_asked_and_what_came(
    receiver: OtlpReceiver, one: LocalExecutor, caller: Caller
) -> None:
    await caller.answer("Once upon a time", max_tokens=6)
    request = (await receiver.until(caller.trace_id, "sage.request")).one("sage.request")
    told = request.attributes
    expected = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.request.model": "sim",
        "gen_ai.response.model": "sim",
        "gen_ai.request.max_tokens": 6,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.output_tokens": 6,
        "sage.tenant": "blue",
        "sage.priority": "normal",
        "sage.outcome": "finished",
        "sage.attempts": 1,
        "sage.slo.met": True,
    }
    assert expected.items() <= told.items()
    assert told["gen_ai.usage.input_tokens"] > 0
    assert 0 < told["sage.time.to_first_token"] < 5
    assert request.events == ["sage.first_token"]


async def test_the_decision_explains_itself(receiver: OtlpReceiver, one: LocalExecutor, caller: Caller) -> None:
    await caller.answer("Once upon a time")
    decision = (await receiver.until(caller.trace_id, "sage.decision")).one("sage.decision")
    told = decision.attributes
    assert told["sage.policy"] == "fifo"
    assert told["sage.decision.rule"] == "earliest_finish"
    assert "earliest predicted finish" in told["sage.decision.reasons"][0]
    assert (told["sage.instance.id"], told["sage.phase"]) == ("one", "hybrid")
    assert (told["sage.candidates.considered"], told["sage.decision.scored_by"]) == (1, "finish_s")
    assert told["sage.predicted.first_token"] > 0
    assert decision.events == ["sage.candidate"]


async def test_everything_that_was_asked_for_and_foreseen_is_told(
    fleet: LocalFleet, receiver: OtlpReceiver, one: LocalExecutor, telemetry: dict[str, Any], caller: Caller
) -> None:
    await fleet.add("resting", settings={"telemetry": telemetry})
    await fleet.client.drain_instance("resting")
    await fleet.until("resting", InstanceState.DRAINED)
    sampling = {"top_p": 0.5, "top_k": 7, "seed": 11, "frequency_penalty": 0.25, "presence_penalty": -0.5}
    targets = {
        "ttft_target": Duration(seconds=30),
        "tpot_target": Duration(seconds=2),
        "deadline": Duration(seconds=90),
    }
    await caller.answer("Once upon a time", temperature=0.75, sampling=sampling, session="s1", **targets)
    tree = await receiver.until(caller.trace_id, "sage.request", "sage.decision")
    asked = {
        **{f"gen_ai.request.{name}": value for name, value in sampling.items()},
        "gen_ai.request.temperature": 0.75,
        "gen_ai.conversation.id": "s1",
        "sage.target.ttft": 30.0,
        "sage.target.tpot": 2.0,
        "sage.target.deadline": 90.0,
    }
    assert asked.items() <= tree.one("sage.request").attributes.items()
    decision = tree.one("sage.decision")
    told = decision.attributes
    start, first, end = (told[f"sage.predicted.{name}"] for name in ("start", "first_token", "finish"))
    assert 0 <= start < first < end
    assert (told["sage.predicted.output_tokens"], told["sage.predicted.cost"]) == (8, 0.0)
    assert told["sage.decision.score"] == pytest.approx(end)
    candidates = {each["sage.instance.id"]: each for each in map(told_by, decision.wire.events)}
    taken, resting = candidates["one"], candidates["resting"]
    assert (taken["sage.candidate.chosen"], resting["sage.candidate.chosen"]) == (True, False)
    assert f"finish_s={told['sage.decision.score']:g}" in taken["sage.candidate.scores"]
    assert not {"sage.candidate.filtered_by", "sage.candidate.filter_reason"} & taken.keys()
    assert "sage.candidate.scores" not in resting
    assert resting["sage.candidate.filtered_by"] == "state"
    assert "drained" in resting["sage.candidate.filter_reason"]


async def test_what_was_not_asked_for_is_left_out(receiver: OtlpReceiver, one: LocalExecutor, caller: Caller) -> None:
    await caller.answer("Once upon a time")
    told = (await receiver.until(caller.trace_id, "sage.request")).one("sage.request").attributes
    assert not {key for key in told if key.startswith("sage.target.")}
    absent = ("top_k", "seed", "frequency_penalty", "presence_penalty")
    assert not {f"gen_ai.request.{name}" for name in absent} & told.keys()
    assert not {"gen_ai.conversation.id", "sage.adapter", "sage.invalid_fields"} & told.keys()


async def test_an_attempt_that_failed_is_linked_to_its_retry(
    fleet: LocalFleet, receiver: OtlpReceiver, telemetry: dict[str, Any], caller: Caller
) -> None:
    for name in ("a", "b"):
        await fleet.add(name, settings={"telemetry": telemetry})
    fleet.executors["a"].engine.inject(Fault(kind=FaultKind.ERROR, after_tokens=3))
    await caller.answer("Once upon a time", max_tokens=8, preferred_instance="a")
    tree = await receiver.until(
        caller.trace_id, "sage.request", "sage.attempt", "sage.attempt", "sage.execute", "sage.execute"
    )
    first, retry = tree.all("sage.attempt")
    assert (first.attributes["sage.instance.id"], retry.attributes["sage.instance.id"]) == ("a", "b")
    assert (first.failed, retry.failed) == (True, False)
    assert (first.attributes["sage.attempt.end"], first.attributes["error.type"]) == ("failed", "failed")
    assert retry.links == [first.span_id]
    assert retry.attributes["sage.attempt.from_token"] > 0
    assert [wait.attributes["sage.queue.resumed"] for wait in tree.all("sage.queue")] == [False, True]
    assert parents(tree, "sage.execute") == {first.span_id, retry.span_id}
    request = tree.one("sage.request")
    assert (request.failed, request.attributes["sage.attempts"]) == (False, 2)


async def test_log_lines_of_both_services_name_the_request_and_its_trace(
    fleet: LocalFleet, telemetry: dict[str, Any], caller: Caller, json_lines: JsonLog
) -> None:
    for name in ("a", "b"):
        await fleet.add(name, settings={"telemetry": telemetry})
    fleet.executors["a"].engine.inject(Fault(kind=FaultKind.ERROR, after_tokens=3))
    await caller.answer("Once upon a time", max_tokens=8, preferred_instance="a")
    (requeued,) = json_lines.saying("is requeued")
    (failed,) = json_lines.saying("failed after 3 tokens")
    assert requeued["trace_id"] == failed["trace_id"] == caller.trace_id
    assert requeued["request"].endswith(failed["request"])
    assert (failed["instance"], failed["attempt"].split("/")[1]) == ("a", "1")


async def test_the_spans_of_a_dead_executor_are_missed_but_the_tree_holds(
    fleet: LocalFleet, receiver: OtlpReceiver, telemetry: dict[str, Any], caller: Caller
) -> None:
    for name in ("a", "b"):
        await fleet.add(name, settings={"telemetry": telemetry})
    fleet.executors["a"].engine.inject(Fault(kind=FaultKind.DIE, after_tokens=3))
    await caller.answer("Once upon a time", max_tokens=8, preferred_instance="a")
    tree = await receiver.until(caller.trace_id, "sage.request", "sage.attempt", "sage.attempt")
    first, retry = tree.all("sage.attempt")
    assert first.failed
    assert first.attributes["sage.failure"]
    assert retry.links == [first.span_id]


async def test_a_refused_request_has_a_span_that_says_why(
    fleet: LocalFleet, receiver: OtlpReceiver, one: LocalExecutor, caller: Caller
) -> None:
    assert await caller.refused("Once upon a time", model="other") == grpc.StatusCode.NOT_FOUND
    tree = await receiver.until(caller.trace_id, "sage.request", "sage.admission")
    assert tree.drawn(caller.span_id) == ["sage.request", ["sage.admission"]]
    request = tree.one("sage.request")
    assert request.failed
    told = request.attributes
    assert (told["sage.outcome"], told["error.type"]) == ("refused", "unknown_model")
    assert "sage.slo.met" not in told, "the caller's own mistake"


async def test_an_invalid_request_names_its_fields_and_quotes_nothing(
    receiver: OtlpReceiver, one: LocalExecutor, caller: Caller
) -> None:
    assert await caller.refused("Once", temperature=-3.25) == grpc.StatusCode.INVALID_ARGUMENT
    request = (await receiver.until(caller.trace_id, "sage.request")).one("sage.request")
    assert request.attributes["sage.invalid_fields"] == ["spec.sampling.temperature"]
    assert "sage.slo.met" not in request.attributes
    assert "-3.25" not in request.wire.status.message


async def test_a_cancelled_request_ends_without_an_error(
    receiver: OtlpReceiver, one: LocalExecutor, caller: Caller
) -> None:
    call = caller.call("Once upon a time", max_tokens=4_000)
    async for event in call:
        if event.HasField("tokens"):
            break
    call.cancel()
    tree = await receiver.until(caller.trace_id, "sage.request", "sage.execute")
    request, attempt = tree.one("sage.request"), tree.one("sage.attempt")
    assert (request.attributes["sage.outcome"], request.attributes["error.type"]) == ("cancelled", "client_gone")
    assert (request.failed, attempt.failed, tree.one("sage.execute").failed) == (False, False, False)
    assert attempt.attributes["sage.attempt.end"] == "cancelled"


async def test_a_caller_that_does_not_sample_is_obeyed_to_the_last_process(
    fleet: LocalFleet, receiver: OtlpReceiver, one: LocalExecutor
) -> None:
    quiet, loud = Caller(fleet=fleet, sampled=False), Caller(fleet=fleet)
    await quiet.answer("Once upon a time")
    await loud.answer("Once upon a time")
    await receiver.until(loud.trace_id, "sage.request", "sage.execute")
    assert receiver.tree(quiet.trace_id).spans == []


@pytest.mark.parametrize("telemetry_ratio", [0.0, 1.0])
async def test_who_sends_no_context_is_sampled_by_the_ratio(
    receiver: OtlpReceiver, telemetry: dict[str, Any], telemetry_ratio: float
) -> None:
    settings = {**telemetry, "sampling_ratio": telemetry_ratio}
    async with LocalFleet(telemetry=settings) as fleet:
        await fleet.add("one", settings={"telemetry": settings})
        await fleet.client.generate("Once upon a time", max_tokens=4).result()
        await fleet.client.generate("Once upon a time", max_tokens=4).result()
    assert len(Tree(receiver.spans).all("sage.request")) == (2 if telemetry_ratio else 0)
    assert len(Tree(receiver.spans).all("sage.execute")) == (2 if telemetry_ratio else 0)


SECRET = "Xyzzy plugh"


async def test_nothing_of_a_prompt_or_an_output_leaks(
    fleet: LocalFleet, receiver: OtlpReceiver, one: LocalExecutor, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    output = await caller.answer(SECRET, max_tokens=12)
    await receiver.until(caller.trace_id, "sage.request", "sage.execute")
    await eventually(lambda: receiver.metrics.get("sage-executor"), what="metrics")
    assert len(output) > 8
    for word in (SECRET, output):
        assert not any(word.encode() in raw for raw in receiver.raw)
        assert word not in caplog.text


async def test_content_is_on_the_span_once_it_is_switched_on(receiver: OtlpReceiver, telemetry: dict[str, Any]) -> None:
    async with LocalFleet(telemetry={**telemetry, "content": True}) as fleet:
        await fleet.add("one")
        caller = Caller(fleet=fleet)
        output = await caller.answer(SECRET)
        told = (await receiver.until(caller.trace_id, "sage.request")).one("sage.request").attributes
    assert SECRET in told["gen_ai.input.messages"]
    (answer,) = json.loads(told["gen_ai.output.messages"])
    assert answer == {
        "role": "assistant",
        "parts": [{"type": "text", "content": output}],
        "finish_reason": "length",
    }


def test_a_name_that_the_catalogue_has_not_or_not_there_is_noticed() -> None:
    wire = WireSpan(name="sage.decision", attributes=[KeyValue(key="sage.policy"), KeyValue(key="sage.polcy")])
    wire.events.add(name="sage.candidate", attributes=[KeyValue(key="sage.instnce.id")])
    wire.events.add(name="sage.first_token")
    wire.links.add(attributes=[KeyValue(key="sage.link", value=AnyValue(string_value="retry_of"))])
    attempt = WireSpan(name="sage.attempt")
    attempt.links.add(attributes=[KeyValue(key="sage.lnk")])
    sent = [Span("sage-scheduler", each) for each in (wire, attempt, WireSpan(name="sage.waiting"))]
    assert list(unlisted(sent)) == [
        "sage.decision > sage.polcy",
        "sage.decision > event sage.candidate > sage.instnce.id",
        "sage.decision > event sage.first_token",
        "sage.decision > link retry_of",
        "sage.attempt > link None",
        "sage.attempt > link > sage.lnk",
        "sage.waiting",
    ]


def told_by(event: WireSpan.Event) -> dict[str, Any]:
    return values(event.attributes)


def parents(tree: Tree, name: str) -> set[str]:
    return {span.parent_id for span in tree.all(name)}
