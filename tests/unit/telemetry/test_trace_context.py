"""W3C trace context: what is taken over, what is begun, what is handed on."""

from __future__ import annotations

import random

import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from sage_telemetry.log_ids import trace_ids
from sage_telemetry.trace_context import SpanContext, begin, in_ratio, new_trace_id, parent_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def header(value: str) -> dict[str, str]:
    return {"traceparent": value, "tracestate": "app=1"}


def test_a_valid_context_is_taken_over() -> None:
    assert parent_of(header(f"00-{TRACE}-{SPAN}-01")) == SpanContext(TRACE, SPAN, True, "app=1")
    assert parent_of(header(f"00-{TRACE}-{SPAN}-00")) == SpanContext(TRACE, SPAN, False, "app=1")


def test_a_later_version_may_say_more() -> None:
    assert parent_of(header(f"cc-{TRACE}-{SPAN}-01-what-the-future-brings")) is not None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nonsense",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_what_the_standard_forbids_is_no_context(value: str) -> None:
    assert parent_of(header(value)) is None


@pytest.mark.parametrize("sampled", [True, False])
def test_the_callers_decision_is_kept_whatever_the_ratio(sampled: bool) -> None:
    parent = SpanContext(TRACE, SPAN, sampled, "app=1")
    for ratio in (0.0, 1.0):
        own = begin(parent, ratio)
        assert (own.trace_id, own.sampled, own.state) == (TRACE, sampled, "app=1")
        assert own.span_id != SPAN


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.5, 1.0])
def test_the_ratio_decides_as_opentelemetrys_own_sampler(ratio: float) -> None:
    sampler = TraceIdRatioBased(ratio)
    for _ in range(300):
        trace_id = new_trace_id()
        theirs = sampler.should_sample(None, int(trace_id, 16), "x").decision is Decision.RECORD_AND_SAMPLE
        assert in_ratio(trace_id, ratio) is theirs


def test_headers_make_a_child_of_it() -> None:
    context = SpanContext(TRACE, SPAN, True, "app=1")
    assert context.headers() == header(f"00-{TRACE}-{SPAN}-01")
    assert parent_of(context.headers()) == context


def test_ids_do_not_repeat_when_a_library_seeds_the_shared_generator() -> None:
    random.seed(0)
    first = new_trace_id()
    random.seed(0)
    assert new_trace_id() != first


def test_log_lines_get_ids_from_a_context_only() -> None:
    assert trace_ids(f"00-{TRACE}-{SPAN}-01") == {"trace_id": TRACE, "span_id": SPAN}
    assert trace_ids("") == trace_ids("nonsense") == {}
