"""Watches the load of each model for the signals that a governing policy decides by."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from math import fsum

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.offered_load import OfferedLoad
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.policies.governor import Signals
from scheduler_svc.domain.prediction.forgetting_mean import ForgettingMean
from scheduler_svc.domain.request import Priority, Request
from scheduler_svc.domain.targets import Targets, effective_targets, states_targets

_ARRIVALS = 0.98  # about the last fifty
_PLACEMENTS = 0.995  # about the last two hundred
_MOST_MODELS = 1_024  # remembered; the one that came first goes
_FEW = 20.0  # requests: fewer count as so many, the others without target, without miss and of one class


class FleetSignals:
    """Keeps shares of recent arrivals and placements, by model.

    A few additions per request; only ``read`` looks at the instances.
    """

    def __init__(self, defaults: Mapping[Priority, Targets]) -> None:
        """``defaults``: targets of the classes."""
        self._defaults = defaults
        self._models: dict[str, _ModelSignals] = {}

    def targets_of(self, request: Request) -> Targets:
        """Return the targets of a request: its own or, if it states none, those of its class."""
        return effective_targets(request, self._defaults)

    def arrived(self, request: Request) -> None:
        """Count an arrival."""
        self._of(request.model).arrived(request)

    def placed(self, request: Request, decision: Decision, *, started: bool) -> None:
        """Count a placement.  ``started``: an earlier attempt delivered its first token."""
        targets = effective_targets(request, self._defaults)
        self._of(request.model).missed.add(_misses(request, decision, targets, started=started))

    def read(
        self, model: str, accounts: Sequence[Account], load: OfferedLoad, waiting: Mapping[Priority, int], now: float
    ) -> Signals:
        """Work out a model's signals.  ``waiting``: requests in its queue, by class."""
        return self._of(model).read(accounts, load, waiting, now)

    def forget(self, models: Container[str]) -> None:
        """Forget all models but these."""
        for model in [each for each in self._models if each not in models]:
            del self._models[model]

    def _of(self, model: str) -> _ModelSignals:
        found = self._models.get(model)
        if found is None:
            if len(self._models) >= _MOST_MODELS:
                del self._models[next(iter(self._models))]
            found = self._models[model] = _ModelSignals()
        return found


class _ModelSignals:
    """The shares of one model."""

    def __init__(self) -> None:
        self.missed = ForgettingMean(_PLACEMENTS)
        # Of arrivals, the latest weighing most: their number, those with targets, those of each class.
        self._arrivals = self._targeted = 0.0
        self._classes = dict.fromkeys(Priority, 0.0)

    def arrived(self, request: Request) -> None:
        """Count an arrival."""
        self._arrivals = _ARRIVALS * self._arrivals + 1
        self._targeted = _ARRIVALS * self._targeted + states_targets(request)
        classes = self._classes
        for priority in classes:
            classes[priority] *= _ARRIVALS
        classes[request.priority] += 1

    def read(
        self, accounts: Sequence[Account], load: OfferedLoad, waiting: Mapping[Priority, int], now: float
    ) -> Signals:
        """Work out the signals."""
        slots = sum(a.max_running for a in accounts)
        taken = sum(min(a.live, a.max_running) for a in accounts)
        prices = [a.price_per_s for a in accounts]
        cheapest = min(prices, default=0.0)
        served = fsum(1 / max(taken, 1e-9) for taken in load.of_instances(accounts, now))
        arrivals = self._arrivals
        in_queue = sum(waiting.values())
        background = self._classes[Priority.BACKGROUND] / max(arrivals, _FEW)
        commonest = max(self._classes.values())
        return Signals(
            load=1 / served if served else 0.0,
            pressure=in_queue / slots if slots else 0.0,
            utilisation=taken / slots if slots else 0.0,
            miss_share=self.missed.total / max(self.missed.weight, _FEW),
            targeted_share=self._targeted / max(arrivals, _FEW),
            class_spread=(arrivals - commonest) / max(arrivals, _FEW),
            background_share=max(background, waiting.get(Priority.BACKGROUND, 0) / max(in_queue, _FEW)),
            price_spread=max(prices) / cheapest - 1 if cheapest > 0 else 0.0,
        )


def _misses(request: Request, decision: Decision, targets: Targets, *, started: bool) -> bool:
    """Whether a target of the request is predicted to be missed."""
    prediction = decision.prediction
    ttft, deadline = targets.ttft_s, request.target_at
    if ttft is not None and not started and decision.waited_s + prediction.first_token_s > ttft:
        return True
    later_tokens = prediction.output_tokens - 1
    tpot = targets.tpot_s
    if tpot is not None and later_tokens > 0:
        token_s = (prediction.finish_s - prediction.first_token_s) / later_tokens
        if token_s > tpot:
            return True
    return deadline is not None and decision.decided_at + prediction.finish_s > deadline
