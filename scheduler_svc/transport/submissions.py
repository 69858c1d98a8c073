"""GenerateRequest → Submission.  Finds what can be found without knowing the model; misses nothing, stops at nothing:
all that is wrong is reported at once."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration

from sage.controlplane.v1 import common_pb2, inference_pb2
from sage_wire import durations
from sage_wire.protocol import PROMPT_LIMIT_BYTES
from scheduler_svc.control.requests.submission import ChatPrompt, Prompt, Submission, TextPrompt, TokenPrompt
from scheduler_svc.control.requests.tokenizers import ChatTurn, Conversation
from scheduler_svc.domain.errors import FieldViolation
from scheduler_svc.domain.request import Priority, RequestKey, ResumeMode, StructuredOutput
from scheduler_svc.transport.enums import PRIORITY_FROM_WIRE, RESUME_MODE_FROM_WIRE, WAIT_FROM_WIRE

E = TypeVar("E", bound=int)
T = TypeVar("T")

ID_LIMIT = 256  # characters
TAGS_LIMIT = 16
TAG_BYTES = 256
PROMPT_LIMIT_TOKENS = 2 * 1024 * 1024  # so many take the event loop a third of a second
DEFAULT_TENANT = "default"

SCALARS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "include_stop_in_output",
    "min_tokens",
    "max_tokens",
    "logprobs",
    "prompt_logprobs",
    "ignore_eos",
    "skip_special_tokens",
)
"""Sampling fields with presence: absent means the model's default."""

LISTS = ("stop", "stop_token_ids", "allowed_token_ids", "bad_words")


class _Findings(list[FieldViolation]):
    def add(self, field: str, description: str) -> None:
        self.append(FieldViolation(field=field, description=description))


def key_of(tenant: str, request_id: str) -> RequestKey:
    """As a message names a request: who names no tenant is of the default one."""
    return RequestKey(tenant=tenant or DEFAULT_TENANT, request_id=request_id)


def submission(request: inference_pb2.GenerateRequest, trace_headers: Mapping[str, str]) -> Submission:
    spec, found = request.spec, _Findings()
    _check_id(request.request_id, "request_id", found)
    _check_id(request.tenant, "tenant", found)
    _check_tags(spec.tags, found)
    prompt = _prompt(spec, found)
    return Submission(
        key=key_of(request.tenant, request.request_id or uuid.uuid4().hex),
        digest=hashlib.sha256(spec.SerializeToString(deterministic=True)).digest(),
        model=spec.model,
        prompt=prompt,
        sampling=_sampling(spec.sampling, found),
        priority=_enum(PRIORITY_FROM_WIRE, spec.priority, "spec.priority", Priority.NORMAL, found),
        deadline_s=_duration(spec, "deadline", found),
        ttft_target_s=_duration(spec, "ttft_target", found),
        tpot_target_s=_duration(spec, "tpot_target", found),
        cost_budget=_budget(spec, found),
        session=spec.session,
        tags=dict(spec.tags),
        preferred_instance=spec.preferred_instance,
        adapter=spec.adapter,
        wait_for_instance=_enum(WAIT_FROM_WIRE, spec.no_instance, "spec.no_instance", False, found),
        resume_mode=_enum(RESUME_MODE_FROM_WIRE, spec.resume_mode, "spec.resume_mode", ResumeMode.STRICT, found),
        detached=request.detached,
        after_token=request.after_token,
        trace_headers=trace_headers,
        violations=tuple(found),
    )


def _check_id(value: str, field: str, found: _Findings) -> None:
    if len(value) > ID_LIMIT:
        found.add(field, f"has {len(value)} characters; the limit is {ID_LIMIT}")
    elif not value.isprintable():
        found.add(field, "holds characters that cannot be printed")


def _check_tags(tags: Mapping[str, str], found: _Findings) -> None:
    if len(tags) > TAGS_LIMIT:
        found.add("spec.tags", f"has {len(tags)} entries; the limit is {TAGS_LIMIT}")
    for key, value in tags.items():
        if len(key.encode()) + len(value.encode()) > TAG_BYTES:
            found.add(f"spec.tags[{key[:32]!r}]", f"key and value are longer than {TAG_BYTES} bytes")


def _enum(table: Mapping[E, T], value: E, field: str, default: T, found: _Findings) -> T:
    if value not in table:
        found.add(field, f"{value} is not one of its values")
    return table.get(value, default)


def _duration(spec: inference_pb2.GenerationSpec, name: str, found: _Findings) -> float | None:
    if not spec.HasField(name):  # type: ignore[arg-type]
        return None
    value: Duration = getattr(spec, name)
    seconds = durations.from_wire(value)
    if seconds <= 0:
        found.add(f"spec.{name}", f"is {seconds:g} s; it must be positive")
    elif seconds > durations.LIMIT_S:
        found.add(f"spec.{name}", f"is {seconds:g} s; the limit is {durations.LIMIT_S:g} s")
    return seconds


