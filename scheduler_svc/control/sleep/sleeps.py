"""Puts instances to sleep once nothing is in flight there, and wakes them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sage_common.clock import Clock
from scheduler_svc.control.attempts.executor_link import ExecutorLink
from scheduler_svc.control.sleep.instance_sleep import InstanceSleep, SleepReport, SleepState
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest, InvalidTransition
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_state import DRAINS, STARTING, TRANSITIONS, InstanceState
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

_S = InstanceState
_DRAINABLE = (_S.READY, _S.SUSPECT, _S.STALLED)
_BEFORE_START = (SleepState.NOT_STARTED, SleepState.STARTING)


class Sleeps:
    """The sleep of every instance with a session: an instance drains first, and is SLEEPING from the order on.

    A sleep ends with the engine, not with the session: an executor that comes back says whether its engine sleeps.
    """

    def __init__(self, scheduler: Scheduler, clock: Clock, *, awake: Callable[[str], None]) -> None:
        """``awake`` is called when an instance that slept takes work again."""
        self._scheduler = scheduler
        self._clock = clock
        self._awake = awake
        self._instances: dict[str, InstanceSleep] = {}  # those with a session, by id

    # --- sessions -----------------------------------------------------------------------------------

    def opened(self, instance: Instance, link: ExecutorLink) -> None:
        """Note that a session opened; what was wanted in an earlier one of the same engine is still wanted.

        The latest order is given again: it may have been lost with the earlier session.
        """
        old = self._instances.get(instance.instance_id)
        found = InstanceSleep(link=link)
        if old is not None:
            found.wanted, found.asked = old.wanted, old.asked
        self._instances[instance.instance_id] = found
        if instance.state is _S.SLEEPING:
            found.order(asleep=found.wanted)

    def closed(self, instance_id: str) -> None:
        """Note that an instance's session is over for good."""
        self._instances.pop(instance_id, None)

    def unknown(self, instance: Instance) -> bool:
        """Return whether the engine may be asleep: its executor did not say yet in this session."""
        found = self._instances.get(instance.instance_id)
        can_sleep = instance.facts is not None and instance.facts.can_sleep
        return can_sleep and found is not None and found.report is None

    def find(self, instance_id: str) -> InstanceSleep | None:
        """Return what an instance was told and says; None if it has no session."""
        return self._instances.get(instance_id)

    # --- orders -------------------------------------------------------------------------------------

    def sleep(self, instance: Instance, reason: str) -> None:
        """Have an instance drain and then sleep; one that wakes up sleeps again.  Nothing happens to one that sleeps.

        Raises InvalidTransition for one that starts or is gone, InvalidRequest for an engine that cannot sleep.
        """
        found = self._of(instance, _S.SLEEPING)
        wanted, found.wanted = found.wanted, True
        found.asked += 1
        if instance.state is _S.SLEEPING and not wanted:
            found.order(asleep=True)
            self._move(instance, _S.SLEEPING, f"to sleep: {reason}")
        elif instance.state in _DRAINABLE:
            self._move(instance, _S.DRAINING, f"to sleep: {reason}")

    def wake(self, instance: Instance, *, drained: bool) -> None:
        """Have an instance be awake; one that drains to sleep takes work again.

        ``drained``: whether it is to take nothing for another reason.
        Raises InvalidTransition for one that starts or is gone, InvalidRequest for an engine that cannot sleep.
        """
        found = self._of(instance, _S.READY)
        wanted, found.wanted = found.wanted, False
        if instance.state is _S.SLEEPING:
            found.order(asleep=False)
            self._move(instance, _S.SLEEPING, "wakes up")
        elif wanted and not drained:
            self._undrain(instance)

    def _undrain(self, instance: Instance) -> None:
        """Have an instance take work again that drained to sleep, or will drain once it is not SUSPECT or STALLED."""
        if instance.state in DRAINS:
            self._move(instance, _S.READY, "was woken before it slept")
            self._awake(instance.instance_id)
        else:
            self._scheduler.recover_without_drain(instance.instance_id)

    def wakes(self, instance: Instance) -> bool:
        """Return whether a SLEEPING instance was told to be awake."""
        found = self._instances.get(instance.instance_id)
        return found is not None and not found.wanted

    def cancel(self, instance: Instance) -> None:
        """Forget that an instance is to sleep once it has drained.  One that sleeps is woken by an order only."""
        found = self._instances.get(instance.instance_id)
        if found is not None and instance.state is not _S.SLEEPING:
            found.wanted = False

    def follow(self, instance: Instance) -> None:
        """Order the sleep of an instance that is to sleep and has drained."""
        found = self._instances.get(instance.instance_id)
        if found is not None and found.wanted and instance.state is _S.DRAINED:
            self._move(instance, _S.SLEEPING, instance.state_reason)
            found.order(asleep=True)

    def _of(self, instance: Instance, wanted: InstanceState) -> InstanceSleep:
        """Return the sleep of an instance whose engine can sleep.  Raises InvalidTransition, InvalidRequest."""
        found = self._instances.get(instance.instance_id)
        if found is None or instance.facts is None:
            raise InvalidTransition(f"instance {instance.instance_id}", instance.state.value, wanted.value)
        if not instance.facts.can_sleep:
            what = f"the engine of {instance.instance_id} cannot sleep: its executor was started without sleep_mode"
            raise InvalidRequest([FieldViolation(field="instance_id", description=what)])
        return found

    # --- reports ------------------------------------------------------------------------------------

    def reported(self, instance: Instance, report: SleepReport, *, drained: bool) -> None:
        """Take what an executor says.  What it said before it knew the latest order does not count.

        ``drained``: whether the instance is to take nothing for another reason.
        """
        found = self._instances.get(instance.instance_id)
        if found is None or report.number < found.number:
            return
        found.report = report
        if report.wake_s is not None:
            self._scheduler.note_wake(instance.instance_id, report.wake_s)
        if report.state in _BEFORE_START:
            self._starts(instance, report)
        elif report.state is SleepState.AWAKE:
            self._is_awake(instance, found, report, drained=drained)
        elif instance.state is _S.SLEEPING:
            self._move(instance, _S.SLEEPING, ": ".join(filter(None, (report.state.value, report.reason))))
        elif _S.SLEEPING in TRANSITIONS[instance.state]:
            found.wanted = report.state is not SleepState.WAKING
            self._move(instance, _S.SLEEPING, f"{report.state.value}, as was ordered before")

    def _starts(self, instance: Instance, report: SleepReport) -> None:
        if instance.state not in STARTING:
            return
        if report.state is SleepState.STARTING:
            self._scheduler.note_start(instance.instance_id, self._clock.now())
        elif report.reason:
            self._move(instance, instance.state, report.reason)

    def _is_awake(self, instance: Instance, found: InstanceSleep, report: SleepReport, *, drained: bool) -> None:
        if instance.state is _S.SLEEPING and found.wanted:
            if report.reason:
                self._move(instance, _S.SLEEPING, f"is to fall asleep: {report.reason}")
            return
        if instance.state is _S.SLEEPING:
            self._move(instance, _S.DRAINED if drained else _S.READY, "awake")
            log.info("instance %s is awake", instance.instance_id)
        self._awake(instance.instance_id)

    def _move(self, instance: Instance, state: InstanceState, reason: str) -> None:
        self._scheduler.transition(instance.instance_id, state, reason, self._clock.now())
