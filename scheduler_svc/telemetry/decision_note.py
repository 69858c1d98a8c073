"""The part of a decision that its span shows: figures, and the first candidates.

A decision holds figures of every instance.  A note is kept instead, so that spans which wait for a receiver do not keep
decisions in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sage_telemetry.otlp_attributes import Attributes
from scheduler_svc.domain.decision import Candidate, Decision
from scheduler_svc.domain.placement.candidates import CandidateTable

CANDIDATES_SHOWN = 16  # of a decision, in its span


@dataclass(slots=True, kw_only=True)
class DecisionNote:
    """What the span ``sage.decision`` shows."""

    decided_at: float  # seconds on the control clock
    took_s: float  # seconds of the scheduling pass
    batch: int  # decisions of the pass
    figures: Attributes  # of the decision, as span attributes
    candidates: Sequence[Candidate]  # at most CANDIDATES_SHOWN


def note_on(decision: Decision, *, took_s: float, batch: int) -> DecisionNote:
    """Make the note of a decision.  ``took_s``: seconds of its scheduling pass; ``batch``: decisions of that pass."""
    return DecisionNote(
        decided_at=decision.decided_at,
        took_s=took_s,
        batch=batch,
        figures={**_decided(decision), **_score(_chosen(decision.candidates))},
        candidates=_first(decision.candidates),
    )


def _first(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    if isinstance(candidates, CandidateTable):
        return candidates.head(CANDIDATES_SHOWN)  # a copy: the exporter's thread writes them
    return candidates[:CANDIDATES_SHOWN]


def _chosen(candidates: Sequence[Candidate]) -> Candidate | None:
    if isinstance(candidates, CandidateTable):
        return candidates.choice  # without a search: there may be thousands, and this runs on the event loop
    return next((candidate for candidate in candidates if candidate.chosen), None)


def _decided(decision: Decision) -> Attributes:
    prediction = decision.prediction
    return {
        "sage.policy": decision.policy,
        "sage.decision.rule": decision.rule,
        "sage.decision.reasons": decision.reasons,
        "sage.phase": decision.phase.value,
        "sage.phase.reason": decision.phase_reason,
        "sage.instance.id": decision.instance_id,
        "sage.prefill.instance.id": decision.prefill.instance_id if decision.prefill is not None else None,
        "sage.candidates.considered": decision.candidates_considered,
        "sage.predicted.start": prediction.start_s,
        "sage.predicted.first_token": prediction.first_token_s,
        "sage.predicted.finish": prediction.finish_s,
        "sage.predicted.output_tokens": prediction.output_tokens,
        "sage.predicted.cost": prediction.cost,
        "sage.predicted.cached_tokens": decision.cached_tokens,
        "sage.reserved_tokens": decision.reserved_tokens,
    }


def _score(chosen: Candidate | None) -> Attributes:
    """Return the score of the scorer that decided first."""
    for scorer, score in chosen.scores.items() if chosen is not None else ():
        return {"sage.decision.score": score, "sage.decision.scored_by": scorer}
    return {}