def _budget(spec: inference_pb2.GenerationSpec, found: _Findings) -> float | None:
    if not spec.HasField("cost_budget"):
        return None
    if not math.isfinite(spec.cost_budget) or spec.cost_budget < 0:
        found.add("spec.cost_budget", f"is {spec.cost_budget}; it must be a number >= 0")
    return spec.cost_budget


# --- prompts ----------------------------------------------------------------------------------


def _prompt(spec: inference_pb2.GenerationSpec, found: _Findings) -> Prompt | None:
    before = len(found)
    kind = spec.WhichOneof("prompt")
    prompt: Prompt | None = None
    if kind == "text":
        _check_text(spec.text, "spec.text", found)
        prompt = TextPrompt(text=spec.text, special_tokens=not spec.skip_special_tokens_in_prompt)
    elif kind == "tokens":
        count = len(spec.tokens.ids)
        if not count:
            found.add("spec.tokens.ids", "is empty")
        elif count > PROMPT_LIMIT_TOKENS:
            found.add("spec.tokens.ids", f"has {count} tokens; the limit is {PROMPT_LIMIT_TOKENS}")
        else:
            prompt = TokenPrompt(token_ids=list(spec.tokens.ids))
    elif kind == "chat":
        prompt = _chat(spec.chat, found)
    else:
        found.add("spec.prompt", "give one of text, tokens, chat")
    return prompt if len(found) == before else None


def _check_text(text: str, field: str, found: _Findings) -> None:
    if not text:
        found.add(field, "is empty")
        return
    size = len(text.encode(errors="replace"))
    if size > PROMPT_LIMIT_BYTES:
        found.add(field, f"has {size} bytes; the limit is {PROMPT_LIMIT_BYTES}")


def _chat(chat: inference_pb2.Chat, found: _Findings) -> ChatPrompt:
    if not chat.messages:
        found.add("spec.chat.messages", "is empty")
    turns, size = [], 0
    for index, message in enumerate(chat.messages):
        turn = _turn(message, f"spec.chat.messages[{index}]", found)
        turns.append(turn)
        size += len(turn.text.encode(errors="replace"))
    if size > PROMPT_LIMIT_BYTES:
        found.add("spec.chat.messages", f"have {size} bytes; the limit is {PROMPT_LIMIT_BYTES}")
    return ChatPrompt(
        conversation=Conversation(
            turns=turns,
            continue_final_message=chat.continue_final_message,
            template_arguments=_template_arguments(chat.template_arguments_json, found),
        )
    )


def _turn(message: inference_pb2.ChatMessage, path: str, found: _Findings) -> ChatTurn:
    if not message.role:
        found.add(f"{path}.role", "is empty")
    texts = []
    for index, part in enumerate(message.content):
        kind = part.WhichOneof("part")
        if kind == "text":
            texts.append(part.text)
        else:
            what = f"{kind} input is not supported" if kind else "is empty"
            found.add(f"{path}.content[{index}]", what)
    return ChatTurn(role=message.role, text="".join(texts), name=message.name)


def _template_arguments(source: str, found: _Findings) -> Mapping[str, Any]:
    if not source:
        return {}
    try:
        arguments = json.loads(source)
    except (ValueError, RecursionError) as error:
        found.add("spec.chat.template_arguments_json", f"is not JSON: {error}")
        return {}
    if not isinstance(arguments, dict):
        found.add("spec.chat.template_arguments_json", "is not a JSON object")
        return {}
    return arguments


# --- sampling ---------------------------------------------------------------------------------


def _sampling(wire: common_pb2.SamplingParams, found: _Findings) -> dict[str, Any]:
    given: dict[str, Any] = {name: getattr(wire, name) for name in SCALARS if wire.HasField(name)}  # type: ignore[arg-type]
    given |= {name: tuple(values) for name in LISTS if (values := getattr(wire, name))}
    if wire.logit_bias:
        given["logit_bias"] = dict(wire.logit_bias)
    if wire.HasField("n") and wire.n != 1:
        found.add("spec.sampling.n", f"is {wire.n}; this version generates one choice per request")
    if wire.HasField("structured_output"):
        given["structured_output"] = _structured(wire.structured_output, found)
    return given


def _structured(wire: common_pb2.StructuredOutput, found: _Findings) -> StructuredOutput | None:
    field = "spec.sampling.structured_output"
    kind = wire.WhichOneof("kind")
    if kind is None:
        found.add(field, "give one of json_schema, json_object, regex, choice, grammar")
        return None
    if kind == "json_object":
        if not wire.json_object:
            found.add(f"{field}.json_object", "is false; leave structured_output out instead")
        return StructuredOutput(kind=kind, value="")
    if kind == "choice":
        choices = list(wire.choice.choices)
        if not choices or not all(choices):
            found.add(f"{field}.choice", "must hold at least one string, none of them empty")
        return StructuredOutput(kind=kind, value=json.dumps(choices))
    value: str = getattr(wire, kind)
    if not value:
        found.add(f"{field}.{kind}", "is empty")
    return StructuredOutput(kind=kind, value=value)
