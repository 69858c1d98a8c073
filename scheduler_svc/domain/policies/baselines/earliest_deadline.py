"""Earliest deadline first."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler_svc.domain.policies.baselines.ordering_only import ordering_only
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.domain.targets import Targets, effective_targets
from scheduler_svc.domain.waiting_request import WaitingRequest


class EarliestDeadline:
    """Orders by deadline: when the first token is due or, if earlier, the whole answer.

    Liu and Layland, "Scheduling algorithms for multiprogramming in a hard-real-time environment", JACM 20(1), 1973.  A
    request without targets has those of its class; one without any deadline is due ``max_delay_s`` after its arrival.
    """

    def __init__(self, defaults: Mapping[Priority, Targets], *, max_delay_s: float) -> None:
        self._defaults = defaults
        self.max_delay_s = max_delay_s

    def key(self, waiting: WaitingRequest, now: float) -> float:
        """Return the deadline, between arrival and ``max_delay_s`` later."""
        request = waiting.request
        latest = request.arrived_at + self.max_delay_s
        ttft_s = effective_targets(request, self._defaults).ttft_s
        first_token = request.arrived_at + ttft_s if ttft_s is not None else latest
        end = request.target_at if request.target_at is not None else latest
        return max(request.arrived_at, min(first_token, end, latest))

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        """Return None: a key never changes."""
        return None

    def describe(self, waiting: WaitingRequest, now: float) -> str:
        """Say what the request is ordered by."""
        return f"deadline in {waiting.key - now:.2f} s"


def make_earliest_deadline(settings: SchedulerSettings) -> Policy:
    """Make the policy that serves by deadline."""
    ordering = EarliestDeadline(settings.default_targets, max_delay_s=settings.max_slack_s)
    return ordering_only(
        "earliest_deadline",
        ordering,
        first="the earliest deadline",
        ignores="that late requests are late, TPOT targets, classes where targets are stated",
    )
