"""What a request's prefill costs everything else that runs on an instance."""

from __future__ import annotations

import numpy as np

from scheduler_svc.domain.objectives.scorers import Scores

#: How often prefill counts beyond its own request's finish, where caches differ: all else that runs on the instance
#: waits for it too.
PREFILL_WEIGHT = 3.0
#: The same as numpy has it: it multiplies a column by this in half the time that it takes with a number.
_WEIGHT = np.array(PREFILL_WEIGHT)


def with_delays(finishes: Scores, prefills: Scores) -> Scores:
    """Return the seconds until the finish and, weighed, those of the prefill of what no cache holds of the prompt."""
    weighed: Scores = finishes + _WEIGHT * prefills
    return weighed
