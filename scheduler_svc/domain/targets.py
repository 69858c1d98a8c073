"""What a request aims at, its class's default filled in where it says nothing."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler_svc.domain.request import Priority, Request
from scheduler_svc.domain.settings import Targets


def states_targets(request: Request) -> bool:
    """Whether the caller named any target."""
    return request.ttft_target_s is not None or request.tpot_target_s is not None or request.target_at is not None


def effective_targets(request: Request, defaults: Mapping[Priority, Targets]) -> Targets:
    """The request's own; only one that states none, a deadline included, takes its class's default."""
    if states_targets(request):
        return Targets(ttft_s=request.ttft_target_s, tpot_s=request.tpot_target_s)
    return defaults[request.priority]
