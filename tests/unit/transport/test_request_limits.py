"""Bounds in counts and bytes: refused by name, before conversion copies anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sage.controlplane.v1 import common_pb2, inference_pb2
from scheduler_svc.transport import request_limits as limits
from scheduler_svc.transport import submissions
from scheduler_svc.transport.violations import SHOWN_LIMIT, Violations

Spec = inference_pb2.GenerationSpec
Sampling = common_pb2.SamplingParams
Structured = common_pb2.StructuredOutput


def chat(*messages: inference_pb2.ChatMessage, arguments: str = "") -> Spec:
    return Spec(chat=inference_pb2.Chat(messages=messages, template_arguments_json=arguments))


def message(parts: int = 1, **fields: str) -> inference_pb2.ChatMessage:
    part = inference_pb2.ContentPart(text="a")
    return inference_pb2.ChatMessage(**{"role": "user", **fields}, content=[part] * parts)


def sampled(**fields: Any) -> Spec:
    return Spec(text="x", sampling=Sampling(**fields))


def constrained(**fields: Any) -> Spec:
    return sampled(structured_output=Structured(**fields))


def choices(*found: str) -> Structured.Choices:
    return Structured.Choices(choices=found)


CASES: dict[str, tuple[str, Callable[[int], Spec], int]] = {
    "model": ("spec.model", lambda n: Spec(text="x", model="m" * n), limits.NAME_BYTES),
    "adapter": ("spec.adapter", lambda n: Spec(text="x", adapter="m" * n), limits.NAME_BYTES),
    "session": ("spec.session", lambda n: Spec(text="x", session="m" * n), limits.NAME_BYTES),
    "instance": ("spec.preferred_instance", lambda n: Spec(text="x", preferred_instance="m" * n), limits.NAME_BYTES),
    "tags": ("spec.tags", lambda n: Spec(text="x", tags={str(i): "" for i in range(n)}), limits.TAGS_LIMIT),
    "messages": ("spec.chat.messages", lambda n: chat(*[message()] * n), limits.MESSAGES_LIMIT),
    "parts": ("spec.chat.messages", lambda n: chat(message(n)), limits.PARTS_LIMIT),
    "role": ("spec.chat.messages[0].role", lambda n: chat(message(role="r" * n)), limits.NAME_BYTES),
    "name": ("spec.chat.messages[0].name", lambda n: chat(message(name="r" * n)), limits.NAME_BYTES),
    "arguments": (
        "spec.chat.template_arguments_json",
        lambda n: chat(message(), arguments="{" + " " * (n - 2) + "}"),
        limits.TEMPLATE_ARGUMENTS_BYTES,
    ),
    "fields": (
        "spec.chat.messages[0].template_fields_json",
        lambda n: chat(message(template_fields_json="{" + " " * (n - 2) + "}")),
        limits.TEMPLATE_ARGUMENTS_BYTES,
    ),
    "stops": ("spec.sampling.stop", lambda n: sampled(stop=["s"] * n), limits.STRINGS_LIMIT),
    "stop": ("spec.sampling.stop", lambda n: sampled(stop=["s" * n]), limits.STRING_BYTES),
    "bad words": ("spec.sampling.bad_words", lambda n: sampled(bad_words=["s"] * n), limits.STRINGS_LIMIT),
    "bad word": ("spec.sampling.bad_words", lambda n: sampled(bad_words=["s" * n]), limits.STRING_BYTES),
    "stop ids": ("spec.sampling.stop_token_ids", lambda n: sampled(stop_token_ids=[1] * n), limits.STOP_IDS_LIMIT),
    "allowed": (
        "spec.sampling.allowed_token_ids",
        lambda n: sampled(allowed_token_ids=[1] * n),
        limits.ALLOWED_IDS_LIMIT,
    ),
    "biases": (
        "spec.sampling.logit_bias",
        lambda n: sampled(logit_bias=dict.fromkeys(range(n), 1.0)),
        limits.BIASES_LIMIT,
    ),
    "choices": (
        "spec.sampling.structured_output.choice",
        lambda n: constrained(choice=choices(*["c"] * n)),
        limits.CHOICES_LIMIT,
    ),
    "choice": (
        "spec.sampling.structured_output.choice",
        lambda n: constrained(choice=choices("c" * n)),
        limits.CONSTRAINT_BYTES,
    ),
    "schema": (
        "spec.sampling.structured_output.json_schema",
        lambda n: constrained(json_schema="{" + " " * (n - 2) + "}"),
        limits.CONSTRAINT_BYTES,
    ),
    "pattern": (
        "spec.sampling.structured_output.regex",
        lambda n: constrained(regex="a" * n),
        limits.CONSTRAINT_BYTES,
    ),
    "grammar": (
        "spec.sampling.structured_output.grammar",
        lambda n: constrained(grammar="a" * n),
        limits.CONSTRAINT_BYTES,
    ),
    "reasoning": (
        "spec.sampling.structured_output.reasoning_arguments",
        lambda n: constrained(json_object=True, reasoning_arguments="a" * n),
        limits.REASONING_ARGUMENTS_BYTES,
    ),
    "salt": ("spec.sampling.cache_salt", lambda n: sampled(cache_salt="s" * n), limits.SALT_BYTES),
    "engine options": (
        "spec.sampling.engine_options",
        lambda n: sampled(engine_options={str(i): "1" for i in range(n)}),
        limits.ENGINE_OPTIONS_LIMIT,
    ),
    "engine option": (
        "spec.sampling.engine_options['a']",
        lambda n: sampled(engine_options={"a": "1" * (n - 1)}),
        limits.ENGINE_OPTION_BYTES,
    ),
    "structural_tag": (
        "spec.sampling.structured_output.structural_tag",
        lambda n: constrained(structural_tag="a" * n),
        limits.CONSTRAINT_BYTES,
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_request_at_a_bound_is_converted_and_one_past_it_is_not(name: str) -> None:
    field, make, limit = CASES[name]
    at = await submissions.submission(inference_pb2.GenerateRequest(spec=make(limit)), {}, tenant="")
    assert at.violations == ()
    assert at.prompt is not None
    past = await submissions.submission(inference_pb2.GenerateRequest(spec=make(limit + 1)), {}, tenant="")
    [violation] = past.violations
    assert violation.field == field
    assert str(limit + 1) in violation.description
    assert str(limit) in violation.description
    assert (past.prompt, past.sampling) == (None, {}), "nothing of it was converted"


async def test_characters_of_several_bytes_count_as_their_bytes() -> None:
    spec = sampled(stop=["\N{SNOWMAN}" * (limits.STRING_BYTES // 3 + 1)])
    [violation] = (await submissions.submission(inference_pb2.GenerateRequest(spec=spec), {}, tenant="")).violations
    assert violation.field == "spec.sampling.stop"


async def test_a_large_request_is_converted_in_a_thread_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    request = inference_pb2.GenerateRequest(request_id="r", spec=Spec(tokens=inference_pb2.TokenIds(ids=[7] * 200_000)))
    here = submissions.converted(request, {}, "")
    assert await submissions.submission(request, {}, tenant="") == here
    monkeypatch.setattr(submissions, "INLINE_BYTES", 10_000_000)
    assert await submissions.submission(request, {}, tenant="") == here


def test_only_the_first_violations_are_kept() -> None:
    found = Violations()
    for index in range(10_000):
        found.add(f"spec.chat.messages[{index}]", "is empty")
    assert len(found) == SHOWN_LIMIT
