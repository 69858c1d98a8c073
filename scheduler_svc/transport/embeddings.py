"""Embed on the wire: a call's inputs as submissions, their vectors as its response."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from array import array
from collections.abc import Mapping, Sequence

from sage.controlplane.v1 import common_pb2, inference_pb2
from sage_wire.protocol import PROMPT_LIMIT_BYTES
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.control.requests.request_group import MemberFailed, vector_of
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest, SchedulerError
from scheduler_svc.domain.request import Embedding, Priority
from scheduler_svc.transport import prompts
from scheduler_svc.transport.clipping import size_of
from scheduler_svc.transport.enums import PRIORITY_FROM_WIRE, WAIT_FROM_WIRE
from scheduler_svc.transport.request_limits import ID_CHARACTERS, NAME_BYTES, PROMPT_LIMIT_TOKENS
from scheduler_svc.transport.submissions import INLINE_BYTES, enum_value, key_of, seconds_of
from scheduler_svc.transport.violations import Violations

INPUTS_LIMIT = 2_048
RESPONSE_BYTES = 12 * 1024 * 1024  # of all vectors of a call: a response has at most 16 MiB
SUFFIX_CHARACTERS = 16  # that an input's place adds to the call's id
FLOAT_BYTES = 4

_OF_THE_PROMPT = ("spec.prompt", "spec.text", "spec.tokens", "spec.chat")


def to_wire(embedding: Embedding) -> common_pb2.EmbeddingOptions:
    """Convert options for an executor."""
    return common_pb2.EmbeddingOptions(
        dimensions=embedding.dimensions, normalize=embedding.normalize, raw=embedding.raw
    )


def from_wire(wire: common_pb2.EmbeddingOptions) -> Embedding:
    """Convert the options of an Assign that a scheduler sent."""
    dimensions = wire.dimensions if wire.HasField("dimensions") else None
    return Embedding(dimensions=dimensions, normalize=wire.normalize, raw=wire.raw)


async def submissions(
    request: inference_pb2.EmbedRequest, trace_headers: Mapping[str, str], *, tenant: str
) -> list[Submission]:
    """Convert a call, one submission for each input; a large one in a thread.

    Raises InvalidRequest with every field that is at fault and needs no model to be checked.
    """
    violations = Violations()
    _check(request, violations)
    if not violations:
        if request.ByteSize() <= INLINE_BYTES:
            found = _converted(request, trace_headers, tenant, violations)
        else:
            found = await asyncio.to_thread(_converted, request, trace_headers, tenant, violations)
    if violations:
        raise InvalidRequest(violations)
    return found


def _check(request: inference_pb2.EmbedRequest, violations: Violations) -> None:
    """Check counts and sizes, before any input is looked at."""
    longest = ID_CHARACTERS - SUFFIX_CHARACTERS
    for name, value, most in (("request_id", request.request_id, longest), ("tenant", request.tenant, ID_CHARACTERS)):
        if len(value) > most:
            violations.add(name, f"has {len(value)} characters; the limit is {most}")
        elif not value.isprintable():
            violations.add(name, "holds characters that cannot be printed")
    for name in ("model", "adapter", "preferred_instance"):
        if size_of(getattr(request, name)) > NAME_BYTES:
            violations.add(name, f"is longer than {NAME_BYTES} bytes")
    if not 1 <= len(request.inputs) <= INPUTS_LIMIT:
        violations.add("inputs", f"are {len(request.inputs)}; there must be 1 to {INPUTS_LIMIT}")
        return
    if 4 * sum(len(each.text) for each in request.inputs) > PROMPT_LIMIT_BYTES:
        size = sum(size_of(each.text) for each in request.inputs)
        if size > PROMPT_LIMIT_BYTES:
            violations.add("inputs", f"have {size} bytes of text; the limit is {PROMPT_LIMIT_BYTES}")
    tokens = sum(len(each.tokens.ids) for each in request.inputs)
    if tokens > PROMPT_LIMIT_TOKENS:
        violations.add("inputs", f"have {tokens} tokens; the limit is {PROMPT_LIMIT_TOKENS}")


def _converted(
    request: inference_pb2.EmbedRequest, trace_headers: Mapping[str, str], tenant: str, violations: Violations
) -> list[Submission]:
    if request.HasField("dimensions") and not request.dimensions:
        violations.add("dimensions", "is 0; a vector has at least one number")
    if request.raw and request.normalize:
        violations.add("raw", "a vector is scaled to length 1 or left as it is, not both")
    priority = enum_value(PRIORITY_FROM_WIRE, request.priority, "priority", Priority.NORMAL, violations)
    waits = enum_value(WAIT_FROM_WIRE, request.no_instance, "no_instance", False, violations)
    deadline_s = seconds_of(request, "deadline", "deadline", violations)
    embedding = Embedding(
        dimensions=request.dimensions if request.HasField("dimensions") else None,
        normalize=request.normalize,
        raw=request.raw,
    )
    shared = f"{request.model!r} {request.adapter!r} {embedding} {priority} {deadline_s}".encode()
    request_id = request.request_id or uuid.uuid4().hex
    found = []
    for place, each in enumerate(request.inputs):
        found.append(
            Submission(
                key=key_of(tenant, request_id if len(request.inputs) == 1 else f"{request_id}/{place}"),
                digest=hashlib.sha256(b"embed" + shared + each.SerializeToString(deterministic=True)).digest(),
                model=request.model,
                prompt=prompts.input_prompt(each, f"inputs[{place}]", violations),
                sampling={},
                priority=priority,
                deadline_s=deadline_s,
                preferred_instance=request.preferred_instance,
                adapter=request.adapter,
                wait_for_instance=waits,
                fresh=request.fresh or not request.request_id,
                trace_headers=trace_headers,
                embedding=embedding,
            )
        )
    return found


def too_large(inputs: int, dimensions: int) -> InvalidRequest | None:
    """Return the error of a call whose vectors would not fit into a response; None if they do."""
    size = FLOAT_BYTES * inputs * dimensions
    if size <= RESPONSE_BYTES:
        return None
    what = f"{inputs} vectors of {dimensions} numbers have {size} bytes; the limit of a call is {RESPONSE_BYTES}"
    return InvalidRequest([FieldViolation(field="inputs", description=what)])


def failure_of(failed: MemberFailed) -> SchedulerError:
    """Return the error of a call one of whose inputs failed; fields are named as they are in EmbedRequest."""
    error = failed.error
    if not isinstance(error, InvalidRequest):
        return error
    return InvalidRequest(
        [
            FieldViolation(field=_field(violation.field, failed.place), description=violation.description)
            for violation in error.violations
        ]
    )


def _field(field: str, place: int) -> str:
    if field.startswith(_OF_THE_PROMPT):
        return f"inputs[{place}]"
    return field.removeprefix("spec.")


def response(
    request_id: str, requests: Sequence[LiveRequest], *, as_bytes: bool, classifies: bool = False
) -> inference_pb2.EmbedResponse:
    """Make the response of a call whose requests all finished.  ``classifies``: whether the model does."""
    outcomes = [each.outcome for each in requests if isinstance(each.outcome, Finished)]
    made = inference_pb2.EmbedResponse(
        usage=common_pb2.Usage(
            prompt_tokens=sum(each.prompt_tokens for each in outcomes),
            cached_prompt_tokens=sum(each.cached_prompt_tokens for each in outcomes),
        ),
        request_id=request_id,
        model=requests[0].request.model,
        cost=sum(each.cost for each in outcomes),
        classifies=classifies,
    )
    for each in requests:
        vector = vector_of(each)
        if as_bytes:
            made.embeddings.add(data=vector)
        else:
            made.embeddings.add(values=array("f", vector))
    return made
