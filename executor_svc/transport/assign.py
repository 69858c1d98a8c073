"""Assign from the wire, checked.

Sampling is derived from the fields that the message has in common with ``Sampling`` and ``TextOptions``, by name.  A
new number, string, boolean or list of both needs no change here.  A test fails for a field that neither has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Self, cast

from executor_svc.runtime.engine_port import (
    EmbeddingOptions,
    EngineMedia,
    JsonValue,
    Sampling,
    StructuredKind,
    StructuredOutput,
)
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.commands import (
    Assign,
    Continuation,
    ContinuationMode,
    InvalidAssign,
    Phase,
    TextOptions,
)
from executor_svc.transport.enums import PHASE_FROM_WIRE
from sage.controlplane.v1 import common_pb2, executor_pb2
from sage_media.kinds import MediaKind
from sage_wire import durations
from sage_wire.metadata import TRACEPARENT, TRACESTATE

_MODES = {
    executor_pb2.Continuation.MODE_RESUME: ContinuationMode.RESUME,
    executor_pb2.Continuation.MODE_REPLAY: ContinuationMode.REPLAY,
    executor_pb2.Continuation.MODE_HISTORY: ContinuationMode.HISTORY,
}

UNLIMITED = 2**31 - 1  # max_tokens if the wire has none: the model's length limits the output

KNOWN_OPTIONS = 256  # combinations of options whose conversion is kept, the least recent goes first
KNOWN_OPTIONS_BYTES = 512  # on the wire; longer ones, with long lists, are converted each time


@dataclass(frozen=True, slots=True)
class _Names:
    """Fields that the message has in common with a value of ours; other messages and maps are left out."""

    scalars: tuple[str, ...]  # single values, absent unless set
    lists: tuple[str, ...]

    @classmethod
    def shared_with(cls, value: type[Sampling | TextOptions]) -> Self:
        ours = {each.name for each in fields(value)}
        shared = [
            each
            for each in common_pb2.SamplingParams.DESCRIPTOR.fields
            if each.name in ours and each.message_type is None
        ]
        return cls(
            scalars=tuple(each.name for each in shared if each.has_presence),
            lists=tuple(each.name for each in shared if not each.has_presence),
        )


_SAMPLING = _Names.shared_with(Sampling)
_TEXT = _Names.shared_with(TextOptions)


class BadField(Exception):
    """A field of an Assign makes no sense."""

    def __init__(self, field_name: str, message: str) -> None:
        super().__init__(message)
        self.field_name = field_name
        self.message = message


def assign_command(wire: executor_pb2.Assign) -> Assign | InvalidAssign:
    """Return the Assign, or an InvalidAssign that names the field at fault."""
    attempt = AttemptId(wire.attempt.epoch, wire.attempt.number)
    try:
        return _assign(wire, attempt)
    except BadField as bad:
        return InvalidAssign(
            number=wire.number,
            attempt=attempt,
            field_name=bad.field_name,
            message=bad.message,
            request_id=wire.request_id,
            trace_headers=_trace_headers(wire.trace_context),
        )


def _assign(wire: executor_pb2.Assign, attempt: AttemptId) -> Assign:
    if not wire.prompt_token_ids:
        raise BadField("prompt", "the prompt is empty")
    sampling, text = _options(wire.sampling)
    return Assign(
        number=wire.number,
        attempt=attempt,
        request_id=wire.request_id,
        prompt_token_ids=list(wire.prompt_token_ids),
        sampling=sampling,
        text=text,
        phase=_phase(wire),
        engine_priority=wire.engine_priority,
        remaining_s=durations.from_wire(wire.remaining) if wire.HasField("remaining") else None,
        trace_headers=_trace_headers(wire.trace_context),
        adapter=wire.adapter or None,
        continuation=_continuation(wire.continuation) if wire.HasField("continuation") else None,
        kv_transfer_params=kv_transfer_params(wire.kv_transfer_params) if wire.kv_transfer_params else None,
        kv_lease_s=durations.from_wire(wire.kv_lease) if wire.HasField("kv_lease") else None,
        reasons=tuple(wire.reasons),
        embedding=_embedding(wire.embedding) if wire.HasField("embedding") else None,
        media=tuple(_media(wire)),
        media_tokens=wire.image_tokens,
        adoption_proof=wire.adoption_proof,
        source=wire if wire.adoption_proof else None,
    )


def _media(wire: executor_pb2.Assign) -> Iterator[EngineMedia]:
    for kind, found in ((MediaKind.IMAGE, wire.images), (MediaKind.AUDIO, wire.audio)):
        for index, each in enumerate(found):
            if not each.data:
                raise BadField(f"{kind.field}[{index}]", "has no data; executors fetch nothing")
            yield EngineMedia(kind=kind, data=each.data, digest=hashlib.sha256(each.data).hexdigest())


def _phase(wire: executor_pb2.Assign) -> Phase:
    phase = PHASE_FROM_WIRE.get(wire.phase)
    if phase is None:
        raise BadField("phase", f"unknown phase {wire.phase}")
    return phase


def _options(wire: common_pb2.SamplingParams) -> tuple[Sampling, TextOptions]:
    encoded = wire.SerializeToString()
    return _known_options(encoded) if len(encoded) <= KNOWN_OPTIONS_BYTES else (_sampling(wire), _text_options(wire))


@lru_cache(maxsize=KNOWN_OPTIONS)
def _known_options(encoded: bytes) -> tuple[Sampling, TextOptions]:
    """Convert options, once for all requests that have the same.  Raises BadField, each time."""
    wire = common_pb2.SamplingParams.FromString(encoded)
    return _sampling(wire), _text_options(wire)


def _sampling(wire: common_pb2.SamplingParams) -> Sampling:
    if wire.HasField("n") and wire.n != 1:
        raise BadField("sampling.n", f"an attempt generates 1 choice, not {wire.n}")
    return Sampling(
        **{"max_tokens": UNLIMITED} | _given(wire, _SAMPLING),
        logit_bias=dict(wire.logit_bias),
        engine_options=dict(wire.engine_options),
        structured_output=_structured(wire.structured_output) if wire.HasField("structured_output") else None,
    )


def _given(wire: common_pb2.SamplingParams, names: _Names) -> dict[str, Any]:
    """Return the values that the wire has; a field that is absent keeps its default."""
    values = {name: getattr(wire, name) for name in names.scalars if wire.HasField(name)}  # type: ignore[arg-type]
    return values | {name: tuple(getattr(wire, name)) for name in names.lists}


def _structured(wire: common_pb2.StructuredOutput) -> StructuredOutput:
    kind, value = _constraint(wire)
    return StructuredOutput(
        kind=kind,
        value=value,
        reasoning_ended=wire.reasoning_ended if wire.HasField("reasoning_ended") else None,
        reasoning_arguments=wire.reasoning_arguments,
    )


def _constraint(wire: common_pb2.StructuredOutput) -> tuple[StructuredKind, str]:
    kind = wire.WhichOneof("kind")
    match kind:
        case "json_object":
            return StructuredKind.JSON_OBJECT, ""
        case "choice":
            return StructuredKind.CHOICE, json.dumps(list(wire.choice.choices))
        case "json_schema" | "regex" | "grammar" | "structural_tag":
            return StructuredKind(kind), getattr(wire, kind)
        case _:
            raise BadField("sampling.structured_output", "no constraint that this executor knows is set")


def _text_options(wire: common_pb2.SamplingParams) -> TextOptions:
    if any(not stop for stop in wire.stop):
        raise BadField("sampling.stop", "a stop string is empty")
    return TextOptions(**_given(wire, _TEXT))


def _embedding(wire: common_pb2.EmbeddingOptions) -> EmbeddingOptions:
    dimensions = wire.dimensions if wire.HasField("dimensions") else None
    if dimensions == 0:
        raise BadField("dimensions", "is 0; a vector has at least one number")
    return EmbeddingOptions(dimensions=dimensions, normalize=wire.normalize, raw=wire.raw)


def _continuation(wire: executor_pb2.Continuation) -> Continuation:
    mode = _MODES.get(wire.mode)
    if mode is None:
        raise BadField("continuation.mode", f"unknown mode {wire.mode}")
    return Continuation(
        emitted_token_ids=list(wire.emitted_token_ids),
        emitted_text_length=wire.emitted_text_length,
        mode=mode,
        best_effort=wire.best_effort,
    )


def _trace_headers(wire: common_pb2.TraceContext) -> dict[str, str]:
    pairs = ((TRACEPARENT, wire.traceparent), (TRACESTATE, wire.tracestate))
    return {key: value for key, value in pairs if value}


def kv_transfer_params(data: bytes) -> Mapping[str, JsonValue]:
    """Return the transfer parameters; empty if ``data`` is not a JSON object.

    Empty parameters have no seal, so the engine refuses them.  They are not reported as a bad field of the request,
    because another executor made them, not the caller.
    """
    try:
        params = json.loads(data)
    except ValueError:
        return {}
    return cast("dict[str, JsonValue]", params) if isinstance(params, dict) else {}
