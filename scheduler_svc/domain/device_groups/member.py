"""An instance of a device group, as a look at the group sees it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class MemberState(Enum):
    """Where the engine of a member stands."""

    NOT_STARTED = "not started"  # its executor is connected and waits for its turn to start the engine
    STARTING = "starting"
    AWAKE = "awake"
    DRAINING = "draining"  # awake; finishes what it has, because the group wants its place
    FALLING_ASLEEP = "falling asleep"
    ASLEEP = "asleep"
    WAKING = "waking"
    GONE = "gone"  # takes no place: its process and its memory are gone


#: Its engine has memory of the device.
TAKES_PLACE = frozenset(MemberState) - {MemberState.NOT_STARTED, MemberState.ASLEEP, MemberState.GONE}
#: Its place is about to be free.
LEAVES_PLACE = frozenset({MemberState.DRAINING, MemberState.FALLING_ASLEEP})


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One instance of a group now."""

    instance_id: str
    model: str  # the name clients ask for
    state: MemberState
    since: float = 0.0  # when it entered the state, seconds on the scheduler's clock
    running: int = 0  # requests that have a reservation there
    sleep_s: float = 0.0  # that it takes to fall asleep: measured, or assumed before the first time
    wake_s: float = 0.0  # that it takes to wake up: the same
    held: bool = False  # an operator put it to sleep, or its wake failed a moment ago: it is not woken
    pinned: bool = False  # an operator woke it: the group does not put it to sleep

    @property
    def takes_place(self) -> bool:
        """Whether its engine has memory of the device."""
        return self.state in TAKES_PLACE


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelDemand:
    """The requests for one model that wait."""

    waiting: int = 0
    waited_s: float = 0.0  # the longest wait so far
    awake_elsewhere: bool = False  # an instance outside the group serves the model, or is about to
