"""The port to the row by which schedulers agree on the one that leads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from scheduler_svc.control.leadership.earlier_instance import EarlierInstance


class StoreFailed(Exception):
    """The store did not answer, or refused; says why in words.  What was asked may have been done all the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leader:
    """The scheduler that leads, as the store tells."""

    addresses: tuple[str, ...]  # at which clients and executors reach it
    epoch: int
    lease_left_s: float  # by the store's clock; not above 0: nobody leads


@dataclass(frozen=True, kw_only=True, slots=True)
class Won:
    """What a scheduler gets that begins to lead."""

    epoch: int  # above every one before
    secret: bytes = field(repr=False)  # signs what executors hold, for all schedulers of the fleet
    instances: Mapping[str, EarlierInstance] = field(default_factory=dict)  # that had a session with the leader before


class LeaderStore(Protocol):
    """The row.  Every method answers within a few seconds, and raises StoreFailed."""

    async def claim(self, lease_s: float) -> Won | Leader:
        """Take the lease if nobody holds one, and return what comes with it; else who does."""
        ...

    async def renew(self, epoch: int, lease_s: float) -> bool:
        """Let the lease begin anew; return False if it has ended or is another one's."""
        ...

    async def release(self, epoch: int) -> None:
        """End the lease, so that another one can lead at once."""
        ...
