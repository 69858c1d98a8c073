"""Messages that cannot be parsed, or hold more parts than any request needs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.controlplane.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    common_pb2,
    executor_pb2,
    inference_pb2,
    inference_pb2_grpc,
)
from scheduler_svc.domain.errors import InvalidRequest
from scheduler_svc.transport import bounded_parsing
from scheduler_svc.transport import request_limits as limits
from scheduler_svc.transport.bounded_parsing import (
    ELEMENTS_LIMIT,
    NUMBERS_PER_PART,
    SMALL_MESSAGE_BYTES,
    WALKED_FROM_BYTES,
    Unparsed,
    bounded,
    parsed,
)
from tests.unit.transport.any_message import messages
from tests.unit.transport.served import serving

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
    tag = inference_pb2.GenerateRequest(spec=Spec(tags={"a": "v" * 10_000_000}))
    for request in (ids, text, tag, with_parts(1_000, text="a" * 1_000)):
        assert parse(request.SerializeToString()) == request


@pytest.mark.parametrize("group", [b"\x0b\x0c", b"\xfb\x7f\xfc\x7f"], ids=["of a known number", "of another"])
def test_a_group_does_not_hide_what_follows_it(group: bytes) -> None:
    """Parsers skip groups that they do not know and go on."""
    data = CROWDED["empty parts"].SerializeToString()
    assert inference_pb2.GenerateRequest.FromString(group + data).HasField("spec")
    assert parse(group + data) == Unparsed(f"has more than {ELEMENTS_LIMIT} parts")


def test_a_request_at_all_its_limits_is_parsed() -> None:
    each = limits.PARTS_LIMIT // limits.MESSAGES_LIMIT
    parts = [inference_pb2.ContentPart(text="a" * 20)] * each
    turn = inference_pb2.ChatMessage(role="user", name="carol", content=parts)
    sampling = common_pb2.SamplingParams(
        stop=["a"] * limits.STRINGS_LIMIT,
        bad_words=["a"] * limits.STRINGS_LIMIT,
        stop_token_ids=range(limits.STOP_IDS_LIMIT),
        allowed_token_ids=range(limits.ALLOWED_IDS_LIMIT),
        logit_bias=dict.fromkeys(range(limits.BIASES_LIMIT), 1.0),
    )
    sampling.structured_output.choice.choices.extend(["a"] * limits.CHOICES_LIMIT)
    chat = inference_pb2.Chat(messages=[turn] * limits.MESSAGES_LIMIT)
    tags = {str(number): "a" for number in range(limits.TAGS_LIMIT)}
    request = inference_pb2.GenerateRequest(spec=Spec(model="m", chat=chat, sampling=sampling, tags=tags))
    assert parse(request.SerializeToString()) == request


def test_a_prompt_of_the_largest_number_of_ids_is_parsed_and_a_much_larger_one_is_not() -> None:
    def prompt(tokens: int) -> bytes:
        request = inference_pb2.GenerateRequest(spec=Spec(tokens=inference_pb2.TokenIds(ids=[1] * tokens)))
        return request.SerializeToString()

    assert len(parse(prompt(limits.PROMPT_LIMIT_TOKENS)).spec.tokens.ids) == limits.PROMPT_LIMIT_TOKENS
    crowd = prompt(ELEMENTS_LIMIT * NUMBERS_PER_PART)
    assert isinstance(parse(crowd), Unparsed)
    pieces = prompt(limits.PROMPT_LIMIT_TOKENS) * 4  # the parser joins them
    assert isinstance(parse(pieces), Unparsed)


@pytest.mark.parametrize("file", [admin_pb2, executor_pb2, inference_pb2], ids=lambda file: file.__name__)
def test_every_request_has_a_shape(file: Any) -> None:
    """None holds a message of its own type, which would have no end."""
    for service in file.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            assert bounded_parsing._shape(method.input_type) is not None


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


def test_a_message_that_is_too_large_is_not_parsed() -> None:
    deserialize = bounded(inference_pb2.CancelRequest.FromString, size_limit=100)
    assert deserialize is not None
    assert deserialize(bytes(101)) == Unparsed("has 101 bytes; the limit is 100")


async def test_a_call_without_a_prompt_takes_no_large_message() -> None:
    """Ids and names of megabytes would be copied into errors and log lines."""
    large = "x" * SMALL_MESSAGE_BYTES
    async with serving() as scheduler, grpc.aio.insecure_channel(f"127.0.0.1:{scheduler.port}") as channel:
        admin, inference = admin_pb2_grpc.AdminServiceStub(channel), inference_pb2_grpc.InferenceServiceStub(channel)
        calls: list[Any] = [
            admin.Explain(admin_pb2.ExplainRequest(request_id=large)),
            admin.DrainInstance(admin_pb2.DrainInstanceRequest(instance_id=large)),
            admin.SetPolicy(admin_pb2.SetPolicyRequest(policy=large)),
            inference.Cancel(inference_pb2.CancelRequest(request_id=large)),
        ]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call
            assert re.search(r"^message: has \d+ bytes; the limit is 65536", str(error.value.details()))
        prompt: Any = inference.Generate(inference_pb2.GenerateRequest(spec=Spec(model="none", text=large)))
        with pytest.raises(grpc.aio.AioRpcError, match="no instance can serve"):
            await prompt.read()


async def test_a_stream_ends_at_what_was_not_parsed() -> None:
    async def stream() -> AsyncIterator[Any]:
        yield 1
        yield Unparsed("is not a number")
        yield 2

    messages = parsed(stream())
    assert await anext(messages) == 1
    with pytest.raises(InvalidRequest, match="message: is not a number"):
        await anext(messages)
