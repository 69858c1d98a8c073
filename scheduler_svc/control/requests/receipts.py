"""Receipts: what shows a scheduler that an earlier one had accepted a request, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sage_common.clock import Clock
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.recovery import Recovery
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.domain.request import RequestKey

GOOD_FOR_S = 15.0
"""Seconds after the end of recovery in which receipts count: readers of the SDK have come back by then."""

USED_LIMIT = 65_536
"""Receipts that one scheduler honours; a request with a further one is accepted as if it were new."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What a scheduler says of a request that it accepted.  Times are wall time, in seconds since 1970."""

    key: RequestKey
    digest: bytes  # of its content
    epoch: int  # of that scheduler
    accepted_at: float  # when it arrived, at the first scheduler that accepted it
    deadline_at: float


class ReceiptSigner(Protocol):
    """Writes receipts that clients cannot make, and reads them."""

    def write(self, receipt: Receipt) -> bytes:
        """Return a receipt, signed."""
        ...

    def read(self, signed: bytes) -> Receipt | None:
        """Return a receipt; None if no scheduler of this fleet wrote it, or if it makes no sense here."""
        ...


class Receipts:
    """Writes a receipt for each accepted request, and honours those of earlier schedulers, each once.

    A request with a receipt keeps its place in the queue and its deadline, and passes the limits at the door.
    """

    def __init__(
        self,
        signer: ReceiptSigner | None,
        clock: Clock,
        recovery: Recovery,
        *,
        epoch: int,
        wall: Callable[[], float],
    ) -> None:
        """``signer``: None: there is no next scheduler, and no receipt.  ``wall``: reads seconds since 1970."""
        self._signer = signer
        self._clock = clock
        self._recovery = recovery
        self._epoch = epoch
        self._wall = wall
        self._used: set[RequestKey] = set()

    def of(self, live: LiveRequest) -> bytes:
        """Return the receipt of an accepted request; empty if no next scheduler would honour it."""
        if self._signer is None or live.all_ended:
            return b""
        request, ahead = live.request, self._wall() - self._clock.now()
        deadline_at = request.deadline_at if request.deadline_at is not None else request.arrived_at
        receipt = Receipt(
            key=live.key,
            digest=live.digest,
            epoch=self._epoch,
            accepted_at=request.arrived_at + ahead,
            deadline_at=deadline_at + ahead,
        )
        return self._signer.write(receipt)

    def arrival(self, submission: Submission) -> tuple[float, float] | None:
        """Return the arrival and the deadline that a receipt gives a request; None if the receipt does not count.

        Both are seconds on the control clock.
        """
        if self._signer is None or not submission.receipt or self._over():
            return None
        receipt = self._signer.read(submission.receipt)
        if receipt is None or (receipt.key, receipt.digest) != (submission.key, submission.digest):
            return None
        if receipt.epoch >= self._epoch or submission.key in self._used or len(self._used) >= USED_LIMIT:
            return None
        now, ahead = self._clock.now(), self._wall() - self._clock.now()
        return min(now, receipt.accepted_at - ahead), receipt.deadline_at - ahead

    def use(self, key: RequestKey) -> None:
        """Note that a request was accepted by its receipt, which does not count a second time."""
        self._used.add(key)

    def _over(self) -> bool:
        """Return whether receipts of earlier schedulers count no more."""
        over = not self._recovery.open and self._clock.now() > self._recovery.over_at + GOOD_FOR_S
        if over:
            self._used.clear()
        return over
