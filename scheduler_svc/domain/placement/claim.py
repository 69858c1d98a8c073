"""The head of a queue that fits nowhere claims an instance; who goes before it must not delay it."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest
from math import inf

from scheduler_svc.domain.ledger import Account
from scheduler_svc.domain.placement.ask import Ask
from scheduler_svc.domain.placement.filters import whole_blocks

_LOOKED_AT = 16  # instances considered for a claim: those with the most room


class Claim:
    """An instance, and when the claimant is predicted to fit there.

    What is backfilled there must leave the claimant's room free at that time: either it is over by then, or it fits
    beside the claimant.  Predictions err, so only so many are let in on the promise to be over; after that the
    instance drains until the claimant fits.
    """

    __slots__ = ("account", "backfills_left", "common", "room_at", "spare_slots", "spare_tokens")

    def __init__(self, account: Account, *, backfills: int) -> None:
        self.account = account
        self.backfills_left = backfills
        self.common = False  # the claimant must leave one slot for CRITICAL
        self.room_at = inf
        self.spare_tokens = 0
        self.spare_slots = 0

    def look_ahead(self, ask: Ask, now: float) -> None:
        """Predict when ``ask`` fits, and what is left beside it then."""
        account = self.account
        self.common = ask.headroom and account.max_running > 1
        tokens = account.free_tokens - self._blocks(ask)
        slots = account.free_slots
        common_slots = account.max_running - 1 - account.common_live
        at = now
        if not self._fits(tokens, slots, common_slots):
            at = inf  # if the engine reports more in use than we know of
            for reservation in sorted(account.reservations.values(), key=lambda r: r.finish_at):
                tokens += reservation.tokens
                slots += 1
                common_slots += not reservation.critical
                if self._fits(tokens, slots, common_slots):
                    at = max(now, reservation.finish_at)
                    break
        self.room_at = at
        self.spare_tokens = max(0, tokens)
        self.spare_slots = max(0, (min(slots, common_slots) if self.common else slots) - 1)

    def _fits(self, tokens: int, slots: int, common_slots: int) -> bool:
        """``tokens``: left beside the claimant.  It may queue at the engine where nothing else does."""
        if self.common:
            return tokens >= 0 and slots > 0 and common_slots > 0
        return tokens >= 0 and slots >= 0

    def allows(self, ask: Ask, finish_in_s: float, now: float) -> bool:
        """Whether ``ask`` may be backfilled on the claimed instance."""
        return self._fits_beside(ask) or (self.backfills_left > 0 and now + finish_in_s <= self.room_at < inf)

    def take(self, ask: Ask) -> None:
        """It was backfilled there."""
        if self._fits_beside(ask):
            self.spare_tokens -= self._blocks(ask)
            self.spare_slots -= 1
        else:
            self.backfills_left -= 1

    def _fits_beside(self, ask: Ask) -> bool:
        return self._blocks(ask) <= self.spare_tokens and self.spare_slots > 0

    def _blocks(self, ask: Ask) -> int:
        return whole_blocks(ask.tokens, self.account.block)


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
