"""How much of a request's targets an instance is predicted to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import figures_of
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import lowest
from scheduler_svc.domain.objectives.rejected import Rejected
from scheduler_svc.domain.objectives.scorers import Scores, finish_s
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import Targets, effective_targets

_LEAST_S = 1e-6  # left of a target that is past: it is missed everywhere


class TargetShares:
    """Predicts the share of its targets that a request uses on each instance.

    It is the largest of predicted time / target over first token, each further token and deadline: at most 1 where the
    targets are predicted to be met.  Where the first token is too late everywhere and a deadline is stated, the TTFT
    target does not count.  A request without targets of its own has those of its class.
    """

    def __init__(self, defaults: Mapping[Priority, Targets]) -> None:
        self._defaults = defaults

    def of(
        self,
        demand: Demand,
        accounts: Sequence[Account],
        now: float,
        *,
        first_tokens: Scores,
        per_token: Scores,
        margin: bool = False,
    ) -> Scores:
        """Return the share for each account, huge where a target is past; 0 for a request without any target.

        ``margin``: multiply predicted times by the margins learned from their errors, so that nearly all requests
        whose share is at most 1 do meet their targets.
        """
        request = demand.request
        targets = effective_targets(request, self._defaults)
        each = figures_of(accounts)
        found: list[Scores] = []
        if targets.ttft_s is not None and not demand.started:
            left_s = request.arrived_at + targets.ttft_s - now
            # A first token that is too late everywhere is no reason to miss the deadline as well.
            counts = request.target_at is None or lowest(first_tokens) <= left_s
            times = first_tokens * each.first_token_margin if margin else first_tokens
            found.append(times * (1 / max(left_s, _LEAST_S) if counts else 0.0))
        if targets.tpot_s is not None:
            times = per_token * each.token_margin if margin else per_token
            found.append(times * (1 / targets.tpot_s))
        if request.target_at is not None:
            finishes = finish_s(demand, first_tokens, per_token)
            times = finishes * each.token_margin if margin else finishes
            found.append(times * (1 / max(request.target_at - now, _LEAST_S)))
        return reduce(np.maximum, found) if found else np.zeros(len(accounts))

    def least_times(
        self, demand: Demand, accounts: Sequence[Account], now: float, first_tokens: Scores, per_token: Scores
    ) -> tuple[float, float] | None:
        """Return the least seconds, with half a margin, until the first token and the end; None if they are in time.

        A whole margin would give up requests that would mostly make it; without any, those that are let through when
        all are just in time would mostly miss.  In time is what keeps the TTFT target and the deadline.  The time per
        token does not count: who goes next changes nothing about it.
        """
        request = demand.request
        ttft_s = None if demand.started else effective_targets(request, self._defaults).ttft_s
        each = figures_of(accounts)
        firsts = first_tokens * (1 + each.first_token_margin)
        first = end = lowest(firsts / 2.0)
        if request.target_at is not None:
            later_s = (demand.output_tokens - 1) * per_token * (1 + each.token_margin)
            end = lowest((firsts + later_s) / 2)
        in_time = ttft_s is None or now + first <= request.arrived_at + ttft_s
        if in_time and (request.target_at is None or now + end <= request.target_at):
            return None
        return first, end


def reject_missed(rejected: Rejected, shares: Scores) -> None:
    """Take out the accounts where more than the whole of the targets is predicted to be used."""
    rejected.add(shares > 1, lambda i: ("targets", f"predicted to use {shares[i]:.0%} of its targets"))
