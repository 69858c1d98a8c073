"""Passes on what attempts show about the instances they run on."""

from __future__ import annotations

from typing import Protocol

from scheduler_svc.domain.request import RequestKey


class InstanceListener(Protocol):
    """Is told how attempts on each instance end."""

    def attempt_failed(self, instance_id: str, message: str, key: RequestKey) -> None:
        """Note that an attempt at this request failed there."""
        ...

    def attempt_rejected(self, instance_id: str, reason: str) -> None:
        """Note that the instance's executor did not start an attempt, for a reason other than a drain."""
        ...

    def engine_died(self, instance_id: str, message: str) -> None:
        """Note that the instance's engine died, as the end of one of its attempts says."""
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

    def attempt_failed(self, instance_id: str, message: str, key: RequestKey) -> None:
        """Report that an attempt at this request failed there."""
        for listener in self._listeners:
            listener.attempt_failed(instance_id, message, key)

    def attempt_rejected(self, instance_id: str, reason: str) -> None:
        """Report that the instance's executor did not start an attempt, for a reason other than a drain."""
        for listener in self._listeners:
            listener.attempt_rejected(instance_id, reason)

    def engine_died(self, instance_id: str, message: str) -> None:
        """Report that the instance's engine died, as the end of one of its attempts says."""
        for listener in self._listeners:
            listener.engine_died(instance_id, message)

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
