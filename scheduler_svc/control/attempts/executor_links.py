"""Finds the link to an executor, if it has a session."""

from __future__ import annotations

from typing import Protocol

from scheduler_svc.control.attempts.executor_link import ExecutorLink


class Channel(Protocol):
    """The part of an executor's session that sending needs."""

    @property
    def link(self) -> ExecutorLink:
        """The link to the executor."""
        ...

    @property
    def up(self) -> bool:
        """Whether both of its streams are up: nothing is sent while one of them is not."""
        ...

    def next_assign(self) -> int:
        """Count one more Assign and return its number."""
        ...


class ExecutorLinks:
    """The channels by instance.  One per instance with a session, so bounded by the limit of instances."""

    def __init__(self) -> None:
        self._channels: dict[str, Channel] = {}

    def open(self, instance_id: str, channel: Channel) -> None:
        """Send to the instance through ``channel`` from now on."""
        self._channels[instance_id] = channel

    def close(self, instance_id: str) -> None:
        """Send nothing more to the instance; does nothing if it has no channel."""
        self._channels.pop(instance_id, None)

    def find(self, instance_id: str) -> ExecutorLink | None:
        """Return the link to an instance; None while its session is not up."""
        channel = self._channels.get(instance_id)
        return channel.link if channel is not None and channel.up else None

    def next_assign(self, instance_id: str) -> tuple[ExecutorLink, int] | None:
        """Return the link to an instance and the number of its next Assign; None while its session is not up."""
        channel = self._channels.get(instance_id)
        if channel is None or not channel.up:
            return None
        return channel.link, channel.next_assign()
