"""The targets of a request: its own, or the defaults of its class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from scheduler_svc.domain.request import Priority, Request


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """Target times in seconds; None: no target."""

    ttft_s: float | None = None  # arrival to first token
    tpot_s: float | None = None  # per output token after the first


DEFAULT_TARGETS: Mapping[Priority, Targets] = {
    Priority.CRITICAL: Targets(ttft_s=0.5),
    Priority.HIGH: Targets(ttft_s=1.0),
    Priority.NORMAL: Targets(ttft_s=5.0),
    Priority.LOW: Targets(ttft_s=30.0),
    Priority.BACKGROUND: Targets(ttft_s=120.0),
}


def states_targets(request: Request) -> bool:
    """Whether the caller named any target."""
    return request.ttft_target_s is not None or request.tpot_target_s is not None or request.target_at is not None


def effective_targets(request: Request, defaults: Mapping[Priority, Targets]) -> Targets:
    """Return the request's own targets; its class's defaults if it states no target and no deadline."""
    if states_targets(request):
        return _stated(request.ttft_target_s, request.tpot_target_s)
    return defaults[request.priority]


def ttft_target_of(request: Request, defaults: Mapping[Priority, Targets]) -> float | None:
    """Return the seconds to a first token that a request states, or else its class's, whatever else it states."""
    return request.ttft_target_s or defaults[request.priority].ttft_s


@lru_cache(maxsize=1_024)
def _stated(ttft_s: float | None, tpot_s: float | None) -> Targets:
    """Return these targets; the same object for the same targets, as a decision asks for them several times."""
    return Targets(ttft_s=ttft_s, tpot_s=tpot_s)
