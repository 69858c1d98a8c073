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

    It is the largest of predicted time x margin / target over first token, each further token and deadline.  Margins
    are learned from the predictions' own errors, so a share of at most 1 means: met, with margin.  A request without
    targets of its own has those of its class.
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
    ) -> Scores:
        """Return the share for each account, huge where a target is past; 0 for a request without any target."""
        request = demand.request
        targets = effective_targets(request, self._defaults)
        shares = [0.0] * len(accounts)
        if targets.ttft_s is not None and not demand.started:
            left = max(request.arrived_at + targets.ttft_s - now, _LEAST_S)
            shares = [f * a.first_token_margin / left for a, f in zip(accounts, first_tokens, strict=True)]
        if targets.tpot_s is not None:
            tpot = targets.tpot_s
            shares = [
                share if (mine := t * a.token_margin / tpot) < share else mine
                for a, t, share in zip(accounts, per_token, shares, strict=True)
            ]
        if request.target_at is not None:
            left = max(request.target_at - now, _LEAST_S)
            finishes = finish_s(demand, first_tokens, per_token)
            shares = [
                share if (mine := e * a.token_margin / left) < share else mine
                for a, e, share in zip(accounts, finishes, shares, strict=True)
            ]
        return shares


def missed(shares: Sequence[float]) -> dict[int, tuple[str, str]]:
    """Return which filter took out the accounts whose share is above 1, and why, by index."""
    return {
        i: ("targets", f"predicted to use {share:.0%} of its targets, margin included")
        for i, share in enumerate(shares)
        if share > 1
    }
