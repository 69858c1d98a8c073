"""What control orders arrives in the Assign.

Each test fills every field with its own value, so that one that is added and forgotten, or crossed with another, fails.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from sage.controlplane.v1 import common_pb2, executor_pb2
from sage_media.kinds import MediaKind
from sage_wire import durations
from scheduler_svc.control.attempts.executor_link import AssignOrder, Continuation, KvHandoff
from scheduler_svc.domain.continuation import ContinuationMode
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.media import Media
from scheduler_svc.domain.request import Embedding, Sampling, StructuredOutput
from scheduler_svc.transport import embeddings
from scheduler_svc.transport.assign import assign_message
from tests.unit.transport.completeness import at_default, unset
from tests.unit.transport.filled_values import EPOCH, REQUEST, SAMPLING

ONE_CHOICE = common_pb2.StructuredOutput.Choices(choices=["a"])


def the_order() -> AssignOrder:
    return AssignOrder(
        number=41,
        epoch=EPOCH,
        attempt_number=12,
        phase=Phase.DECODING,
        request=REQUEST,
        sampling=SAMPLING,
        engine_priority=3,
        remaining_s=9.5,
        reasons=("because",),
        trace_headers={"traceparent": "ours", "tracestate": "state"},
        continuation=Continuation(
            emitted_token_ids=[8, 9], emitted_text_length=4, mode=ContinuationMode.REPLAY, best_effort=True
        ),
        handoff=KvHandoff(params=b"{}", lease_s=3.5),
    )


def test_an_assign_says_everything() -> None:
    order = the_order()
    wire = assign_message(order)
    media = {"images", "audio", "image_tokens"}  # not with a handoff
    assert unset(wire) == {"direct_delivery_ticket", "record", "adoption_proof", "embedding"} | media
    assert wire.number == 41
    assert (wire.attempt.epoch, wire.attempt.number) == (EPOCH, 12)
    assert (wire.request_id, wire.phase, list(wire.prompt_token_ids)) == ("r", common_pb2.PHASE_DECODING, [1, 2, 3])
    assert wire.engine_priority == 3
    assert durations.from_wire(wire.remaining) == 9.5
    assert (wire.trace_context.traceparent, wire.trace_context.tracestate) == ("ours", "state")
    assert wire.adapter == "lora"
    assert (wire.kv_transfer_params, durations.from_wire(wire.kv_lease)) == (b"{}", 3.5)
    assert list(wire.reasons) == ["because"]
    assert unset(wire.continuation) == set()
    assert list(wire.continuation.emitted_token_ids) == [8, 9]
    assert wire.continuation.emitted_text_length == 4
    assert wire.continuation.mode == executor_pb2.Continuation.MODE_REPLAY
    assert wire.continuation.best_effort


@pytest.mark.parametrize("embedding", [Embedding(), Embedding(dimensions=7, normalize=True), Embedding(raw=True)])
def test_an_assign_says_how_to_embed(embedding: Embedding) -> None:
    wire = assign_message(replace(the_order(), request=replace(REQUEST, embedding=embedding)))
    assert wire.HasField("embedding")
    assert embeddings.from_wire(wire.embedding) == embedding


def test_an_assign_has_the_media_and_the_tokens_that_they_may_take() -> None:
    media = (Media(data=b"one"), Media(kind=MediaKind.AUDIO, data=b"clip"), Media(data=b"two"))
    wire = assign_message(replace(the_order(), request=replace(REQUEST, media=media, media_tokens=36)))
    assert ([each.data for each in wire.images], wire.image_tokens) == ([b"one", b"two"], 36)
    assert [each.data for each in wire.audio] == [b"clip"]


def test_sampling_is_complete_in_an_assign() -> None:
    assert at_default(SAMPLING) == set(), "the test itself must fill everything"
    wire = assign_message(the_order()).sampling
    assert unset(wire) == {"n"}, "one choice per request: the executor has no choice either"
    for name in ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty"):
        assert getattr(wire, name) == getattr(SAMPLING, name)
    for name in ("repetition_penalty", "seed", "min_tokens", "max_tokens", "logprobs", "prompt_logprobs"):
        assert getattr(wire, name) == getattr(SAMPLING, name)
    for name in ("include_stop_in_output", "ignore_eos", "skip_special_tokens"):
        assert getattr(wire, name) is getattr(SAMPLING, name)
    for name in ("stop", "stop_token_ids", "allowed_token_ids", "bad_words"):
        assert tuple(getattr(wire, name)) == getattr(SAMPLING, name)
    assert dict(wire.logit_bias) == SAMPLING.logit_bias
    assert (wire.cache_salt, dict(wire.engine_options)) == (SAMPLING.cache_salt, SAMPLING.engine_options)
    assert (wire.structured_output.reasoning_ended, wire.structured_output.reasoning_arguments) == (True, "{}")


def test_defaults_are_said_not_left_out() -> None:
    order = AssignOrder(
        number=1,
        epoch=EPOCH,
        attempt_number=1,
        phase=Phase.HYBRID,
        request=REQUEST,
        sampling=Sampling(),
        engine_priority=0,
        remaining_s=None,
    )
    wire = assign_message(order)
    for name in ("temperature", "top_p", "top_k", "max_tokens", "ignore_eos", "skip_special_tokens"):
        assert wire.sampling.HasField(name), name
    for name in ("remaining", "continuation", "kv_lease"):
        assert not wire.HasField(name), name  # type: ignore[arg-type]
    for name in ("seed", "logprobs", "prompt_logprobs", "structured_output"):
        assert not wire.sampling.HasField(name), name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("structured", "wire"),
    [
        (StructuredOutput(kind="json_schema", value="{}"), common_pb2.StructuredOutput(json_schema="{}")),
        (StructuredOutput(kind="json_object", value=""), common_pb2.StructuredOutput(json_object=True)),
        (StructuredOutput(kind="regex", value="a"), common_pb2.StructuredOutput(regex="a")),
        (StructuredOutput(kind="choice", value='["a"]'), common_pb2.StructuredOutput(choice=ONE_CHOICE)),
        (StructuredOutput(kind="grammar", value="g"), common_pb2.StructuredOutput(grammar="g")),
        (StructuredOutput(kind="structural_tag", value="t"), common_pb2.StructuredOutput(structural_tag="t")),
    ],
)
def test_every_kind_of_structured_output_goes_out(
    structured: StructuredOutput, wire: common_pb2.StructuredOutput
) -> None:
    order = AssignOrder(
        number=1,
        epoch=EPOCH,
        attempt_number=1,
        phase=Phase.HYBRID,
        request=REQUEST,
        sampling=Sampling(structured_output=structured),
        engine_priority=0,
        remaining_s=None,
    )
    assert assign_message(order).sampling.structured_output == wire


def test_a_message_does_not_change_when_the_request_goes_on() -> None:
    emitted = [8, 9]
    continuation = Continuation(
        emitted_token_ids=emitted, emitted_text_length=2, mode=ContinuationMode.RESUME, best_effort=False
    )
    order = AssignOrder(
        number=1,
        epoch=EPOCH,
        attempt_number=1,
        phase=Phase.HYBRID,
        request=REQUEST,
        sampling=Sampling(),
        engine_priority=0,
        remaining_s=None,
        continuation=continuation,
    )
    wire = assign_message(order)
    emitted.append(10)
    assert list(wire.continuation.emitted_token_ids) == [8, 9]
    assert wire.continuation.mode == executor_pb2.Continuation.MODE_RESUME
