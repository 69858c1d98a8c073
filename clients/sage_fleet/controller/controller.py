"""Follows the scheduler's desired numbers of instances, and has the place start and drain executors for them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import sage_client as sage
from sage_common.clock import Clock
from sage_fleet.controller.allocation import Desired, counts_for
from sage_fleet.controller.resting import GroupInstance, rest_change
from sage_fleet.controller.sleep_orders import Change, InstanceOrders, SleepOrders
from sage_fleet.errors import FleetError
from sage_fleet.executor_settings import GROUP_LABEL
from sage_fleet.places.place import Place
from sage_fleet.scheduler_client import is_gone
from sage_fleet.specification.fleet import Fleet

log = logging.getLogger(__name__)

_RESTING = frozenset({sage.InstanceState.SLEEPING, sage.InstanceState.DRAINING, sage.InstanceState.DRAINED})

PERIOD_S = 2.0  # between two questions; the scheduler itself delays what it says, so that it does not flutter


class Controller:
    """Asks the scheduler again and again, and scales what differs.

    While no scheduler answers all groups stay as they are.  What a place refuses for one group, and an instance's order
    that is refused, keep nothing else from being done.  Each trouble is logged once, and tried again.
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
        self._sleep_orders = SleepOrders(orders, clock)
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
        except (sage.SageError, FleetError) as error:
            self._say(str(error))
            return {}
        before = {name: now[name].wanted for name in counts if name in now}
        return await self._scale(before, counts, remove_first)

    async def _scale(
        self, before: Mapping[str, int], counts: Mapping[str, int], remove_first: Sequence[str]
    ) -> dict[str, int]:
        """Scale each group whose number differs from ``before``; return the new numbers of those that were scaled."""
        changed: dict[str, int] = {}
        troubles: list[str] = []
        for name, was in before.items():
            if counts[name] == was:
                continue
            try:
                await self._place.scale(name, counts[name], remove_first)
            except FleetError as error:
                troubles.append(str(error))
            else:
                log.info("%s: %d executors instead of %d", name, counts[name], was)
                changed[name] = counts[name]
        self._say("; ".join(troubles))
        return changed

    async def _rest(self, fleet: Fleet, counts: dict[str, int], remove_first: Sequence[str]) -> list[str]:
        """Put executors to sleep instead of ending them, and wake some instead of starting others.

        ``counts``, instances needed by group, become executors.  Returns who is to go first.  Raises SageError.
        """
        groups = {name: fleet.groups[name] for name in counts if fleet.groups[name].keep_asleep}
        end_first: list[str] = []
        there = self._by_group((await self._orders.list_instances()).instances) if groups else {}
        for name, group in groups.items():
            own, needed = there.get(name, []), counts[name]
            change = rest_change(own, needed=needed, keep=group.keep_asleep, most=group.most, remove_first=remove_first)
            counts[name] = change.executors
            end_first += change.end_first
            why = f"the group {name} needs {needed}"
            for instance_id in change.wake:
                await self._sleep_orders.give(instance_id, Change.WAKE, why)
            for instance_id in change.sleep:
                await self._sleep_orders.give(instance_id, Change.SLEEP, why)
        return [*end_first, *(name for name in remove_first if name not in end_first)]

    def _by_group(self, instances: Sequence[sage.Instance]) -> Mapping[str, list[GroupInstance]]:
        """Return the instances that are there, by the group that their label names.

        One whose order was refused just now counts as one that cannot be given it.
        """
        found: dict[str, list[GroupInstance]] = {}
        live = [each for each in instances if not is_gone(each)]
        self._sleep_orders.forget({each.instance_id for each in live})
        for each in live:
            asleep, ready = each.state is sage.InstanceState.SLEEPING, each.state is sage.InstanceState.READY
            instance = GroupInstance(
                instance_id=each.instance_id,
                resting=each.state in _RESTING,
                asleep=asleep and self._sleep_orders.may(each.instance_id, Change.WAKE),
                ready=ready and self._sleep_orders.may(each.instance_id, Change.SLEEP),
            )
            found.setdefault(each.labels.get(GROUP_LABEL, ""), []).append(instance)
        return found

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning("the number of executors stays as it is: %s", trouble)
        self._trouble = trouble
