"""The port of a governor, which chooses among policies while the scheduler runs, and its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Signals:
    """The figures of one model's load at one moment by which a governor chooses.

    Few requests weigh little: shares are of at least so many that one odd request changes none of them much.
    """

    load: float  # what arrives, as a share of what the instances serve with every slot taken
    pressure: float  # waiting requests per slot
    utilisation: float  # share of slots taken
    miss_share: float  # share of recent placements with targets, stated or of their class, predicted to miss one
    targeted_share: float  # share of recent arrivals that state a target
    class_spread: float  # share of recent arrivals that are not of the most frequent class
    background_share: float  # of class BACKGROUND: share of recent arrivals or of what waits, the larger one
    price_spread: float  # dearest price per hour over cheapest, less 1; 0 where all are equal or free


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """The policy that a governor wants to follow now."""

    policy: str  # its name
    reason: str  # in words, with the figures


class Governor(Protocol):
    """Chooses among policies while the scheduler runs.  Each model has one of its own."""

    @property
    def first(self) -> str:
        """Name of the policy to follow at first."""
        ...

    @property
    def follows(self) -> tuple[str, ...]:
        """Names of the policies to choose from; the longest of their delays bounds how far a request is overtaken."""
        ...

    def decide(self, signals: Signals, current: str, now: float) -> Wish | None:
        """Say which policy to follow; None to stay with ``current``.  Called at most every ``adaptive_interval_s``."""
        ...
