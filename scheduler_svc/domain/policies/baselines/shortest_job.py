"""Shortest predicted job first."""

from __future__ import annotations

from scheduler_svc.domain.policies.baselines.ordering_only import ordering_only
from scheduler_svc.domain.policies.baselines.smallest_first import SmallestFirst
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.domain.waiting_request import WaitingRequest

_USUAL_S = 5.0


def make_shortest_job(settings: SchedulerSettings) -> Policy:
    """Make the policy that serves short jobs first, by the prediction made when a request enters the queue."""
    ordering = SmallestFirst(_service_s, half=_USUAL_S, words="predicted service of {:.2f} s")
    return ordering_only(
        "shortest_job", ordering, first="the shortest predicted job", ignores="classes, targets, deadlines"
    )


def _service_s(waiting: WaitingRequest) -> float:
    return waiting.pace.service_s(waiting.prompt_tokens, waiting.output_tokens)
