"""How much of a request's targets an instance is predicted to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
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
        shares = [0.0] * len(accounts)
        if targets.ttft_s is not None and not demand.started:
            left_s = request.arrived_at + targets.ttft_s - now
            # A first token that is too late everywhere is no reason to miss the deadline as well.
            counts = request.target_at is None or min(first_tokens) <= left_s
            per_s = 1 / max(left_s, _LEAST_S) if counts else 0.0
            if margin:
                shares = [f * a.first_token_margin * per_s for a, f in zip(accounts, first_tokens, strict=True)]
            else:
                shares = [f * per_s for f in first_tokens]
        if targets.tpot_s is not None:
            shares = _larger(shares, per_token, 1 / targets.tpot_s, accounts if margin else None)
        if request.target_at is not None:
            finishes = finish_s(demand, first_tokens, per_token)
            per_s = 1 / max(request.target_at - now, _LEAST_S)
            shares = _larger(shares, finishes, per_s, accounts if margin else None)
        return shares

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
        first = min(f * (1 + a.first_token_margin) / 2 for a, f in zip(accounts, first_tokens, strict=True))
        later_tokens = demand.output_tokens - 1
        end = first
        if request.target_at is not None:
            end = min(
                (f * (1 + a.first_token_margin) + later_tokens * t * (1 + a.token_margin)) / 2
                for a, f, t in zip(accounts, first_tokens, per_token, strict=True)
            )
        in_time = ttft_s is None or now + first <= request.arrived_at + ttft_s
        if in_time and (request.target_at is None or now + end <= request.target_at):
            return None
        return first, end


def _larger(shares: Scores, times: Scores, per_s: float, accounts: Sequence[Account] | None) -> Scores:
    """Return the larger of each share and time x ``per_s``, times the margin of ``accounts`` if they are given."""
    if accounts is None:
        return [s if (mine := t * per_s) < s else mine for s, t in zip(shares, times, strict=True)]
    return [
        s if (mine := t * a.token_margin * per_s) < s else mine for s, t, a in zip(shares, times, accounts, strict=True)
    ]


def missed(shares: Sequence[float]) -> dict[int, tuple[str, str]]:
    """Return which filter took out the accounts whose share is above 1, and why, by index."""
    return {
        i: ("targets", f"predicted to use {share:.0%} of its targets") for i, share in enumerate(shares) if share > 1
    }
