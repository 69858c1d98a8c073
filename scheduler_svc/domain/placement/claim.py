"""The head of a queue that fits nowhere claims an instance; who goes before it must not delay it."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest
from math import inf

from scheduler_svc.domain.ledger import Account
from scheduler_svc.domain.placement.ask import Ask

_LOOKED_AT = 16  # instances considered for a claim: those with the most room


class Claim:
    """An instance, and when the claimant is predicted to fit there.

    What is backfilled there must leave the claimant's room free at that time: either it is over by then, or it fits
    beside the claimant.  Predictions err, so only so many are let in on the promise to be over; after that the
    instance drains until the claimant fits.
    """

    __slots__ = ("account", "backfills_left", "room_at", "spare_slots", "spare_tokens")

    def __init__(self, account: Account, *, backfills: int) -> None:
        self.account = account
        self.backfills_left = backfills
        self.room_at = inf
        self.spare_tokens = 0
        self.spare_slots = 0

    def look_ahead(self, ask: Ask, now: float) -> None:
        """Predict when ``ask`` fits, and what is left beside it then."""
        account = self.account
        tokens = account.free_tokens - ask.tokens
        slots = _slots(account, ask) - 1
        at = now
        if tokens < 0 or slots < 0:
            for reservation in sorted(account.reservations.values(), key=lambda r: r.finish_at):
                tokens += reservation.tokens
                slots += 1
                at = max(now, reservation.finish_at)
                if tokens >= 0 and slots >= 0:
                    break
            else:
                at = inf  # the engine reports more in use than we know of
        self.room_at = at
        self.spare_tokens = max(0, tokens)
        self.spare_slots = max(0, slots)

    def allows(self, ask: Ask, finish_in_s: float, now: float) -> bool:
        """Whether ``ask`` may be backfilled on the claimed instance."""
        return self._fits_beside(ask) or (self.backfills_left > 0 and now + finish_in_s <= self.room_at < inf)

    def take(self, ask: Ask) -> None:
        """It was backfilled there."""
        if self._fits_beside(ask):
            self.spare_tokens -= ask.tokens
            self.spare_slots -= 1
        else:
            self.backfills_left -= 1

    def _fits_beside(self, ask: Ask) -> bool:
        return ask.tokens <= self.spare_tokens and self.spare_slots > 0


def _slots(account: Account, ask: Ask) -> int:
    """Sequences that may still be sent there, the lookahead included."""
    if ask.headroom and account.max_running > 1:
        return account.free_slots - 1
    return account.free_slots + account.lookahead


def best_claim(ask: Ask, accounts: Sequence[Account], now: float, *, backfills: int) -> Claim | None:
    """On the instance where ``ask`` is predicted to fit first; None where it can never fit."""
    possible = [a for a in accounts if ask.tokens <= a.capacity]
    roomiest = nlargest(_LOOKED_AT, possible, key=lambda a: a.free_tokens)
    best: Claim | None = None
    for account in roomiest:
        claim = Claim(account, backfills=backfills)
        claim.look_ahead(ask, now)
        if best is None or claim.room_at < best.room_at:
            best = claim
    return best
