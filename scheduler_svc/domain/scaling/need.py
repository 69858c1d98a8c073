"""How many instances a load needs, and why."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from scheduler_svc.domain.scaling.carried_share import LEAST
from scheduler_svc.domain.scaling.settings import Bounds, ScalingSettings
from scheduler_svc.domain.scaling.signals import ScalingSignals

#: Share of its TTFT target that a request may wait in the queue before another instance is wanted.  Objectives hold
#: requests back for others' sake for half of it (``held_back.PATIENCE``), which shows no lack: this is half the rest.
WAITED = 0.75
#: Share of KV tokens above which another instance is wanted: engines preempt soon after.
KV_USE = 0.9
#: Requests turned away recently from which another instance is wanted.
TURNED_AWAY = 1.0
#: By what share of the instances the number rises where targets are missed, at least by one.
GROWTH = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """A number of instances, before delays."""

    count: int
    reason: str  # in words


def needed(signals: ScalingSignals, share: float, bounds: Bounds, settings: ScalingSettings) -> Need:
    """Work out how many instances are needed.

    ``share``: of what they can do with every slot taken that they are meant to carry.
    """
    if is_idle(signals, settings):
        return _bounded(0, f"no request for {_seconds(signals.idle_s)}", bounds)
    count = max(1, carriers(signals, share))
    reason = f"the load is {signals.load:.2f} instances"
    if signals.forecast > signals.load * 1.01:
        reason += f", {signals.forecast:.2f} expected in {_seconds(signals.lead_s)}"
    reason += f"; each is to carry {share:.0%}"
    if not signals.ready:
        if signals.waiting:
            reason = f"{signals.waiting} requests wait and no instance is ready"
        return _bounded(count, reason, bounds)
    why = shortage(signals, settings)
    if why:
        more = signals.ready + signals.starting
        if not signals.starting and signals.settled:
            more += ceil(GROWTH * signals.ready)
        if more > count:
            return _bounded(more, f"{why}; {reason}", bounds)
    return _bounded(count, reason, bounds)


def is_idle(signals: ScalingSignals, settings: ScalingSettings) -> bool:
    """Whether nobody has asked for the model for so long that its fewest instances are enough."""
    return not signals.asked_for and signals.idle_s >= settings.idle_s


def carriers(signals: ScalingSignals, share: float) -> int:
    """Return how many instances carry the forecast load at this share, the cheapest for what they do first.

    Beyond those that are there, each is taken to be of mean strength.
    """
    left = signals.forecast / share
    for taken, strength in enumerate(signals.strengths):
        if left <= 0:
            return taken
        left -= strength
    return signals.ready + max(0, ceil(left - 1e-9))


def shortage(signals: ScalingSignals, settings: ScalingSettings) -> str:
    """Say what shows that the instances are too few; empty where nothing does.

    Targets that are missed by instances with little to do are too tight for these engines: more of them would not help.
    """
    if signals.turned_away >= TURNED_AWAY:
        return "requests are refused, or expire while they wait"
    if signals.wait_share > WAITED:
        return f"a request has waited {signals.wait_share:.0%} of its TTFT target"
    if signals.late_share > settings.late_share and signals.load > LEAST * signals.ready:
        return f"{signals.late_share:.1%} of the requests missed a target"
    if signals.kv_use > KV_USE:
        return f"{signals.kv_use:.0%} of the KV tokens are taken"
    return ""


def _bounded(count: int, reason: str, bounds: Bounds) -> Need:
    clamped = bounds.clamp(count)
    if clamped > count:
        reason += f"; the minimum is {bounds.least}"
    elif clamped < count:
        reason += f"; {count} are needed and the maximum is {bounds.most}"
    return Need(count=clamped, reason=reason)


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 1e9 else "as long as is known"
