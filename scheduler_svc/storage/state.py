"""The port to what a scheduler leaves for the next one."""

from __future__ import annotations

from typing import Protocol

from scheduler_svc.storage.instances_record import EarlierInstances


class State(Protocol):
    """What an earlier scheduler left, and where this one leaves the same.

    Attributes:
        secret: signs what executors hold.
        instances: that had a session with the earlier scheduler.
        epoch: of this scheduler.
    """

    secret: bytes
    instances: EarlierInstances
    epoch: int

    def keep_instances(self, instances: EarlierInstances) -> None:
        """Write down, without waiting, which instances have a session now."""
        ...

    def freeze(self) -> None:
        """Write down nothing that comes later: the sessions that end from here on are the next scheduler's."""
        ...

    async def close(self) -> None:
        """Finish writing."""
        ...
