"""SamplingParams in both directions: what callers set, and what executors get.

Both directions are derived from the fields that the message and the domain's ``Sampling`` have in common, by name.  A
new number, string, boolean or list of both needs no change here.  A test fails for a field that only one of them has.
"""

from __future__ import annotations

import json
from dataclasses import fields
from operator import attrgetter
from typing import Any

from sage.controlplane.v1 import common_pb2
from scheduler_svc.domain.request import Sampling, StructuredOutput
from scheduler_svc.transport.violations import Violations

_IN_DOMAIN = frozenset(each.name for each in fields(Sampling))
_SHARED = tuple(each for each in common_pb2.SamplingParams.DESCRIPTOR.fields if each.name in _IN_DOMAIN)

SCALARS = tuple(each.name for each in _SHARED if each.message_type is None and each.has_presence)
"""Single values.  An absent one takes the model's default."""

LISTS = tuple(each.name for each in _SHARED if each.message_type is None and not each.has_presence)
"""Repeated values.  An empty list counts as absent."""


_SCALARS, _LISTS = frozenset(SCALARS), frozenset(LISTS)
_scalars_of, _lists_of = attrgetter(*SCALARS), attrgetter(*LISTS)


def given(wire: common_pb2.SamplingParams, violations: Violations) -> dict[str, Any]:
    """Return the fields of ``Sampling`` that the caller set.

    It checks the number of choices and the form of structured output; ``domain.admission`` knows the model and checks
    the ranges.
    """
    found: dict[str, Any] = {}
    for each, value in wire.ListFields():  # those that are set: most callers set two or three
        if each.name in _SCALARS:
            found[each.name] = value
        elif each.name in _LISTS:
            found[each.name] = tuple(value)
    if wire.logit_bias:
        found["logit_bias"] = dict(wire.logit_bias)
    if wire.engine_options:
        found["engine_options"] = dict(wire.engine_options)
    if wire.HasField("n") and wire.n != 1:
        violations.add("spec.sampling.n", f"is {wire.n}; this version generates one choice per request")
    if wire.HasField("structured_output"):
        found["structured_output"] = _structured(wire.structured_output, violations)
    return found


def to_wire(sampling: Sampling) -> common_pb2.SamplingParams:
    """Convert complete sampling for an executor.  A value that is None stays absent."""
    wire = common_pb2.SamplingParams()
    fill(wire, sampling)
    return wire


def fill(wire: common_pb2.SamplingParams, sampling: Sampling) -> None:
    """Convert complete sampling, as ``to_wire`` does, into an empty message."""
    wire.SetInParent()
    for name, value in zip(SCALARS, _scalars_of(sampling), strict=True):
        if value is not None:
            setattr(wire, name, value)
    for name, values in zip(LISTS, _lists_of(sampling), strict=True):
        if values:
            getattr(wire, name).extend(values)
    if sampling.logit_bias:
        wire.logit_bias.update(sampling.logit_bias)
    if sampling.engine_options:
        wire.engine_options.update(sampling.engine_options)
    if sampling.structured_output is not None:
        wire.structured_output.CopyFrom(_structured_to_wire(sampling.structured_output))


def _structured(wire: common_pb2.StructuredOutput, violations: Violations) -> StructuredOutput | None:
    field = "spec.sampling.structured_output"
    kind = wire.WhichOneof("kind")
    if kind is None:
        violations.add(field, "give one of json_schema, json_object, regex, choice, grammar, structural_tag")
        return None
    return StructuredOutput(
        kind=kind,
        value=_value(wire, kind, field, violations),
        reasoning_ended=wire.reasoning_ended if wire.HasField("reasoning_ended") else None,
        reasoning_arguments=wire.reasoning_arguments,
    )


def _value(wire: common_pb2.StructuredOutput, kind: str, field: str, violations: Violations) -> str:
    """Return a constraint's value as the domain has it."""
    if kind == "json_object":
        if not wire.json_object:
            violations.add(f"{field}.json_object", "is false; leave structured_output out instead")
        return ""
    if kind == "choice":
        choices = list(wire.choice.choices)
        if not choices or not all(choices):
            violations.add(f"{field}.choice", "must hold at least one string, none of them empty")
        return json.dumps(choices)
    value: str = getattr(wire, kind)
    if not value:
        violations.add(f"{field}.{kind}", "is empty")
    return value


def _structured_to_wire(structured: StructuredOutput) -> common_pb2.StructuredOutput:
    wire = common_pb2.StructuredOutput(reasoning_arguments=structured.reasoning_arguments)
    if structured.reasoning_ended is not None:
        wire.reasoning_ended = structured.reasoning_ended
    if structured.kind == "json_object":
        wire.json_object = True
    elif structured.kind == "choice":
        wire.choice.choices.extend(json.loads(structured.value))
    else:
        setattr(wire, structured.kind, structured.value)
    return wire
