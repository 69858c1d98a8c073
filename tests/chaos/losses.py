"""Requests that clients were told are lost, and whether what struck the fleet can be the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SCHEDULER_DEATHS = frozenset(
    {
        "scheduler killed",
        "scheduler terminated",
        "both killed",
        "leader killed",
        "leader terminated",
        "leader stopped",
        "database stopped",
        "database restarted",
    }
)
"""After these another scheduler goes on, which knows of output what executors hold."""

EXECUTOR_FAULTS = frozenset({"executor killed", "executor stopped", "link half open", "both killed"})
"""After these what an executor holds may be gone, or given up."""

LASTS_S = 15.0
"""How long an executor may be away after a fault: the fault, its lease, its start."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One request whose client was told that it is lost."""

    request_id: str
    reason: str
    detached: bool
    began: float  # seconds on the event loop's clock: sent first, and told
    ended: float


def unexplained(losses: Iterable[Loss], faults: Sequence[tuple[str, float]]) -> list[str]:
    """Return, in words, the losses that the faults (kind, when it struck) do not explain.

    A request may be lost only if it is not detached, the scheduler died during its life, and an executor was struck
    during it or shortly before.
    """
    wrong = [each for each in losses if not _explained(each, faults)]
    return [f"{each.request_id} is told lost without a reason: {each.reason}" for each in wrong]


def _explained(loss: Loss, faults: Sequence[tuple[str, float]]) -> bool:
    if loss.detached:
        return False
    during = {kind for kind, at in faults if loss.began <= at <= loss.ended}
    shortly = {kind for kind, at in faults if loss.began - LASTS_S <= at <= loss.ended}
    return bool(during & SCHEDULER_DEATHS and shortly & EXECUTOR_FAULTS)
