"""Assign from the wire: complete, in the numbers the caller wrote, and checked."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from executor_svc.runtime.engine_port import Sampling, StructuredKind, StructuredOutput
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.commands import (
    Assign,
    Continuation,
    ContinuationMode,
    InvalidAssign,
    Phase,
    TextOptions,
)
from executor_svc.transport.assign import KNOWN_OPTIONS_BYTES, assign_command
from sage.controlplane.v1 import common_pb2, executor_pb2


def wire(sampling: common_pb2.SamplingParams | None = None, **fields: Any) -> executor_pb2.Assign:
    fields.setdefault("prompt_token_ids", [1, 2])
    return executor_pb2.Assign(
        number=4,
        attempt=common_pb2.Attempt(epoch=7, number=12),
        request_id="r",
        sampling=sampling or common_pb2.SamplingParams(max_tokens=5),
        **fields,
    )


def converted(message: executor_pb2.Assign) -> Assign:
    command = assign_command(message)
    assert isinstance(command, Assign)
    return command


def complaint(message: executor_pb2.Assign) -> tuple[str, str]:
    command = assign_command(message)
    assert isinstance(command, InvalidAssign)
    assert (command.number, command.attempt) == (4, AttemptId(7, 12))
    return command.field_name, command.message


def test_every_sampling_field_arrives() -> None:
    sampling = common_pb2.SamplingParams(
        temperature=0.7,
        top_p=0.95,
        top_k=40,
        min_p=0.05,
        presence_penalty=0.1,
        frequency_penalty=-0.2,
        repetition_penalty=1.1,
        seed=-3,
        n=1,
        stop=["\n\n", "END"],
        stop_token_ids=[5],
        include_stop_in_output=True,
        min_tokens=2,
        max_tokens=9,
        logprobs=0,
        prompt_logprobs=3,
        ignore_eos=True,
        logit_bias={8: -1.5},
        allowed_token_ids=[1, 2],
        bad_words=["bad"],
        structured_output=common_pb2.StructuredOutput(regex="a+", reasoning_ended=False, reasoning_arguments="{}"),
        skip_special_tokens=False,
        cache_salt="salt",
        engine_options={"mine": "1"},
    )
    command = converted(wire(sampling))
    assert command.sampling == Sampling(
        temperature=0.7,
        top_p=0.95,
        top_k=40,
        min_p=0.05,
        presence_penalty=0.1,
        frequency_penalty=-0.2,
        repetition_penalty=1.1,
        seed=-3,
        stop_token_ids=(5,),
        bad_words=("bad",),
        min_tokens=2,
        max_tokens=9,
        logprobs=0,
        prompt_logprobs=3,
        ignore_eos=True,
        logit_bias={8: -1.5},
        allowed_token_ids=(1, 2),
        structured_output=StructuredOutput(
            kind=StructuredKind.REGEX, value="a+", reasoning_ended=False, reasoning_arguments="{}"
        ),
        cache_salt="salt",
        engine_options={"mine": "1"},
    )
    assert command.text == TextOptions(
        stop=("\n\n", "END"), include_stop_in_output=True, skip_special_tokens=False, min_tokens=2
    )


def test_each_field_of_the_message_is_taken_by_the_engine_or_by_the_text() -> None:
    ours = {each.name for value in (Sampling, TextOptions) for each in fields(value)}
    on_the_wire = {each.name for each in common_pb2.SamplingParams.DESCRIPTOR.fields}

    assert on_the_wire - {"n"} == ours  # n is checked and not kept: an attempt is one choice


def test_numbers_arrive_with_every_digit() -> None:
    command = converted(wire(common_pb2.SamplingParams(temperature=0.123456789, max_tokens=5)))

    assert command.sampling.temperature == 0.123456789


def test_absent_fields_mean_that_nothing_was_asked_for() -> None:
    command = converted(wire(common_pb2.SamplingParams(temperature=0, max_tokens=5)))
    assert command.sampling == Sampling(temperature=0.0, max_tokens=5)
    assert command.text == TextOptions()
    assert command.remaining_s is None
    assert command.continuation is None
    assert command.kv_transfer_params is None
    assert command.kv_lease_s is None
    assert command.adapter is None
    assert command.trace_headers == {}


def test_the_rest_of_it_arrives_too() -> None:
    command = converted(
        wire(
            engine_priority=-2,
            remaining=Duration(seconds=1, nanos=500_000_000),
            trace_context=common_pb2.TraceContext(traceparent="00-a-b-01"),
            adapter="lora",
            continuation=executor_pb2.Continuation(
                emitted_token_ids=[9, 8], mode=executor_pb2.Continuation.MODE_REPLAY, emitted_text_length=3
            ),
            kv_transfer_params=b'{"remote": [1]}',
            kv_lease=Duration(seconds=2),
            reasons=["earliest predicted finish"],
        )
    )
    assert (command.engine_priority, command.remaining_s, command.adapter) == (-2, 1.5, "lora")
    assert command.trace_headers == {"traceparent": "00-a-b-01"}
    assert command.continuation == Continuation(
        emitted_token_ids=[9, 8], emitted_text_length=3, mode=ContinuationMode.REPLAY
    )
    assert (command.kv_transfer_params, command.kv_lease_s) == ({"remote": [1]}, 2.0)
    assert command.reasons == ("earliest predicted finish",)


@pytest.mark.parametrize(
    ("structured", "expected"),
    [
        (common_pb2.StructuredOutput(json_schema="{}"), (StructuredKind.JSON_SCHEMA, "{}")),
        (common_pb2.StructuredOutput(json_object=True), (StructuredKind.JSON_OBJECT, "")),
        (common_pb2.StructuredOutput(grammar="root"), (StructuredKind.GRAMMAR, "root")),
        (common_pb2.StructuredOutput(structural_tag="{}"), (StructuredKind.STRUCTURAL_TAG, "{}")),
        (
            common_pb2.StructuredOutput(choice=common_pb2.StructuredOutput.Choices(choices=["ja", "nein"])),
            (StructuredKind.CHOICE, '["ja", "nein"]'),
        ),
    ],
)
def test_every_kind_of_structured_output_arrives(
    structured: common_pb2.StructuredOutput, expected: tuple[StructuredKind, str]
) -> None:
    command = converted(wire(common_pb2.SamplingParams(max_tokens=1, structured_output=structured)))
    kind, value = expected
    assert command.sampling.structured_output == StructuredOutput(kind=kind, value=value)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (wire(prompt_token_ids=[]), "prompt"),
        (wire(common_pb2.SamplingParams(n=2)), "sampling.n"),
        (wire(common_pb2.SamplingParams(stop=["a", ""])), "sampling.stop"),
        (
            wire(common_pb2.SamplingParams(structured_output=common_pb2.StructuredOutput())),
            "sampling.structured_output",
        ),
        (wire(continuation=executor_pb2.Continuation(emitted_token_ids=[1])), "continuation.mode"),
        (wire(phase=99), "phase"),
    ],
)
def test_what_makes_no_sense_is_named(message: executor_pb2.Assign, field: str) -> None:
    named, why = complaint(message)
    assert named == field
    assert why


@pytest.mark.parametrize(
    ("on_the_wire", "phase"),
    [
        (common_pb2.PHASE_UNSPECIFIED, Phase.HYBRID),
        (common_pb2.PHASE_HYBRID, Phase.HYBRID),
        (common_pb2.PHASE_PREFILLING, Phase.PREFILLING),
        (common_pb2.PHASE_DECODING, Phase.DECODING),
    ],
)
def test_the_phase_says_which_part_it_is(on_the_wire: common_pb2.Phase.ValueType, phase: Phase) -> None:
    assert converted(wire(phase=on_the_wire)).phase is phase


@pytest.mark.parametrize("garbage", [b"{", b"[1]", b"\xff"])
def test_transfer_parameters_that_cannot_be_read_are_no_fault_of_the_caller(garbage: bytes) -> None:
    """The engine refuses them, as it refuses what was changed on its way."""
    assert converted(wire(kv_transfer_params=garbage)).kv_transfer_params == {}


def test_the_same_options_are_converted_once() -> None:
    first, again = (converted(wire(common_pb2.SamplingParams(max_tokens=5, stop=["END"]))) for _ in range(2))
    other = converted(wire(common_pb2.SamplingParams(max_tokens=6, stop=["END"])))
    assert again.sampling is first.sampling
    assert again.text is first.text
    assert (first.sampling.max_tokens, other.sampling.max_tokens) == (5, 6)
    assert other.text == first.text


def test_an_absent_option_differs_from_its_zero() -> None:
    absent, zero = (converted(wire(common_pb2.SamplingParams(max_tokens=5, logprobs=each))) for each in (None, 0))
    assert (absent.sampling.logprobs, zero.sampling.logprobs) == (None, 0)


def test_long_options_are_not_kept() -> None:
    ids = list(range(1, KNOWN_OPTIONS_BYTES + 1))
    first, again = (converted(wire(common_pb2.SamplingParams(max_tokens=5, stop_token_ids=ids))) for _ in range(2))
    assert again.sampling == first.sampling
    assert again.sampling is not first.sampling


def test_bad_options_are_named_each_time() -> None:
    for _ in range(2):
        assert complaint(wire(common_pb2.SamplingParams(max_tokens=5, n=2)))[0] == "sampling.n"
