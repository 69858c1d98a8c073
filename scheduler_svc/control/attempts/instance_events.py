"""Passes on what attempts show about the instances they run on."""

from __future__ import annotations

from typing import Protocol


class InstanceListener(Protocol):
    """Is told how attempts on each instance end."""

    def attempt_failed(self, instance_id: str, message: str) -> None:
        """Note that an attempt failed, or was rejected, and that its instance is to blame."""
        ...

    def drains(self, instance_id: str) -> None:
        """Note that the instance's executor rejected an attempt because it drains."""
        ...

    def attempt_succeeded(self, instance_id: str) -> None:
        """Note that an attempt finished."""
        ...

    def idle(self, instance_id: str) -> None:
        """Note that the last attempt on the instance is gone."""
        ...


class InstanceEvents:
    """Passes every event on to all listeners that subscribed."""

    def __init__(self) -> None:
        self._listeners: list[InstanceListener] = []

    def subscribe(self, listener: InstanceListener) -> None:
        """Pass all events on to ``listener`` from now on."""
        self._listeners.append(listener)

    def attempt_failed(self, instance_id: str, message: str) -> None:
        """Report that an attempt failed and that its instance is to blame."""
        for listener in self._listeners:
            listener.attempt_failed(instance_id, message)

    def drains(self, instance_id: str) -> None:
        """Tell that the instance's executor rejected an attempt because it drains."""
        for listener in self._listeners:
            listener.drains(instance_id)

    def attempt_succeeded(self, instance_id: str) -> None:
        """Report that an attempt finished."""
        for listener in self._listeners:
            listener.attempt_succeeded(instance_id)

    def idle(self, instance_id: str) -> None:
        """Report that the last attempt on the instance is gone."""
        for listener in self._listeners:
            listener.idle(instance_id)
