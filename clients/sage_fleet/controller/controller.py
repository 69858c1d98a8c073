"""Follows the scheduler's desired numbers of instances, and has the place start and drain executors for them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import sage_client as sage
from sage_common.clock import Clock
from sage_fleet.controller.allocation import Desired, counts_for
from sage_fleet.controller.resting import GroupInstance, rest_change
from sage_fleet.errors import FleetError
from sage_fleet.executor_settings import GROUP_LABEL
from sage_fleet.places.place import Place
from sage_fleet.specification.fleet import Fleet

log = logging.getLogger(__name__)

PERIOD_S = 2.0  # between two questions; the scheduler itself delays what it says, so that it does not flutter


class InstanceOrders(Protocol):
    """The port to the scheduler's instances.  All methods raise SageError."""

    async def list_instances(self) -> sage.FleetView:
        """Return all instances."""
        ...

    async def sleep_instance(self, instance_id: str, *, reason: str) -> sage.Instance:
        """Put an instance to sleep once it has finished its requests."""
        ...

    async def wake_instance(self, instance_id: str) -> sage.Instance:
        """Wake an instance that sleeps."""
        ...


class Controller:
    """Asks the scheduler again and again, and scales what differs.

    A scheduler that does not answer and a place that refuses are logged once, and asked again: until then all groups
    stay as they are.
    """

    def __init__(
        self,
        fleet: Callable[[], Fleet],
        place: Place,
        desired: Callable[[], Awaitable[Sequence[Desired]]],
        clock: Clock,
        orders: InstanceOrders,
    ) -> None:
        """Build it.  ``fleet`` gives what is applied at the moment, or raises FleetError; ``desired`` asks.

        ``orders``: puts instances to sleep and wakes them, of groups with ``keep_asleep``.
        """
        self._fleet = fleet
        self._place = place
        self._desired = desired
        self._clock = clock
        self._orders = orders
        self._trouble = ""

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await self.follow_once()
            await self._clock.sleep(PERIOD_S)

    async def follow_once(self) -> dict[str, int]:
        """Scale the groups whose numbers differ from what the scheduler wants; return their new numbers."""
        try:
            fleet = self._fleet()
            if not any(group.is_scaled for group in fleet.groups.values()):
                return {}
            desired = await self._desired()
            counts = counts_for(fleet, desired)
            remove_first = [name for each in desired for name in each.remove_first]
            remove_first = await self._rest(fleet, counts, remove_first)
            now = (await self._place.status()).groups
            changed = {name: count for name, count in counts.items() if name in now and now[name].wanted != count}
            for name, count in changed.items():
                log.info("%s: %d executors instead of %d", name, count, now[name].wanted)
                await self._place.scale(name, count, remove_first)
        except (sage.SageError, FleetError) as error:
            self._say(str(error))
            return {}
        self._say("")
        return changed

    async def _rest(self, fleet: Fleet, counts: dict[str, int], remove_first: Sequence[str]) -> list[str]:
        """Put executors to sleep instead of ending them, and wake some instead of starting others.

        ``counts``, instances needed by group, become executors.  Returns who is to go first.  Raises SageError.
        """
        groups = {name: fleet.groups[name] for name in counts if fleet.groups[name].keep_asleep}
        end_first: list[str] = []
        there = _by_group((await self._orders.list_instances()).instances) if groups else {}
        for name, group in groups.items():
            own, needed = there.get(name, []), counts[name]
            change = rest_change(own, needed=needed, keep=group.keep_asleep, most=group.most, remove_first=remove_first)
            counts[name] = change.executors
            end_first += change.end_first
            for instance_id in change.wake:
                await self._orders.wake_instance(instance_id)
            for instance_id in change.sleep:
                log.info("%s is put to sleep: %d of %s are needed", instance_id, needed, name)
                await self._orders.sleep_instance(instance_id, reason="its model needs fewer instances")
        return [*end_first, *(name for name in remove_first if name not in end_first)]

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning("the number of executors stays as it is: %s", trouble)
        self._trouble = trouble


_GONE = frozenset({sage.InstanceState.LOST, sage.InstanceState.FAILED})
_RESTING = frozenset({sage.InstanceState.SLEEPING, sage.InstanceState.DRAINING, sage.InstanceState.DRAINED})


def _by_group(instances: Sequence[sage.Instance]) -> Mapping[str, list[GroupInstance]]:
    """Return the instances that are there, by the group that their label names."""
    found: dict[str, list[GroupInstance]] = {}
    for each in instances:
        if each.state not in _GONE:
            instance = GroupInstance(
                instance_id=each.instance_id,
                resting=each.state in _RESTING,
                asleep=each.state is sage.InstanceState.SLEEPING,
                ready=each.state is sage.InstanceState.READY,
            )
            found.setdefault(each.labels.get(GROUP_LABEL, ""), []).append(instance)
    return found
