"""GenerateRequest and SubmitRequest as a Submission: conversion, and the checks that need no model.

Conversion goes on after a violation, so that the caller gets every field at fault at once.  The checks that need
the model follow in ``domain.admission``.  Prompts and sampling have files of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from sage.controlplane.v1 import common_pb2, inference_pb2
from sage_wire import durations
from scheduler_svc.access.identity import Identity
from scheduler_svc.control.requests.read_from import ReadFrom
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.domain.errors import RequestNotFound
from scheduler_svc.domain.request import Priority, RequestKey, ResumeMode
from scheduler_svc.transport import media, prompts, request_limits, sampling_params
from scheduler_svc.transport.enums import PRIORITY_FROM_WIRE, RESUME_MODE_FROM_WIRE, WAIT_FROM_WIRE
from scheduler_svc.transport.request_limits import ID_CHARACTERS, NAME_BYTES
from scheduler_svc.transport.violations import Violations

E = TypeVar("E", bound=int)
T = TypeVar("T")

Request: TypeAlias = inference_pb2.GenerateRequest | inference_pb2.SubmitRequest

DEFAULT_TENANT = "default"

INLINE_BYTES = 64 * 1024
"""Requests up to this size are converted on the event loop, which takes less than a millisecond."""


def key_of(tenant: str, request_id: str) -> RequestKey:
    """Return the key of a request as a message names it; without a tenant it belongs to DEFAULT_TENANT."""
    return RequestKey(tenant=tenant or DEFAULT_TENANT, request_id=request_id)


def attempt_name(wire: common_pb2.Attempt) -> tuple[int, int]:
    """Return epoch and number of an attempt."""
    return wire.epoch, wire.number


def last_attempt(
    wire: inference_pb2.GenerateRequest | inference_pb2.AttachHandle | inference_pb2.AttachRequest,
) -> tuple[int, int] | None:
    """Return the attempt that made the last token that a client has; None if the client does not say."""
    return attempt_name(wire.after_attempt) if wire.after_attempt.epoch else None


def read_from(after: Sequence[inference_pb2.ChoicePosition], violations: Violations) -> tuple[ReadFrom, ...]:
    """Return where each choice above 0 is read from; a position of choice 0 or a second one of a choice is at fault."""
    found: dict[int, ReadFrom] = {}
    for each in after:
        if not each.choice or each.choice in found:
            again = f"is {each.choice} again"
            violations.add("after.choice", again if each.choice else "is 0, whose position is after_token")
            return ()
        name = attempt_name(each.after_attempt) if each.after_attempt.epoch else None
        found[each.choice] = ReadFrom(choice=each.choice, after_token=each.after_token, after_attempt=name)
    return tuple(found.values())


def key_seen(identity: Identity, named: str, request_id: str) -> RequestKey:
    """Return the key of an earlier request, if ``identity`` may see the requests of the tenant that is named.

    Raises:
        RequestNotFound: it may not; the same error as for an id that nobody has, so that ids of others stay unknown.
    """
    tenant = identity.tenant_of(named)
    if tenant is None:
        raise RequestNotFound(request_id)
    return key_of(tenant, request_id)


async def submission(request: Request, trace_headers: Mapping[str, str], *, tenant: str) -> Submission:
    """Convert a request; what is wrong with it is in ``violations``.

    A large request is converted in a thread, and one that exceeds a limit is not converted at all.
    ``trace_headers``: the caller's W3C trace context.  ``tenant``: the tenant that it belongs to; empty: the default
    one.
    """
    violations = Violations()
    if not request_limits.check(request, violations):
        return _unconverted(request, trace_headers, tenant, violations)
    if request.ByteSize() <= INLINE_BYTES:
        return converted(request, trace_headers, tenant)
    return await asyncio.to_thread(converted, request, trace_headers, tenant)


def converted(request: Request, trace_headers: Mapping[str, str], tenant: str) -> Submission:
    """Convert a request that is within the limits.

    A request without an id gets a random one.
    """
    spec, violations = request.spec, Violations()
    request_limits.check_labels(request, violations)
    prompt = prompts.prompt(spec, violations)
    if isinstance(request, inference_pb2.SubmitRequest):
        how = _kept(request, violations)
    else:
        how = _read(request, violations)
    return Submission(
        key=key_of(tenant, request.request_id or uuid.uuid4().hex),
        digest=hashlib.sha256(spec.SerializeToString(deterministic=True)).digest(),
        model=spec.model,
        prompt=prompt,
        media=media.of_prompt(spec),
        sampling=sampling_params.given(spec.sampling, violations),
        choices=sampling_params.choices(spec.sampling),
        priority=enum_value(PRIORITY_FROM_WIRE, spec.priority, "spec.priority", Priority.NORMAL, violations),
        deadline_s=seconds_of(spec, "deadline", "spec.deadline", violations),
        ttft_target_s=seconds_of(spec, "ttft_target", "spec.ttft_target", violations),
        tpot_target_s=seconds_of(spec, "tpot_target", "spec.tpot_target", violations),
        cost_budget=_budget(spec, violations),
        session=spec.session,
        tags=dict(spec.tags),
        preferred_instance=spec.preferred_instance,
        adapter=spec.adapter,
        wait_for_instance=enum_value(WAIT_FROM_WIRE, spec.no_instance, "spec.no_instance", False, violations),
        resume_mode=enum_value(
            RESUME_MODE_FROM_WIRE, spec.resume_mode, "spec.resume_mode", ResumeMode.STRICT, violations
        ),
        trace_headers=trace_headers,
        violations=tuple(violations),
        **how,
    )


def _read(request: inference_pb2.GenerateRequest, violations: Violations) -> dict[str, Any]:
    """Return from where on the caller of Generate reads, and how its request goes on without it, or came here."""
    return {
        "detached": request.detached,
        "fresh": request.fresh or not request.request_id,
        "receipt": request.receipt,
        "after_token": request.after_token,
        "after_attempt": last_attempt(request),
        "after": read_from(request.after, violations),
        "takes_choices": request.takes_choices,
    }


def _kept(request: inference_pb2.SubmitRequest, violations: Violations) -> dict[str, Any]:
    """Return how long the result of detached work is to be kept; who reads it says whether it tells choices apart."""
    keep_s = durations.from_wire(request.keep_result) if request.HasField("keep_result") else None
    if keep_s is not None and not 0 < keep_s <= durations.LIMIT_S:
        violations.add("keep_result", f"is {keep_s:g} s; it must be positive and at most {durations.LIMIT_S:g} s")
    return {"detached": True, "takes_choices": True, "fresh": not request.request_id, "keep_result_s": keep_s}


def _unconverted(request: Request, trace_headers: Mapping[str, str], tenant: str, violations: Violations) -> Submission:
    """Return what admission needs of a request that it is certain to refuse."""
    return Submission(
        key=key_of(tenant[:ID_CHARACTERS], request.request_id[:ID_CHARACTERS] or uuid.uuid4().hex),
        digest=b"",
        model=request.spec.model[:NAME_BYTES],
        prompt=None,
        sampling={},
        trace_headers=trace_headers,
        violations=tuple(violations),
    )


def enum_value(table: Mapping[E, T], value: E, field: str, default: T, violations: Violations) -> T:
    """Return what a value of an enum stands for; ``default`` for one that is none of its values."""
    if value not in table:
        violations.add(field, f"{value} is not one of its values")
    return table.get(value, default)


def seconds_of(message: Message, name: str, field: str, violations: Violations) -> float | None:
    """Return a message's Duration ``name`` in seconds, or None without one.  ``field``: its path in the contract."""
    if not message.HasField(name):
        return None
    value: Duration = getattr(message, name)
    seconds = durations.from_wire(value)
    if seconds <= 0:
        violations.add(field, f"is {seconds:g} s; it must be positive")
    elif seconds > durations.LIMIT_S:
        violations.add(field, f"is {seconds:g} s; the limit is {durations.LIMIT_S:g} s")
    return seconds


def _budget(spec: inference_pb2.GenerationSpec, violations: Violations) -> float | None:
    if not spec.HasField("cost_budget"):
        return None
    if not math.isfinite(spec.cost_budget) or spec.cost_budget < 0:
        violations.add("spec.cost_budget", f"is {spec.cost_budget}; it must be a number >= 0")
    return spec.cost_budget
