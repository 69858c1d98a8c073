"""The port to what a scheduler leaves for the next one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class State(Protocol):
    """What an earlier scheduler left, and where this one leaves the same.

    Attributes:
        secret: signs what executors hold.
        instances: that had a session with the earlier scheduler.
        epoch: of this scheduler.
    """

    secret: bytes
    instances: frozenset[str]
    epoch: int

    def keep_instances(self, instances: Iterable[str]) -> None:
        """Write down, without waiting, which instances have a session now."""
        ...

    def freeze(self) -> None:
        """Keep what is written down now: the sessions that end from here on are the next scheduler's."""
        ...

    async def close(self) -> None:
        """Finish writing."""
        ...
