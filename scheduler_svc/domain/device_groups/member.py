"""An instance of a device group, as a look at the group sees it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class MemberState(Enum):
    """Where the engine of a member stands."""

    NOT_STARTED = "not started"  # its executor takes the first place that is free, and starts the engine
    STARTING = "starting"
    AWAKE = "awake"
    DRAINING = "draining"  # awake; finishes what it has, and sleeps then
    FALLING_ASLEEP = "falling asleep"
    ASLEEP = "asleep"
    WOKEN = "woken"  # its executor takes the first place that is free, and wakes the engine
    WAKING = "waking"


#: Its engine has memory of the device.
TAKES_PLACE = frozenset(MemberState) - {MemberState.NOT_STARTED, MemberState.ASLEEP, MemberState.WOKEN}
#: It has none, and was not told to take one.
OUTSIDE = frozenset({MemberState.NOT_STARTED, MemberState.ASLEEP})
#: Its place is about to be free.
LEAVES_PLACE = frozenset({MemberState.DRAINING, MemberState.FALLING_ASLEEP})


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelDemand:
    """The requests for one model that wait."""

    waiting: int = 0
    waited_s: float = 0.0  # the longest wait so far
    awake_elsewhere: bool = False  # an instance outside the group serves the model, or is about to


NO_DEMAND = ModelDemand()


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One instance of a group now.  One that is gone is none: its process and its memory are gone, too."""

    instance_id: str
    model: str  # the name clients ask for
    state: MemberState
    since: float = 0.0  # when it entered the state, seconds on the scheduler's clock
    missed: ModelDemand = NO_DEMAND  # what only this one can serve, or others that are not READY either
    running: int = 0  # requests that have a reservation there
    sleep_s: float = 0.0  # that it takes to fall asleep: measured, or assumed before the first time
    wake_s: float = 0.0  # that it takes to wake up, or to start: the same
    first_start: bool = False  # nothing is known of its model before its engine was up once
    held: bool = False  # an operator drained it: it is not woken
    pinned: bool = False  # its engine cannot sleep
    ordered: bool = False  # an operator put it to sleep: its drain is not lifted

    @property
    def takes_place(self) -> bool:
        """Whether its engine has memory of the device."""
        return self.state in TAKES_PLACE
