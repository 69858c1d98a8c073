"""The spans of one attempt as its executor saw it, without a service around it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from executor_svc.runtime.engine_port import FinishReason, Sampling
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.commands import Assign
from executor_svc.runtime.messages.outputs import EndCause, Ended
from executor_svc.telemetry.observer import TelemetryObserver
from sage_telemetry.catalogue import BOTH, EXECUTOR
from sage_telemetry.meter import Meter
from sage_telemetry.resource import Identity
from sage_telemetry.spans import SpanSource, SpanWriter, empty_request
from tests.support.otlp_values import values

FINISHED = Ended(attempt=AttemptId(1, 7), cause=EndCause.FINISHED, total_tokens=5, finish_reason=FinishReason.LENGTH)


class Kept:
    """In the span export's place."""

    def __init__(self) -> None:
        self.sources: list[SpanSource] = []

    def put(self, source: SpanSource) -> None:
        self.sources.append(source)


def spans(ended: Ended, *, first_token: bool = True, **assigned: Any) -> dict[str, Span]:
    """What is written of an attempt that ended so, by name."""
    kept = Kept()
    export: Any = kept
    observer = TelemetryObserver(
        Meter((*BOTH, *EXECUTOR)), export, instance_id="d", model="sim", engine="simulated", sampling_ratio=1.0
    )
    attempt = AttemptId(epoch=3, number=7)
    watch = observer.assigned(
        Assign(number=1, attempt=attempt, request_id="7", prompt_token_ids=(1, 2), sampling=Sampling(), **assigned)
    )
    if first_token:
        watch.first_token()
    watch.ended(ended)
    writer = SpanWriter(empty_request(Identity(service="executor", instance_id="d")))
    (source,) = kept.sources
    source.write_spans(writer)
    assert writer.count == source.span_count
    return {span.name: span for span in writer.request.resource_spans[0].scope_spans[0].spans}


def test_a_finished_attempt_says_what_it_ran_and_how_it_ended() -> None:
    written = spans(FINISHED)
    assert list(written) == ["sage.execute", "sage.prefill", "sage.decode"]
    told = values(written["sage.execute"].attributes)
    expected = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "simulated",
        "gen_ai.request.model": "sim",
        "gen_ai.usage.input_tokens": 2,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.response.finish_reasons": ["length"],
        "sage.attempt.number": 7,
        "sage.attempt.epoch": 3,
        "sage.attempt.end": "finished",
    }
    assert expected.items() <= told.items()
    assert not {"sage.failure", "error.type", "sage.kv.recomputed"} & told.keys()
    assert [event.name for event in written["sage.execute"].events] == ["sage.first_token"]


@pytest.mark.parametrize("recomputed", [True, False])
def test_a_decode_leg_says_where_it_computed_the_prompt_itself(recomputed: bool) -> None:
    written = spans(replace(FINISHED, kv_recomputed=recomputed), kv_transfer_params={"engine": "p"})
    assert list(written) == ["sage.execute", "sage.kv_transfer", "sage.decode"]
    said = [
        values(written[name].attributes).get("sage.kv.recomputed")
        for name in ("sage.execute", "sage.kv_transfer", "sage.decode")
    ]
    assert said == ([True, True, None] if recomputed else [None, None, None])


def test_an_attempt_that_failed_before_its_first_token_has_an_error_and_no_decode() -> None:
    ended = Ended(attempt=AttemptId(1, 7), cause=EndCause.FAILED, total_tokens=0, message="out of memory")
    written = spans(ended, first_token=False)
    assert list(written) == ["sage.execute", "sage.prefill"]
    execute = written["sage.execute"]
    assert (execute.status.code, execute.status.message) == (Status.STATUS_CODE_ERROR, "out of memory")
    told = values(execute.attributes)
    assert (told["sage.failure"], told["error.type"]) == ("out of memory", "failed")
    assert list(execute.events) == []


def test_what_the_engine_quotes_of_an_invalid_request_is_not_repeated() -> None:
    ended = Ended(attempt=AttemptId(1, 7), cause=EndCause.INVALID, total_tokens=0, message="'my secret' is no grammar")
    execute = spans(ended, first_token=False)["sage.execute"]
    assert execute.status.message == "the engine found the request invalid"
    assert not any("secret" in str(value) for value in values(execute.attributes).values())
