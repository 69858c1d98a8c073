"""Follows the scheduler's desired numbers of instances, and has the place start and drain executors for them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import sage_client as sage
from sage_common.clock import Clock
from sage_fleet.controller.allocation import Desired, counts_for
from sage_fleet.errors import FleetError
from sage_fleet.places.place import Place
from sage_fleet.specification.fleet import Fleet

log = logging.getLogger(__name__)

PERIOD_S = 2.0  # between two questions; the scheduler itself delays what it says, so that it does not flutter


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
    ) -> None:
        """Build it.  ``fleet`` gives what is applied at the moment, or raises FleetError; ``desired`` asks."""
        self._fleet = fleet
        self._place = place
        self._desired = desired
        self._clock = clock
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

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning("the number of executors stays as it is: %s", trouble)
        self._trouble = trouble
