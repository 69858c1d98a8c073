"""A recording of a scheduler as a trace: the same requests, to be placed anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median_high

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.recording.log_reader import FORMAT, read_log
from sage_simulator.traces.recording.recorded_lines import RecordedRequest

__all__ = ["FORMAT", "as_trace", "read_recorded"]

_CANCELLED = "cancelled"


def read_recorded(path: Path) -> Iterator[TracedRequest]:
    """Yield the requests in the order in which they ended.  Raises TraceError."""
    yield from as_trace(read_log(path).requests)


def as_trace(requests: Iterable[RecordedRequest]) -> Iterator[TracedRequest]:
    """Yield what a replay needs of each request.

    How long the output of a request would have become that did not finish is not known: it counts as the median of the
    finished ones of its model, at least what arrived and at most its ``max_tokens``.  The caller of a cancelled request
    leaves as long after its arrival as it did.
    """
    requests = list(requests)
    typical = _typical_outputs(requests)
    for each in requests:
        output = each.output_tokens
        if not each.finished:
            output = min(each.max_tokens, max(output, typical.get(each.model, 1)))
        yield TracedRequest(
            arrival_s=each.arrival_s,
            prompt_tokens=each.prompt_tokens,
            output_tokens=max(1, output),
            block_hashes=each.block_hashes,
            block_tokens=each.block_tokens,
            max_tokens=each.max_tokens,
            priority=each.priority,
            ttft_target_s=each.ttft_target_s,
            tpot_target_s=each.tpot_target_s,
            deadline_s=each.deadline_s,
            tenant=each.tenant,
            session=each.session,
            model=each.model,
            cancel_after_s=each.ended_s - each.arrival_s if each.end == _CANCELLED else None,
        )


def _typical_outputs(requests: Iterable[RecordedRequest]) -> dict[str, int]:
    by_model: dict[str, list[int]] = {}
    for each in requests:
        if each.finished:
            by_model.setdefault(each.model, []).append(each.output_tokens)
    return {model: median_high(outputs) for model, outputs in by_model.items()}
