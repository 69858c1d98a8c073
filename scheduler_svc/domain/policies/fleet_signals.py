"""Watches the load for the signals that a governing policy decides by."""

from __future__ import annotations

from collections.abc import Iterable

from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.policies.governor import Signals
from scheduler_svc.domain.prediction.forgetting_mean import ForgettingMean
from scheduler_svc.domain.request import Priority, Request
from scheduler_svc.domain.targets import states_targets

_FORGETTING = 0.98  # about the last fifty


class FleetSignals:
    """Keeps shares of recent arrivals and placements.

    A few additions per request; only ``read`` looks at the fleet.
    """

    def __init__(self) -> None:
        self._targeted = ForgettingMean(_FORGETTING)
        self._missed = ForgettingMean(_FORGETTING)
        self._classes = {p: ForgettingMean(_FORGETTING) for p in Priority}

    def arrived(self, request: Request) -> None:
        """Count an arrival."""
        self._targeted.add(states_targets(request))
        for priority, share in self._classes.items():
            share.add(priority is request.priority)

    def placed(self, request: Request, decision: Decision, *, started: bool) -> None:
        """Count a placement.  ``started``: an earlier attempt delivered its first token."""
        if states_targets(request):
            self._missed.add(_misses(request, decision, started=started))

    def read(self, pools: Iterable[Pool]) -> Signals:
        """Work out the signals of these models together."""
        waiting = slots = taken = 0
        prices: list[float] = []
        for pool in pools:
            waiting += len(pool.queue) if pool.queue is not None else 0
            slots += pool.slots
            for account in pool.accounts:
                taken += min(account.live, account.max_running)
                prices.append(account.price_per_s)
        cheapest = min(prices, default=0.0)
        return Signals(
            pressure=waiting / slots if slots else 0.0,
            utilisation=taken / slots if slots else 0.0,
            miss_share=self._missed.value,
            targeted_share=self._targeted.value,
            class_spread=1 - max(share.value for share in self._classes.values()) if self._targeted.count else 0.0,
            price_spread=max(prices) / cheapest - 1 if cheapest > 0 else 0.0,
        )


def _misses(request: Request, decision: Decision, *, started: bool) -> bool:
    """Whether a target the caller stated is predicted to be missed."""
    prediction = decision.prediction
    ttft, deadline = request.ttft_target_s, request.target_at
    if ttft is not None and not started and decision.waited_s + prediction.first_token_s > ttft:
        return True
    later_tokens = prediction.output_tokens - 1
    tpot = request.tpot_target_s
    if tpot is not None and later_tokens > 0:
        token_s = (prediction.finish_s - prediction.first_token_s) / later_tokens
        if token_s > tpot:
            return True
    return deadline is not None and decision.decided_at + prediction.finish_s > deadline
