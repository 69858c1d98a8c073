"""Classes of requests, which a trace does not have: priorities and targets given out by weights."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from sage_common.near_names import names_instead
from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.request import Priority


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestClass:
    """What the requests of one class state.  Times in seconds; None: nothing is stated."""

    weight: float  # share of the sessions, relative to the other classes' weights
    priority: Priority = Priority.NORMAL
    ttft_target_s: float | None = None
    tpot_target_s: float | None = None
    deadline_s: float | None = None


DEFAULT_MIX = "mixed"

MIXES: Mapping[str, Sequence[RequestClass]] = MappingProxyType(
    {
        # All five classes: people who wait, programs that wait, and work that nobody waits for.
        "mixed": (
            RequestClass(weight=5, priority=Priority.CRITICAL, ttft_target_s=0.5, tpot_target_s=0.05),
            RequestClass(weight=15, priority=Priority.HIGH, ttft_target_s=1.0, tpot_target_s=0.05),
            RequestClass(weight=50, priority=Priority.NORMAL, ttft_target_s=2.0, tpot_target_s=0.1),
            RequestClass(weight=20, priority=Priority.LOW, ttft_target_s=10.0, tpot_target_s=0.2),
            RequestClass(weight=10, priority=Priority.BACKGROUND, ttft_target_s=120.0),
        ),
        # One class with one pair of targets, as in a chat service.
        "chat": (RequestClass(weight=1, ttft_target_s=2.0, tpot_target_s=0.1),),
        # Priorities alone, so that the scheduler's default targets of the classes apply.
        "untargeted": tuple(RequestClass(weight=1, priority=priority) for priority in Priority),
    }
)


def check_mix(name: str) -> None:
    """Raise ValueError if there is no mix of classes of this name; an empty one is none, which is allowed."""
    if name and name not in MIXES:
        raise ValueError(f"no classes {name!r}{names_instead(name, MIXES)}")


def with_classes(
    trace: Iterable[TracedRequest], rng: random.Random, classes: Sequence[RequestClass] = MIXES[DEFAULT_MIX]
) -> list[TracedRequest]:
    """Give every request a class by the weights; the turns of one session have one class.

    Raises ValueError where there is no class, or a weight is not above 0.
    """
    if not classes or any(not 0 < each.weight < float("inf") for each in classes):
        raise ValueError("with_classes needs at least one class, and weights above 0")
    weights = [each.weight for each in classes]
    of_session: dict[tuple[str, str], RequestClass] = {}
    classified = []
    for request in trace:
        [drawn] = rng.choices(classes, weights)
        given = of_session.setdefault((request.tenant, request.session), drawn) if request.session else drawn
        classified.append(_stating(request, given))
    return classified


def _stating(request: TracedRequest, given: RequestClass) -> TracedRequest:
    return replace(
        request,
        priority=given.priority,
        ttft_target_s=given.ttft_target_s,
        tpot_target_s=given.tpot_target_s,
        deadline_s=given.deadline_s,
    )
