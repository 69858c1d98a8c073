"""Estimates the memory that an ended request takes in the record."""

from __future__ import annotations

from sys import getsizeof

from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished, Outcome
from scheduler_svc.control.requests.placement import Placement
from scheduler_svc.domain.errors import InvalidRequest

REQUEST_BYTES = 4_096  # of a request that holds nothing of what is counted below, about
PLACEMENT_BYTES = 1_536  # of a decision without its candidates, about
CANDIDATE_BYTES = 200  # about
ENTRY_BYTES = 120  # of a history entry without its text, and of a violation, about


def record_size(live: LiveRequest) -> int:
    """Return about how many bytes an ended request takes, its prompt forgotten."""
    request = live.request
    labels = (*request.tags, *request.tags.values(), *request.trace_headers.values(), request.session, *live.warnings)
    return (
        REQUEST_BYTES
        + live.output.size_bytes
        + (live.prompt.size_bytes if live.prompt is not None else 0)
        + sum(map(getsizeof, labels))
        + sum(map(_of_placement, live.placements))
        + sum(ENTRY_BYTES + getsizeof(entry.detail) for entry in live.history)
        + _of_outcome(live.outcome)
    )


def _of_placement(placement: Placement) -> int:
    decision = placement.decision
    candidates = CANDIDATE_BYTES * decision.candidates_considered
    return PLACEMENT_BYTES + candidates + sum(map(getsizeof, decision.reasons))


def _of_outcome(outcome: Outcome | None) -> int:
    """Return what an outcome takes besides its message, which the history holds too."""
    if isinstance(outcome, Finished):
        return getsizeof(outcome.stop_string) + getsizeof(outcome.embedding)
    if isinstance(outcome, InvalidRequest):
        return sum(ENTRY_BYTES + getsizeof(v.field) + getsizeof(v.description) for v in outcome.violations)
    return 0
