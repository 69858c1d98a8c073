"""What one instance was told about its sleep, and what its executor says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from scheduler_svc.control.attempts.executor_link import ExecutorLink


class SleepState(Enum):
    """What an engine does."""

    NOT_STARTED = "not started"  # its executor waits for a place on the device
    STARTING = "starting"  # it has a place on the device
    AWAKE = "awake"
    FALLING_ASLEEP = "falling asleep"
    ASLEEP = "asleep"
    WAKING = "waking"


@dataclass(frozen=True, kw_only=True, slots=True)
class SleepReport:
    """What an executor says of its engine's sleep."""

    state: SleepState
    number: int  # of the latest order of the session that it knew; 0: none
    reason: str = ""  # why it is not as ordered yet, in words
    sleep_s: float | None = None  # that falling asleep took the last time; None: it never did
    wake_s: float | None = None  # that waking up took the last time; None: it never did


@dataclass(slots=True, kw_only=True)
class InstanceSleep:
    """The orders of one session, and the latest report."""

    link: ExecutorLink
    wanted: bool = False  # whether it is to sleep, once it has drained
    asked: int = 0  # how often an operator or a device group's rule said so
    number: int = 0  # of the latest order
    report: SleepReport | None = None

    def order(self, *, asleep: bool) -> None:
        """Tell the executor whether its engine is to sleep."""
        self.wanted = asleep
        self.number += 1
        self.link.want_sleep(self.number, asleep=asleep)
