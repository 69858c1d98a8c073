"""GenerateRequest as a Submission: conversion, and the checks that need no model.

Conversion goes on after a violation, so that the caller gets every field at fault at once.  The checks that need
the model follow in ``domain.admission``.  Prompts and sampling have files of their own.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Mapping
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration

from sage.controlplane.v1 import inference_pb2
from sage_wire import durations
from scheduler_svc.access.identity import Identity
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.domain.errors import RequestNotFound
from scheduler_svc.domain.request import Priority, RequestKey, ResumeMode
from scheduler_svc.transport import prompts, sampling_params
from scheduler_svc.transport.enums import PRIORITY_FROM_WIRE, RESUME_MODE_FROM_WIRE, WAIT_FROM_WIRE
from scheduler_svc.transport.violations import Violations

E = TypeVar("E", bound=int)
T = TypeVar("T")

ID_LIMIT = 256  # characters of a request id, and of a tenant
TAGS_LIMIT = 16  # entries
TAG_BYTES = 256  # key and value of an entry together, in UTF-8
DEFAULT_TENANT = "default"


def key_of(tenant: str, request_id: str) -> RequestKey:
    """Return the key of a request as a message names it; without a tenant it belongs to DEFAULT_TENANT."""
    return RequestKey(tenant=tenant or DEFAULT_TENANT, request_id=request_id)


def key_seen(identity: Identity, named: str, request_id: str) -> RequestKey:
    """Return the key of an earlier request, if ``identity`` may see the requests of the tenant that is named.

    Raises:
        RequestNotFound: it may not; the same error as for an id that nobody has, so that ids of others stay unknown.
    """
    tenant = identity.tenant_of(named)
    if tenant is None:
        raise RequestNotFound(request_id)
    return key_of(tenant, request_id)


def submission(request: inference_pb2.GenerateRequest, trace_headers: Mapping[str, str], *, tenant: str) -> Submission:
    """Convert a request; what is wrong with it is in ``violations``.

    A request without an id gets a random one.  ``trace_headers``: the caller's W3C trace context.  ``tenant``: the
    tenant that it belongs to; empty: the default one.
    """
    spec, violations = request.spec, Violations()
    _check_id(request.request_id, "request_id", violations)
    _check_id(request.tenant, "tenant", violations)
    _check_tags(spec.tags, violations)
    prompt = prompts.prompt(spec, violations)
    return Submission(
        key=key_of(tenant, request.request_id or uuid.uuid4().hex),
        digest=hashlib.sha256(spec.SerializeToString(deterministic=True)).digest(),
        model=spec.model,
        prompt=prompt,
        sampling=sampling_params.given(spec.sampling, violations),
        priority=_enum(PRIORITY_FROM_WIRE, spec.priority, "spec.priority", Priority.NORMAL, violations),
        deadline_s=_duration(spec, "deadline", violations),
        ttft_target_s=_duration(spec, "ttft_target", violations),
        tpot_target_s=_duration(spec, "tpot_target", violations),
        cost_budget=_budget(spec, violations),
        session=spec.session,
        tags=dict(spec.tags),
        preferred_instance=spec.preferred_instance,
        adapter=spec.adapter,
        wait_for_instance=_enum(WAIT_FROM_WIRE, spec.no_instance, "spec.no_instance", False, violations),
        resume_mode=_enum(RESUME_MODE_FROM_WIRE, spec.resume_mode, "spec.resume_mode", ResumeMode.STRICT, violations),
        detached=request.detached,
        after_token=request.after_token,
        trace_headers=trace_headers,
        violations=tuple(violations),
    )


def _check_id(value: str, field: str, violations: Violations) -> None:
    if len(value) > ID_LIMIT:
        violations.add(field, f"has {len(value)} characters; the limit is {ID_LIMIT}")
    elif not value.isprintable():
        violations.add(field, "holds characters that cannot be printed")


def _check_tags(tags: Mapping[str, str], violations: Violations) -> None:
    if len(tags) > TAGS_LIMIT:
        violations.add("spec.tags", f"has {len(tags)} entries; the limit is {TAGS_LIMIT}")
    for key, value in tags.items():
        if len(key.encode()) + len(value.encode()) > TAG_BYTES:
            violations.add(f"spec.tags[{key[:32]!r}]", f"key and value are longer than {TAG_BYTES} bytes")


def _enum(table: Mapping[E, T], value: E, field: str, default: T, violations: Violations) -> T:
    if value not in table:
        violations.add(field, f"{value} is not one of its values")
    return table.get(value, default)


def _duration(spec: inference_pb2.GenerationSpec, name: str, violations: Violations) -> float | None:
    if not spec.HasField(name):  # type: ignore[arg-type]
        return None
    value: Duration = getattr(spec, name)
    seconds = durations.from_wire(value)
    if seconds <= 0:
        violations.add(f"spec.{name}", f"is {seconds:g} s; it must be positive")
    elif seconds > durations.LIMIT_S:
        violations.add(f"spec.{name}", f"is {seconds:g} s; the limit is {durations.LIMIT_S:g} s")
    return seconds


def _budget(spec: inference_pb2.GenerationSpec, violations: Violations) -> float | None:
    if not spec.HasField("cost_budget"):
        return None
    if not math.isfinite(spec.cost_budget) or spec.cost_budget < 0:
        violations.add("spec.cost_budget", f"is {spec.cost_budget}; it must be a number >= 0")
    return spec.cost_budget
