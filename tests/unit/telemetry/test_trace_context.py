"""W3C trace context: what is taken over, what is begun, what is handed on."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sage_telemetry.log_ids import trace_ids
from sage_telemetry.sdk_logs import limit_sdk_logs
from sage_telemetry.trace_context import HeadSampling, OwnRandomIds, child_of, headers_of, parent_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STATE = TraceState([("app", "1")])


def header(value: str, state: str = "app=1") -> dict[str, str]:
    return {"traceparent": value, "tracestate": state}


def context(*, sampled: bool) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return SpanContext(int(TRACE, 16), int(SPAN, 16), True, flags, STATE)


@pytest.mark.parametrize("sampled", [True, False])
def test_a_valid_context_is_taken_over(sampled: bool) -> None:
    parent = parent_of(header(f"00-{TRACE}-{SPAN}-0{int(sampled)}"))
    assert parent is not None
    assert parent == context(sampled=sampled)
    assert parent.trace_state.to_header() == "app=1"


@pytest.mark.parametrize("value", ["", "nonsense", f"00-{TRACE}-{SPAN}", f"00-{'0' * 32}-{SPAN}-01"])
def test_what_the_standard_forbids_is_no_context(value: str) -> None:
    assert parent_of(header(value)) is None
    assert parent_of({}) is None


def test_a_malformed_state_is_left_out_and_never_quoted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    limit_sdk_logs()
    parent = parent_of(header(f"00-{TRACE}-{SPAN}-01", "my secret"))
    assert parent is not None
    assert (parent.span_id, len(parent.trace_state)) == (int(SPAN, 16), 0)
    assert caplog.text == ""


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize("sampled", [True, False])
def test_the_callers_decision_is_kept_whatever_the_ratio(sampled: bool, ratio: float) -> None:
    own = HeadSampling(ratio).begin(context(sampled=sampled))
    assert (own.trace_id, own.trace_flags.sampled) == (int(TRACE, 16), sampled)
    assert own.trace_state == STATE
    assert own.span_id != int(SPAN, 16)


def test_without_a_caller_the_ratio_decides() -> None:
    for ratio, lowest, highest in ((0.0, 0, 0), (0.25, 150, 350), (1.0, 1_000, 1_000)):
        sampling = HeadSampling(ratio)
        sampled = sum(sampling.begin(None).trace_flags.sampled for _ in range(1_000))
        assert lowest <= sampled <= highest


def test_flags_of_later_versions_are_handed_on() -> None:
    parent = parent_of(header(f"00-{TRACE}-{SPAN}-03"))
    assert headers_of(HeadSampling(0.0).begin(parent))["traceparent"].endswith("-03")


def test_headers_make_a_child_of_it() -> None:
    own = context(sampled=True)
    assert headers_of(own) == header(f"00-{TRACE}-{SPAN}-01")
    child = child_of(own)
    assert (child.trace_id, child.trace_state, child.is_remote) == (own.trace_id, STATE, False)
    assert child.span_id != own.span_id


def read_by_opentelemetry(headers: dict[str, str]) -> SpanContext | None:
    context = get_current_span(TraceContextTextMapPropagator().extract(headers, Context())).get_span_context()
    return context if context.is_valid else None


HEX = "0123456789abcdef"
ALMOST_A_HEADER = st.one_of(
    st.tuples(
        st.sampled_from(["00", "01", "ff", "0", "0A"]),
        st.text(HEX, min_size=32, max_size=32) | st.sampled_from(["0" * 32, TRACE.upper(), TRACE[1:]]),
        st.text(HEX, min_size=16, max_size=16) | st.sampled_from(["0" * 16, SPAN + "0"]),
        st.text(HEX, min_size=2, max_size=2) | st.sampled_from(["1", "01-more", " 01", "01 ", "01\n"]),
    ).map("-".join),
    st.text(max_size=60),
)


@given(header=ALMOST_A_HEADER, state=st.none() | st.sampled_from(["", "app=1", "a=1,b=2", "nonsense"]))
def test_contexts_are_read_as_opentelemetry_reads_them(header: str, state: str | None) -> None:
    headers = {"traceparent": header, **({} if state is None else {"tracestate": state})}
    ours, theirs = parent_of(headers), read_by_opentelemetry(headers)
    assert ours == theirs
    assert (ours and ours.is_remote) == (theirs and theirs.is_remote)


@given(
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
    flags=st.integers(0, 255),
    state=st.sampled_from([TraceState(), STATE]),
)
def test_contexts_are_written_as_opentelemetry_writes_them(
    trace_id: int, span_id: int, flags: int, state: TraceState
) -> None:
    context = SpanContext(trace_id, span_id, False, TraceFlags(flags), state)
    theirs: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(theirs, set_span_in_context(NonRecordingSpan(context), Context()))
    assert headers_of(context) == theirs


@given(ratio=st.floats(0.0, 1.0))
def test_the_ratio_is_opentelemetrys(ratio: float) -> None:
    context = HeadSampling(ratio).begin(None)
    theirs = TraceIdRatioBased(ratio).should_sample(None, context.trace_id, "sage.request")
    assert context.trace_flags.sampled == (theirs.decision is Decision.RECORD_AND_SAMPLE)


def test_ids_do_not_repeat_when_a_library_seeds_the_shared_generator() -> None:
    ids = OwnRandomIds()
    random.seed(0)
    first = ids.generate_trace_id()
    random.seed(0)
    assert ids.generate_trace_id() != first


def test_log_lines_get_ids_from_a_context_only() -> None:
    assert trace_ids(f"00-{TRACE}-{SPAN}-01") == {"trace_id": TRACE, "span_id": SPAN}
    assert trace_ids("") == trace_ids("nonsense") == {}
