"""Tells a request's story from what was recorded while it happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sage_common.clock import Clock
from scheduler_svc.control.requests.live_request import HistoryEntry, LiveRequest
from scheduler_svc.control.requests.outcome import SloOutcome
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.requests.timeline import TimeSlice, in_order, timeline
from scheduler_svc.domain.request import RequestKey, RequestState
from scheduler_svc.domain.scheduler import Scheduler


@dataclass(frozen=True, kw_only=True, slots=True)
class Story:
    """The answer of ``Explain`` about one request."""

    live: LiveRequest
    history: Sequence[HistoryEntry]  # oldest first
    time_slices: Sequence[TimeSlice]  # from acceptance to its end, or to now
    slo: Sequence[SloOutcome]  # each target, compared with what happened so far
    waiting_because: str  # for a request in the queue
    queue_position: int  # 1 is next; 0 when not queued
    ordering_key: str  # in words
    choices: Sequence[Story] = ()  # of several choices: one each, by index; the fields above are those of choice 0


class Explainer:
    """Answers ``Explain``: why a request is where it is, and what happened to it."""

    def __init__(self, scheduler: Scheduler, clock: Clock, requests: RequestTable) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._requests = requests

    def explain(self, key: RequestKey) -> Story:
        """Return a request's story.  Raises RequestNotFound once the request has left the bounded record."""
        live = self._requests.get(key)
        told = self._story(live)
        return told if live.choices is None else replace(told, choices=[self._story(each) for each in live.members])

    def _story(self, live: LiveRequest) -> Story:
        now = self._clock.now()
        view = self._scheduler.position(live.key, now) if live.state is RequestState.QUEUED else None
        history = in_order(live.history)
        return Story(
            live=live,
            history=history,
            time_slices=timeline(live, now),
            slo=live.measure_slo(history[-1].at if live.state.ended else now),
            waiting_because=view.because if view is not None else "",
            queue_position=view.position if view is not None else 0,
            ordering_key=view.ordering_key if view is not None else "",
        )
