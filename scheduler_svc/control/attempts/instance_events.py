"""What attempts tell about the instances they run on."""

from __future__ import annotations

from typing import Protocol


class InstanceListener(Protocol):
    """Hears how instances do, one attempt at a time."""

    def attempt_failed(self, instance_id: str, message: str) -> None:
        """Note that an attempt failed, or was rejected, and that its instance is to blame."""
        ...

    def attempt_succeeded(self, instance_id: str) -> None:
        """Note that an attempt finished."""
        ...

    def idle(self, instance_id: str) -> None:
        """Note that the last attempt on the instance is gone."""
        ...


class InstanceEvents:
    """Passes what attempts tell about instances on to whoever subscribed."""

    def __init__(self) -> None:
        self._listeners: list[InstanceListener] = []

    def subscribe(self, listener: InstanceListener) -> None:
        """Tell ``listener`` everything from now on."""
        self._listeners.append(listener)

    def attempt_failed(self, instance_id: str, message: str) -> None:
        """Tell that an attempt failed for which its instance is to blame."""
        for listener in self._listeners:
            listener.attempt_failed(instance_id, message)

    def attempt_succeeded(self, instance_id: str) -> None:
        """Tell that an attempt finished."""
        for listener in self._listeners:
            listener.attempt_succeeded(instance_id)

    def idle(self, instance_id: str) -> None:
        """Tell that the last attempt on the instance is gone."""
        for listener in self._listeners:
            listener.idle(instance_id)
