"""The claim of a queue's head that fits nowhere: requests that go before the head must not delay it."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest
from math import inf

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.kv_blocks import whole_blocks

_LOOKED_AT = 16  # instances considered for a claim: those with the most free KV tokens


class Claim:
    """The instance that a queue's head (the claimant) waits for, and when it is predicted to fit there.

    A request that is backfilled there must leave the claimant's capacity free at that time: it fits beside the
    claimant, or it is predicted to be over by then.  Predictions err, so only ``backfills`` requests are let in
    because of such a prediction; after them the instance empties until the claimant fits.
    """

    __slots__ = ("account", "backfills_left", "fits_at", "leaves_reserve", "spare_slots", "spare_tokens")

    def __init__(self, account: Account, *, backfills: int) -> None:
        self.account = account
        self.backfills_left = backfills
        self.leaves_reserve = False  # the claimant may not take the slot reserved for CRITICAL
        self.fits_at = inf
        self.spare_tokens = 0
        self.spare_slots = 0

    def look_ahead(self, demand: Demand, now: float) -> None:
        """Predict when the claimant fits, and how many slots and KV tokens are left beside it then."""
        account = self.account
        self.leaves_reserve = demand.must_leave_reserve and account.max_running > 1
        tokens = account.free_tokens - self._blocks(demand)
        slots = account.free_slots
        slots_beside_reserve = account.max_running - 1 - account.live_not_critical
        at = now
        if not self._fits(tokens, slots, slots_beside_reserve):
            at = inf  # it stays so if the engine reports more KV tokens in use than are reserved
            for reservation in sorted(account.reservations.values(), key=lambda r: r.finish_at):
                tokens += reservation.tokens
                slots += 1
                slots_beside_reserve += not reservation.critical
                if self._fits(tokens, slots, slots_beside_reserve):
                    at = max(now, reservation.finish_at)
                    break
        self.fits_at = at
        self.spare_tokens = max(0, tokens)
        self.spare_slots = max(0, (min(slots, slots_beside_reserve) if self.leaves_reserve else slots) - 1)

    def _fits(self, tokens: int, slots: int, slots_beside_reserve: int) -> bool:
        """Whether the claimant fits, with ``tokens`` KV tokens left over; it may be first in the engine's queue."""
        if self.leaves_reserve:
            return tokens >= 0 and slots > 0 and slots_beside_reserve > 0
        return tokens >= 0 and slots >= 0

    def allows(self, demand: Demand, finish_in_s: float, now: float) -> bool:
        """Whether a request predicted to run for ``finish_in_s`` seconds may be backfilled on the claimed instance."""
        return self.fits_beside(demand) or (self.backfills_left > 0 and now + finish_in_s <= self.fits_at < inf)

    def take(self, demand: Demand) -> None:
        """Count a request that was backfilled on the claimed instance."""
        if self.fits_beside(demand):
            self.spare_tokens -= self._blocks(demand)
            self.spare_slots -= 1
        else:
            self.backfills_left -= 1

    def fits_beside(self, demand: Demand) -> bool:
        """Whether a request fits on the claimed instance beside the claimant, however long it runs."""
        return self._blocks(demand) <= self.spare_tokens and self.spare_slots > 0

    def _blocks(self, demand: Demand) -> int:
        return whole_blocks(demand.tokens, self.account.block)


def can_claim(demand: Demand, account: Account) -> bool:
    """Whether a request fits an instance once it has room, and the instance is not quiet for CRITICAL requests."""
    return demand.tokens <= account.capacity and not (account.quiet and demand.must_leave_reserve)


def best_claim(demand: Demand, accounts: Sequence[Account], now: float, *, backfills: int) -> Claim | None:
    """Claim the instance where a request is predicted to fit first; None where it can never fit."""
    possible = [a for a in accounts if can_claim(demand, a)]
    emptiest = nlargest(_LOOKED_AT, possible, key=lambda a: a.free_tokens)
    best: Claim | None = None
    for account in emptiest:
        claim = Claim(account, backfills=backfills)
        claim.look_ahead(demand, now)
        if best is None or claim.fits_at < best.fits_at:
            best = claim
    return best
