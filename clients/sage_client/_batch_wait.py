"""How long a batch is waited for."""

from __future__ import annotations

from collections.abc import Callable

from sage_client._batches import Batch
from sage_client._durations import Seconds, timeout_of
from sage_client._errors import WaitTimeoutError

GRACE_S = 300.0
"""Seconds for which a batch is waited for beyond its deadline, at which the scheduler ends it."""


class BatchWait:
    """Ends the wait for a batch in time."""

    def __init__(self, timeout: Seconds | None, clock: Callable[[], float]) -> None:
        """``timeout``: how long to wait; None: until GRACE_S after the batch's deadline."""
        self._clock = clock
        self._begun = clock()
        self._limit_s = None if timeout is None else timeout_of(timeout, None, default_s=0.0, grace_s=0.0)

    def check(self, batch: Batch) -> None:
        """Raise WaitTimeoutError if the batch is not over and the time is."""
        limit_s = _life_s(batch) if self._limit_s is None else self._limit_s
        if batch.ended or self._clock() - self._begun < limit_s:
            return
        progress = f"{batch.counts.ended} of {batch.counts.total} lines have ended"
        raise WaitTimeoutError(f"batch {batch.batch_id} is {batch.state.value}: {progress}")


def _life_s(batch: Batch) -> float:
    """Return the seconds from a batch's creation to its deadline, and the grace."""
    left_s = (batch.expires_at - batch.created_at).total_seconds() if batch.expires_at is not None else 0.0
    return left_s + GRACE_S
