"""Which traces the shipped collector keeps: the policies of its configuration, judged as its tail sampling judges them.

https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/processor/tailsamplingprocessor: every
policy looks at the whole trace, and what one of them takes is kept.  Only the types that the file uses are known here;
another type, or another option of a known one, is an error, since its meaning is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.integration.stack.shipped import DOCKER, read_yaml
from tests.integration.telemetry.otlp_receiver import Span

COLLECTOR = DOCKER / "otel-collector" / "config.yaml"
VARIABLE = re.compile(r"\$\{env:(\w+)\}")
STATUS_CODES = {Status.STATUS_CODE_UNSET: "UNSET", Status.STATUS_CODE_OK: "OK", Status.STATUS_CODE_ERROR: "ERROR"}

Trace = Sequence[Span]


def shipped_environment() -> dict[str, str]:
    """What compose hands the collector where nobody says otherwise: docker/.env."""
    lines = (line.partition("=") for line in (DOCKER / ".env").read_text().splitlines() if not line.startswith("#"))
    return {name: value for name, _, value in lines if name}


class TailSampling:
    """``environment``: what the configuration's ``${env:...}`` stand for; KeyError for one that is missing."""

    def __init__(self, policies: Sequence[Mapping[str, Any]], environment: Mapping[str, str]) -> None:
        self._policies = [_filled(policy, environment) for policy in policies]

    @classmethod
    def shipped(cls, **environment: str) -> TailSampling:
        """As docker/ has it, with some of its variables set otherwise."""
        policies = read_yaml(COLLECTOR)["processors"]["tail_sampling"]["policies"]
        return cls(policies, {**shipped_environment(), **environment})

    def kept_by(self, trace: Trace) -> list[str]:
        """Names of the policies that take it, in the file's order; empty: it is dropped."""
        assert trace, "a trace has spans"
        return [policy["name"] for policy in self._policies if _takes(policy, trace)]


def _filled(part: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(part, dict):
        return {key: _filled(value, environment) for key, value in part.items()}
    if isinstance(part, list):
        return [_filled(each, environment) for each in part]
    if isinstance(part, str) and VARIABLE.search(part):
        # The collector reads what it put in as YAML: a number stays one.
        return yaml.safe_load(VARIABLE.sub(lambda found: environment[found[1]], part))
    return part


def _takes(policy: Mapping[str, Any], trace: Trace) -> bool:
    kind = policy["type"]
    if kind not in TYPES:
        raise ValueError(f"policy {policy['name']!r} is of the type {kind!r}, which is not known here")
    if policy.keys() != {"name", "type", kind}:
        raise ValueError(f"policy {policy['name']!r} has {sorted(policy)}, not all of which are known here")
    return TYPES[kind](trace, **policy[kind])


def _status_code(trace: Trace, *, status_codes: Sequence[str]) -> bool:
    """Any span with one of these."""
    return any(STATUS_CODES[span.wire.status.code] in status_codes for span in trace)


def _boolean_attribute(trace: Trace, *, key: str, value: bool) -> bool:
    """Any span that has it with this value; it does not have to be there."""
    return any(span.attributes.get(key) is value for span in trace)


def _latency(trace: Trace, *, threshold_ms: int) -> bool:
    """From the first start to the last end, whatever is between them."""
    start = min(span.wire.start_time_unix_nano for span in trace)
    end = max(span.wire.end_time_unix_nano for span in trace)
    return (end - start) // 1_000_000 >= threshold_ms


def _probabilistic(trace: Trace, *, sampling_percentage: float) -> bool:
    """All or none: a share between them goes by a hash of the trace's id, on which no test may depend."""
    if sampling_percentage not in (0, 100):
        raise ValueError(f"chance decides at {sampling_percentage} %")
    return sampling_percentage == 100


TYPES: dict[str, Callable[..., bool]] = {
    "status_code": _status_code,
    "boolean_attribute": _boolean_attribute,
    "latency": _latency,
    "probabilistic": _probabilistic,
}
