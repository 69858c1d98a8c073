"""Orders to sleep and to wake, given one by one: one that is refused keeps none of the others from being given."""

from __future__ import annotations

import logging
from collections.abc import Container
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import sage_client as sage
from sage_common.clock import Clock

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 4.0  # after the first refusal; twice as long after each further one
MOST_PAUSE_S = 300.0

REPEATED_S = 10.0  # an order given again within these is the same one: its instance is about to follow it


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


class Change(Enum):
    """What an instance is ordered to do."""

    SLEEP = "sleep"
    WAKE = "wake"


@dataclass(kw_only=True, slots=True)
class _Refusal:
    """The refusals of one order, in a row."""

    reason: str
    count: int
    until: float  # when it may be given again, seconds on the clock


class SleepOrders:
    """Gives the orders, and keeps when each was given or refused.

    Bounded by the instances that there are (``forget``).
    """

    def __init__(self, orders: InstanceOrders, clock: Clock) -> None:
        self._orders = orders
        self._clock = clock
        self._refused: dict[tuple[str, Change], _Refusal] = {}
        self._given_at: dict[tuple[str, Change], float] = {}  # the latest time, seconds on the clock

    def may(self, instance_id: str, change: Change) -> bool:
        """Whether an order may be given now: it was not refused, or its pause is over."""
        refusal = self._refused.get((instance_id, change))
        return refusal is None or self._clock.now() >= refusal.until

    async def give(self, instance_id: str, change: Change, reason: str) -> None:
        """Give an order, which is logged once, as is a refusal for each reason.

        Raises SageError while no scheduler answers.
        """
        try:
            if change is Change.SLEEP:
                await self._orders.sleep_instance(instance_id, reason=reason)
            else:
                await self._orders.wake_instance(instance_id)
        except (sage.TryAgainError, sage.WaitTimeoutError):
            raise  # nobody would answer the other orders either
        except sage.SageError as error:
            self._note(instance_id, change, str(error))
            return
        self._refused.pop((instance_id, change), None)
        now = self._clock.now()
        before, self._given_at[instance_id, change] = self._given_at.get((instance_id, change)), now
        if before is None or now - before > REPEATED_S:
            log.info("%s is ordered to %s: %s", instance_id, change.value, reason)

    def forget(self, there: Container[str]) -> None:
        """Forget the orders and refusals of instances that are not there any more."""
        self._refused = {key: each for key, each in self._refused.items() if key[0] in there}
        self._given_at = {key: at for key, at in self._given_at.items() if key[0] in there}

    def _note(self, instance_id: str, change: Change, reason: str) -> None:
        before = self._refused.get((instance_id, change))
        count = before.count + 1 if before is not None else 1
        pause_s = min(FIRST_PAUSE_S * 2 ** min(count - 1, 16), MOST_PAUSE_S)
        self._refused[instance_id, change] = _Refusal(reason=reason, count=count, until=self._clock.now() + pause_s)
        if before is None or before.reason != reason:
            log.warning("%s refuses to %s, and is asked again later: %s", instance_id, change.value, reason)
