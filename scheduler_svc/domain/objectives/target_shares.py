"""How much of a request's targets an instance is predicted to use."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import numpy as np

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import Figures, lowest
from scheduler_svc.domain.objectives.rejected import Rejected
from scheduler_svc.domain.objectives.scorers import Scores, finish_s
from scheduler_svc.domain.prediction.margin import MOST_MARGIN
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import Targets, effective_targets

#: Where less of the targets is used, they are met with any margin.
_DOUBTFUL = 1 / MOST_MARGIN
_LEAST_S = 1e-6  # left of a target that is past: it is missed everywhere


class TargetShares:
    """Predicts the share of its targets that one request uses on each instance.

    It is the largest of predicted time / target over first token, each further token and deadline: at most 1 where the
    targets are predicted to be met.  Where the first token is too late everywhere and a deadline is stated, the TTFT
    target does not count.  A request without targets of its own has those of its class.
    """

    __slots__ = ("_deadline_at", "_demand", "_first_token_at", "_now", "_tpot_s")

    def __init__(self, demand: Demand, defaults: Mapping[Priority, Targets], now: float) -> None:
        request = demand.request
        targets = effective_targets(request, defaults)
        self._demand = demand
        self._now = now
        ttft_s = None if demand.started else targets.ttft_s
        # When first token and end are due, seconds on the scheduler's clock; None without such a target.
        self._first_token_at = None if ttft_s is None else request.arrived_at + ttft_s
        self._deadline_at = request.target_at
        self._tpot_s = targets.tpot_s

    @property
    def token_s(self) -> float:
        """The TPOT target, in seconds; infinite without one."""
        return inf if self._tpot_s is None else self._tpot_s

    def of(self, first_tokens: Scores, per_token: Scores) -> Scores:
        """Return the share for each instance, huge where a target is past; 0 for a request without any target."""
        found = self.of_due(first_tokens, per_token)
        if self._tpot_s is not None:
            shares = per_token * (1 / self._tpot_s)
            found = shares if found is None else np.maximum(found, shares)
        return np.zeros(len(first_tokens)) if found is None else found

    def of_due(self, first_tokens: Scores, per_token: Scores) -> Scores | None:
        """Return the share of the TTFT target and the deadline, which a wait uses up; None without either."""
        deadline_at, now = self._deadline_at, self._now
        found: Scores | None = None
        if self._first_token_at is not None:
            left_s = self._first_token_at - now
            # A first token that is too late everywhere is no reason to miss the deadline as well.
            counts = deadline_at is None or lowest(first_tokens) <= left_s
            found = first_tokens * (1 / max(left_s, _LEAST_S) if counts else 0.0)
        if deadline_at is not None:
            shares = finish_s(self._demand, first_tokens, per_token) * (1 / max(deadline_at - now, _LEAST_S))
            found = shares if found is None else np.maximum(found, shares)
        return found

    def of_one(self, first_token_s: float, token_s: float) -> float:
        """Return the share for the only instance, as ``of`` does."""
        share, deadline_at, now = 0.0, self._deadline_at, self._now
        if self._first_token_at is not None:
            left_s = self._first_token_at - now
            if deadline_at is None or first_token_s <= left_s:
                share = first_token_s * (1 / max(left_s, _LEAST_S))
        if self._tpot_s is not None:
            share = max(share, token_s * (1 / self._tpot_s))
        if deadline_at is not None:
            finish_s = first_token_s + float(self._demand.output_tokens - 1) * token_s
            share = max(share, finish_s * (1 / max(deadline_at - now, _LEAST_S)))
        return share

    def range_of(self, row: int, first_tokens: Scores, per_token: Scores) -> tuple[float, float] | None:
        """Return a share that no account is below, and that of one of the accounts; None if that takes longer.

        Nobody is below the share that the least time until the first token and the least per token would use.
        """
        first_s, least_s = first_tokens.item(row), lowest(first_tokens)
        if self._first_token_at is not None and self._deadline_at is not None:
            left_s = self._first_token_at - self._now
            if least_s <= left_s < first_s:
                return None  # the TTFT target counts for this one too, as it can be met elsewhere
        return self.of_one(least_s, lowest(per_token)), self.of_one(first_s, per_token.item(row))

    def least_times(
        self, each: Figures, first_tokens: Scores, per_token: Scores, *, least_share: float
    ) -> tuple[float, float] | None:
        """Return the least seconds, with half a margin, until the first token and the end; None if they are in time.

        ``least_share``: of the shares of all accounts.

        A whole margin would give up requests that would mostly make it; without any, those that are let through when
        all are just in time would mostly miss.  In time is what keeps the TTFT target and the deadline.  The time per
        token does not count: who goes next changes nothing about it.
        """
        if least_share <= _DOUBTFUL:
            return None
        firsts = first_tokens * (1 + each.first_token_margin)
        first = end = lowest(firsts / 2.0)
        if self._deadline_at is not None:
            later_s = (self._demand.output_tokens - 1) * per_token * (1 + each.token_margin)
            end = lowest((firsts + later_s) / 2)
        return self._unless_in_time(first, end)

    def least_times_of_one(
        self, account: Account, first_token_s: float, token_s: float, *, share: float
    ) -> tuple[float, float] | None:
        """Return the seconds for the only instance, as ``least_times`` does."""
        if share <= _DOUBTFUL:
            return None
        first_s = first_token_s * (1 + account.first_token_margin)
        end = first = first_s / 2.0
        if self._deadline_at is not None:
            later_s = (self._demand.output_tokens - 1) * token_s * (1 + account.token_margin)
            end = (first_s + later_s) / 2
        return self._unless_in_time(first, end)

    def _unless_in_time(self, first: float, end: float) -> tuple[float, float] | None:
        """Return the seconds until the first token and the end; None if these keep TTFT target and deadline."""
        now, deadline_at = self._now, self._deadline_at
        in_time = self._first_token_at is None or now + first <= self._first_token_at
        if in_time and (deadline_at is None or now + end <= deadline_at):
            return None
        return first, end


def reject_missed(rejected: Rejected, shares: Scores) -> None:
    """Take out the accounts where more than the whole of the targets is predicted to be used."""
    rejected.add(shares > 1, lambda i: ("targets", f"predicted to use {shares[i]:.0%} of its targets"))
