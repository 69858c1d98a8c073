"""Shortest prompt first."""

from __future__ import annotations

from scheduler_svc.domain.policies.baselines.ordering_only import ordering_only
from scheduler_svc.domain.policies.baselines.smallest_first import SmallestFirst
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.domain.waiting_request import WaitingRequest

_USUAL_TOKENS = 1_000.0


def make_shortest_prompt(settings: SchedulerSettings) -> Policy:
    """Make the policy that serves short prompts first."""
    ordering = SmallestFirst(_prompt_tokens, half=_USUAL_TOKENS, words="a prompt of {:.0f} tokens")
    return ordering_only(
        "shortest_prompt", ordering, first="the shortest prompt", ignores="output lengths, classes, targets, deadlines"
    )


def _prompt_tokens(waiting: WaitingRequest) -> float:
    return waiting.prompt_tokens
