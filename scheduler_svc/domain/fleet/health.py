"""Liveness is progress: an instance that holds work and does no iteration is unhealthy, whatever its heartbeats say."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.settings import SchedulerSettings

_MAX_DOUBLINGS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthVerdict:
    """A change of state that is due because an engine stalls or makes progress again."""

    instance_id: str
    state: InstanceState
    reason: str


def judge(instance: Instance, settings: SchedulerSettings, now: float) -> HealthVerdict | None:
    """Return the change of state that is due; None if there is none.

    READY and DRAINING instances stall after ``stall_limit_s`` without an iteration while they hold work, or after
    ``known_wait_limit_s`` while the engine says why it waits.  STALLED ones recover with the next iteration or, without
    work, after ``stall_probation_s``, doubling to 8 times that.
    """
    if instance.load is None:
        return None
    if instance.state in (InstanceState.READY, InstanceState.DRAINING):
        return _stalled(instance, instance.load, settings, now)
    if instance.state is InstanceState.STALLED:
        return _recovered(instance, settings, now)
    return None


def _stalled(instance: Instance, load: LoadReport, settings: SchedulerSettings, now: float) -> HealthVerdict | None:
    watch = instance.watch
    limit = settings.known_wait_limit_s if load.known_wait else settings.stall_limit_s
    idle_s = now - watch.since
    if not watch.busy or idle_s < limit:
        return None
    held = max(load.unfinished, len(instance.account.reservations) - len(instance.account.kv.unseen))
    reason = f"holds {held} requests and did no iteration for {idle_s:.1f} s"
    if load.known_wait:
        reason += f" (the engine reports: {load.known_wait})"
    return HealthVerdict(instance_id=instance.instance_id, state=InstanceState.STALLED, reason=reason)


def _recovered(instance: Instance, settings: SchedulerSettings, now: float) -> HealthVerdict | None:
    watch = instance.watch
    if watch.iterations != watch.stalled_at_iteration:
        reason = "does iterations again"
    elif not watch.busy:
        probation_s = settings.stall_probation_s * 2 ** min(watch.stalls - 1, _MAX_DOUBLINGS)
        if now - instance.state_since < probation_s:
            return None
        reason = f"holds no work any more; tried again after {probation_s:.0f} s"
    else:
        return None
    return HealthVerdict(instance_id=instance.instance_id, state=instance.recovers_to, reason=reason)
