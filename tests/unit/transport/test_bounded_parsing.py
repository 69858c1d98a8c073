"""Messages that cannot be parsed, or hold more parts than any request needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.controlplane.v1 import common_pb2, executor_pb2, inference_pb2
from scheduler_svc.domain.errors import InvalidRequest
from scheduler_svc.transport import bounded_parsing
from scheduler_svc.transport.bounded_parsing import ELEMENTS_LIMIT, WALKED_FROM_BYTES, Unparsed, bounded, parsed
from tests.unit.transport.any_message import messages

Spec = inference_pb2.GenerationSpec


def parse(data: bytes) -> Any:
    deserialize = bounded(inference_pb2.GenerateRequest.FromString)
    assert deserialize is not None
    return deserialize(data)


def with_parts(count: int, text: str = "a" * 20) -> inference_pb2.GenerateRequest:
    part = inference_pb2.ContentPart(text=text)
    turn = inference_pb2.ChatMessage(role="user", content=[part] * count)
    return inference_pb2.GenerateRequest(spec=Spec(chat=inference_pb2.Chat(messages=[turn])))


CROWDED: dict[str, Message] = {
    "empty parts": with_parts(WALKED_FROM_BYTES, text=""),
    "parts": with_parts(ELEMENTS_LIMIT),
    "biases": inference_pb2.GenerateRequest(
        spec=Spec(sampling=common_pb2.SamplingParams(logit_bias=dict.fromkeys(range(ELEMENTS_LIMIT), 1.0)))
    ),
    "bad words": inference_pb2.GenerateRequest(
        spec=Spec(sampling=common_pb2.SamplingParams(bad_words=["a"] * WALKED_FROM_BYTES))
    ),
}


@pytest.mark.parametrize("name", CROWDED)
def test_too_many_parts_are_refused_unparsed(name: str) -> None:
    data = CROWDED[name].SerializeToString()
    found = parse(data)
    assert isinstance(found, Unparsed)
    [violation] = found.error().violations
    assert (violation.field, violation.description) == ("message", f"has more than {ELEMENTS_LIMIT} parts")


def test_large_fields_are_no_crowd() -> None:
    ids = inference_pb2.GenerateRequest(spec=Spec(tokens=inference_pb2.TokenIds(ids=range(1_000_000))))
    text = inference_pb2.GenerateRequest(spec=Spec(text="x" * 1_000_000))
    for request in (ids, text, with_parts(1_000, text="a" * 1_000)):
        assert parse(request.SerializeToString()) == request


def test_an_executors_frame_may_be_crowded() -> None:
    message = executor_pb2.OutputsRequest()
    for number in range(ELEMENTS_LIMIT):
        message.frame.tokens.add(attempt_number=number, text="a" * 20)
    deserialize = bounded(executor_pb2.OutputsRequest.FromString, walk=False)
    assert deserialize is not None
    assert deserialize(message.SerializeToString()) == message


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_whatever_bytes_come_nothing_is_raised(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded_parsing, "WALKED_FROM_BYTES", 0)
        found = parse(data)
    try:
        assert found == inference_pb2.GenerateRequest.FromString(data)
    except Exception:
        assert found == Unparsed("is not a GenerateRequest")


@given(messages(inference_pb2.GenerateRequest))
@settings(deadline=None, max_examples=50)
def test_whatever_message_comes_is_parsed_as_ever(request: inference_pb2.GenerateRequest) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded_parsing, "WALKED_FROM_BYTES", 0)
        assert parse(request.SerializeToString()).SerializeToString(deterministic=True) == request.SerializeToString(
            deterministic=True
        )


def test_a_number_without_end_is_not_read_to_its_end() -> None:
    data = b"\x08" + b"\x80" * (2 * WALKED_FROM_BYTES)
    assert parse(data) == Unparsed("is not a GenerateRequest")


async def test_a_stream_ends_at_what_was_not_parsed() -> None:
    async def stream() -> AsyncIterator[Any]:
        yield 1
        yield Unparsed("is not a number")
        yield 2

    messages = parsed(stream())
    assert await anext(messages) == 1
    with pytest.raises(InvalidRequest, match="message: is not a number"):
        await anext(messages)
