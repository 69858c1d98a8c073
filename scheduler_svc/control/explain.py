"""Tells a request's story from what was recorded while it happened; works out nothing anew."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.control.clock import ControlClock
from scheduler_svc.control.lifecycle import Lifecycle
from scheduler_svc.control.live_request import LiveRequest
from scheduler_svc.domain.core import SchedulingCore
from scheduler_svc.domain.request import RequestKey, RequestState


@dataclass(frozen=True, kw_only=True, slots=True)
class Story:
    live: LiveRequest
    waiting_because: str  # for a request in the queue
    queue_position: int  # 1 is next; 0 when not queued
    ordering_key: str  # in words


class Explainer:
    def __init__(self, core: SchedulingCore, clock: ControlClock, lifecycle: Lifecycle) -> None:
        self._core = core
        self._clock = clock
        self._lifecycle = lifecycle

    def explain(self, key: RequestKey) -> Story:
        """Raises RequestNotFound once the request has left the bounded record."""
        live = self._lifecycle.get(key)
        view = self._core.position(key, self._clock.now()) if live.state is RequestState.QUEUED else None
        if view is None:
            return Story(live=live, waiting_because="", queue_position=0, ordering_key="")
        return Story(
            live=live,
            waiting_because=view.because,
            queue_position=view.position,
            ordering_key=view.ordering_key,
        )
