"""A second policy that says where it would place what the one in force places; nothing follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.decision import Prediction
from scheduler_svc.domain.placement.offer import Offer
from scheduler_svc.domain.placement.run_prediction import predict_run
from scheduler_svc.domain.policies.governor import Signals
from scheduler_svc.domain.policies.in_force import PolicyInForce


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedSums:
    """Sums of predictions over the compared decisions."""

    first_token_s: float = 0.0  # since the decision
    finish_s: float = 0.0  # since the decision
    cost: float = 0.0  # currency of the instances' prices


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowReport:
    """How the shadow's choices compare with those that were made."""

    policy: str
    delegate: str  # the policy that it follows now; empty if it decides itself
    since: float  # seconds on the scheduler's clock
    compared: int  # decisions
    same: int  # of those, with the same instance
    not_compared: int  # split requests, instances that the caller preferred, and requests that it would have wait
    in_force: PredictedSums
    shadow: PredictedSums
    failure: str  # why it was switched off; empty while it decides


class ShadowPolicy:
    """Decides beside the policy in force, on the same offers, without a reservation.

    It sees the fleet as the decisions in force left it.  Its ordering is not asked: the requests are those that the
    policy in force takes next.  The first exception switches it off.
    """

    def __init__(self, policy: PolicyInForce, now: float) -> None:
        self._policy = policy
        self._since = now
        self._compared = self._same = self._not_compared = 0
        self._in_force = [0.0, 0.0, 0.0]  # first token, finish, cost
        self._shadow = [0.0, 0.0, 0.0]
        self.failure = ""

    @property
    def name(self) -> str:
        """Name of the policy."""
        return self._policy.name

    def report(self) -> ShadowReport:
        """Return the comparison so far."""
        return ShadowReport(
            policy=self._policy.name,
            delegate=self._policy.delegate,
            since=self._since,
            compared=self._compared,
            same=self._same,
            not_compared=self._not_compared,
            in_force=_sums(self._in_force),
            shadow=_sums(self._shadow),
            failure=self.failure,
        )

    def leave_out(self) -> None:
        """Count a decision that is not compared."""
        self._not_compared += 1

    def compare(self, offer: Offer, chosen: Account, prediction: Prediction, now: float) -> None:
        """Compare what was chosen with what the shadow would choose, before capacity is reserved.  Never raises."""
        if self.failure:
            return
        try:
            accounts = offer.with_capacity
            objective = self._policy.acting(offer.demand.request.model).objective
            choice = objective.choose(offer.demand, accounts, now)
            if choice.waits:
                self._not_compared += 1  # it would have the request wait
                return
            mine = accounts[choice.index]
            mine_predicted = prediction if mine is chosen else predict_run(mine, offer.demand, now)
        except Exception as error:
            self._fail(error)
            return
        self._compared += 1
        self._same += mine is chosen
        _add(self._in_force, prediction)
        _add(self._shadow, mine_predicted)

    def tick(self, signals: Callable[[], Mapping[str, Signals]], now: float) -> None:
        """Let a governing policy reconsider which policy each model follows.  Never raises.

        ``signals``: makes the signals of each model that has a queue.
        """
        if self.failure:
            return
        try:
            if self._policy.due(now):
                read = signals()
                self._policy.forget(read)
                for model, each in read.items():
                    self._policy.reconsider(model, each, now)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failure = f"{type(error).__name__}: {error}"


def _add(sums: list[float], prediction: Prediction) -> None:
    sums[0] += prediction.first_token_s
    sums[1] += prediction.finish_s
    sums[2] += prediction.cost


def _sums(sums: list[float]) -> PredictedSums:
    return PredictedSums(first_token_s=sums[0], finish_s=sums[1], cost=sums[2])
