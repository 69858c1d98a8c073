"""What a request's prefill costs everything else that runs on an instance."""

from __future__ import annotations

from scheduler_svc.domain.objectives.scorers import Scores

#: How often prefill counts beyond its own request's finish, where caches differ: all else that runs on the instance
#: waits for it too.
PREFILL_WEIGHT = 3.0


def with_delays(finishes: Scores, prefills: Scores) -> Scores:
    """Return the seconds until the finish and, weighed, those of the prefill of what no cache holds of the prompt."""
    return finishes + PREFILL_WEIGHT * prefills
