"""Changes traces: their rate, and targets for requests that state none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sage_simulator.trace_file import TraceError
from sage_simulator.traced_request import TracedRequest


def at_rate(trace: Sequence[TracedRequest], rate: float) -> list[TracedRequest]:
    """Stretch or squeeze the arrivals to a mean of ``rate`` requests per second; the first one stays where it is.

    ``rate`` is positive.  Raises TraceError if all requests arrive at once.
    """
    first, last = trace[0].arrival_s, trace[-1].arrival_s
    if len(trace) < 2:
        return list(trace)
    if last <= first:
        raise TraceError("all requests arrive at once: there is no rate to change")
    factor = (len(trace) - 1) / rate / (last - first)
    return [replace(each, arrival_s=first + (each.arrival_s - first) * factor) for each in trace]


def with_default_targets(
    trace: Sequence[TracedRequest], *, ttft_s: float | None, tpot_s: float | None
) -> list[TracedRequest]:
    """Give targets, in seconds, to the requests that state neither a target nor a deadline."""
    return [
        each
        if each.ttft_target_s is not None or each.tpot_target_s is not None or each.deadline_s is not None
        else replace(each, ttft_target_s=ttft_s, tpot_target_s=tpot_s)
        for each in trace
    ]
