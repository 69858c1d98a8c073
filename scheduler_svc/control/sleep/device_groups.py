"""Has the engines that share a device take turns: shows the rule where they stand, and carries out its orders."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from sage_common.clock import Clock
from scheduler_svc.control.sleep.instance_sleep import InstanceSleep, SleepState
from scheduler_svc.domain.device_groups.member import NO_DEMAND, OUTSIDE, Member, MemberState, ModelDemand
from scheduler_svc.domain.device_groups.order import CAUSED, Action, Cause, Order
from scheduler_svc.domain.device_groups.plan import plan
from scheduler_svc.domain.device_groups.settings import DeviceGroupSettings
from scheduler_svc.domain.errors import SchedulerError
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_state import GONE, STARTING, InstanceState
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

ASSUMED_SLEEP_S = 1.0
"""Seconds that falling asleep counts for until it was measured."""

ASSUMED_WAKE_S = 2.0
"""Seconds that waking up, or a start, counts for until it was measured."""

MOST_CHANGE_S = 300.0
"""Most seconds that a change counts for, whatever an executor says: turns are some times as long."""

_S = InstanceState
_SERVES = frozenset({_S.READY, _S.SUSPECT, _S.STALLED})

GroupKey = tuple[str, str]
"""The host and the name of a group."""


class SleepOrders(Protocol):
    """The port through which instances get their orders; ``InstanceOrders`` implements it."""

    def sleep(self, instance_id: str, reason: str) -> Instance:
        """Have an instance drain and then sleep.  Raises SchedulerError."""
        ...

    def wake(self, instance_id: str) -> Instance:
        """Have an instance be awake; lifts the drain of one that was to sleep.  Raises SchedulerError."""
        ...

    def give_back(self, instance_id: str, reason: str) -> int:
        """Have the requests that run on an instance wait again; return how many did."""
        ...

    def sleep_of(self, instance_id: str) -> InstanceSleep | None:
        """Return what an instance was told, and what it says; None if it has no session."""
        ...

    def drained(self, instance_id: str) -> bool:
        """Return whether an instance is to take nothing, for another reason than its sleep."""
        ...


class DeviceGroups:
    """All device groups.  Bounded by the instances that have a session."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        orders: SleepOrders,
        settings: DeviceGroupSettings,
        *,
        waiting_elsewhere: Callable[[], Mapping[str, int]],
        knows: Callable[[str], bool],
    ) -> None:
        """``waiting_elsewhere``: requests by model that wait for an instance and are in no queue yet.

        ``knows``: whether an engine of this model was up once, so that requests for it can be read.
        """
        self._scheduler = scheduler
        self._clock = clock
        self._orders = orders
        self._settings = settings
        self._waiting_elsewhere = waiting_elsewhere
        self._knows = knows
        self._entered: dict[str, tuple[MemberState, float]] = {}  # by instance: its state, and since when
        # Instances that drain because their group wants their place, with ``InstanceSleep.asked`` of then: once an
        # operator asks for the same, the drain is not lifted any more.
        self._drained: dict[str, int] = {}
        self._waits_since: dict[str, float] = {}  # by model: when requests began to wait that are in no queue yet
        self.counts: Counter[tuple[Action, Cause]] = Counter(dict.fromkeys(CAUSED, 0))  # orders carried out

    def check(self) -> None:
        """Look at every group once, and carry out what the rule orders."""
        groups: dict[GroupKey, list[Instance]] = defaultdict(list)
        for instance in self._scheduler.instances():
            if (group := instance.spec.device_group) is not None and self._takes_part(instance):
                groups[instance.spec.location.host, group.name].append(instance)
        self._forget({each.instance_id for members in groups.values() for each in members})
        now = self._clock.now()
        self._waits_since = {model: self._waits_since.get(model, now) for model in self._waiting_elsewhere()}
        for members in groups.values():
            self._look(members)

    def _takes_part(self, instance: Instance) -> bool:
        return instance.state not in GONE and self._orders.sleep_of(instance.instance_id) is not None

    def _forget(self, there: set[str]) -> None:
        self._entered = {key: each for key, each in self._entered.items() if key in there}
        self._drained = {key: asked for key, asked in self._drained.items() if key in there}

    def _look(self, instances: Sequence[Instance]) -> None:
        now = self._clock.now()
        members = [self._member(each, now) for each in instances]
        for member in members:
            self._scheduler.note_on_demand(member.instance_id, not member.held and not member.pinned)
        own = {each.instance_id for each in instances}
        demands = {model: self._demand(model, own, now) for model in {each.model for each in members}}
        places = min(each.spec.device_group.places for each in instances if each.spec.device_group is not None)
        for order in plan(members, demands, self._settings, now, places=places):
            self._carry_out(order)

    # --- where members stand ------------------------------------------------------------------------

    def _member(self, instance: Instance, now: float) -> Member:
        instance_id, model = instance.instance_id, instance.spec.model
        state = self._state(instance)
        before, since = self._entered.get(instance_id, (None, now))
        if before is not state:
            self._entered[instance_id] = state, (since := now)
        found = self._orders.sleep_of(instance_id)
        report = found.report if found is not None else None
        sleep_s = report.sleep_s if report is not None and report.sleep_s is not None else ASSUMED_SLEEP_S
        wake_s = self._scheduler.start_s(model) if state is MemberState.NOT_STARTED else instance.wake_s
        return Member(
            instance_id=instance_id,
            model=model,
            state=state,
            since=since,
            missed=self._scheduler.missed(instance_id, self._woken(model), now) if state in OUTSIDE else NO_DEMAND,
            running=len(instance.account.reservations),
            sleep_s=min(sleep_s, MOST_CHANGE_S),
            wake_s=min(wake_s, MOST_CHANGE_S) if wake_s is not None else ASSUMED_WAKE_S,
            first_start=state is MemberState.NOT_STARTED and self._never_was_up(instance),
            held=self._orders.drained(instance_id),
            ordered=found is not None and self._drained.get(instance_id) != found.asked,
            pinned=instance.facts is not None and not instance.facts.can_sleep,
        )

    def _woken(self, model: str) -> set[str]:
        """Return the instances of a model that sleep and were told to be awake."""
        asleep = (each.instance_id for each in self._scheduler.instances(model) if each.state is _S.SLEEPING)
        return {each for each in asleep if (found := self._orders.sleep_of(each)) is not None and not found.wanted}

    def _never_was_up(self, instance: Instance) -> bool:
        """Whether nothing is known of an instance's model, and its engine did not fail to start."""
        return not instance.failed_starts and not self._knows(instance.spec.model)

    def _state(self, instance: Instance) -> MemberState:
        found = self._orders.sleep_of(instance.instance_id)
        assert found is not None, "only instances with a session take part"
        says = found.report.state if found.report is not None else None
        if instance.state in STARTING:
            return MemberState.NOT_STARTED if says is SleepState.NOT_STARTED else MemberState.STARTING
        if instance.state is _S.SLEEPING:
            if found.wanted:
                return MemberState.ASLEEP if says is SleepState.ASLEEP else MemberState.FALLING_ASLEEP
            return MemberState.WOKEN if says is SleepState.ASLEEP else MemberState.WAKING
        if not found.wanted:
            self._drained.pop(instance.instance_id, None)
            return MemberState.AWAKE
        return MemberState.DRAINING

    # --- what waits ---------------------------------------------------------------------------------

    def _demand(self, model: str, own: set[str], now: float) -> ModelDemand:
        """Return what waits for a model; ``own``: the group's instances."""
        found = self._scheduler.demand(model, now)
        elsewhere = (each for each in self._scheduler.instances(model) if each.instance_id not in own)
        return replace(
            found,
            waiting=found.waiting + self._waiting_elsewhere().get(model, 0),
            waited_s=max(found.waited_s, now - self._waits_since.get(model, now)),
            awake_elsewhere=any(self._serves(each) for each in elsewhere),
        )

    def _serves(self, instance: Instance) -> bool:
        """Whether an instance serves its model, or is about to."""
        found = self._orders.sleep_of(instance.instance_id)
        if instance.state in STARTING:
            waits = found is not None and found.report is not None and found.report.state is SleepState.NOT_STARTED
            return not waits and not instance.failed_starts
        if instance.state is _S.SLEEPING:
            return found is not None and not found.wanted
        return instance.state in _SERVES

    # --- orders -------------------------------------------------------------------------------------

    def _carry_out(self, order: Order) -> None:
        try:
            if not self._give(order):
                return
        except SchedulerError as error:
            log.warning("device group: %s %s was refused: %s", order.action.value, order.instance_id, error)
            return
        self.counts[order.action, order.cause] += 1
        log.info("device group: %s %s: %s", order.action.value, order.instance_id, order.reason)

    def _give(self, order: Order) -> bool:
        """Give an order; return whether it changed anything.  Raises SchedulerError."""
        match order.action:
            case Action.WAKE | Action.RESUME:
                self._orders.wake(order.instance_id)
            case Action.DRAIN:
                self._orders.sleep(order.instance_id, order.reason)
                if (found := self._orders.sleep_of(order.instance_id)) is not None:
                    self._drained[order.instance_id] = found.asked
            case Action.GIVE_BACK:
                return self._orders.give_back(order.instance_id, order.reason) > 0
        return True
