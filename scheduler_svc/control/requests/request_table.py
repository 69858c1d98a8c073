"""The live requests, the record of ended ones, and the one way in which a request ends."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sage_common.clock import Clock
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished, Outcome
from scheduler_svc.control.requests.record_size import record_size
from scheduler_svc.domain.errors import DeadlineExceeded, InvalidRequest, RequestCancelled, RequestNotFound
from scheduler_svc.domain.request import RequestKey, RequestState
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

EndListener = Callable[[LiveRequest, str], None]
"""Called with the request that ended and the reason in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordLimits:
    """Bounds of the record of ended requests: the oldest are forgotten first; the latest stays whatever its size."""

    requests: int = 2_000
    memory_bytes: int = 256 * 1024 * 1024


class RequestTable:
    """The live requests, and a bounded record of those that ended (for attaching, explaining and idempotency)."""

    def __init__(self, scheduler: Scheduler, clock: Clock, limits: RecordLimits) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._limits = limits
        self._live: dict[RequestKey, LiveRequest] = {}
        self._ended: OrderedDict[RequestKey, LiveRequest] = OrderedDict()
        self._sizes: dict[RequestKey, int] = {}  # in bytes, of those in the record
        self.recorded_bytes = 0
        self._end_listeners: list[EndListener] = []
        self._admission_listeners: list[Callable[[LiveRequest], None]] = []
        self._handed_over = False

    def on_end(self, listener: EndListener) -> None:
        """Call ``listener`` once for every request that ends, before its readers see the outcome."""
        self._end_listeners.append(listener)

    def on_admission(self, listener: Callable[[LiveRequest], None]) -> None:
        """Call ``listener`` once for every request that is accepted, adopted or restored."""
        self._admission_listeners.append(listener)

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[LiveRequest]:
        return iter(list(self._live.values()))

    def find(self, key: RequestKey) -> LiveRequest | None:
        """Return a live or recorded request; None if there is none."""
        return self._live.get(key) or self._ended.get(key)

    def get(self, key: RequestKey) -> LiveRequest:
        """Return a live or recorded request.  Raises RequestNotFound."""
        live = self.find(key)
        if live is None:
            raise RequestNotFound(key.request_id)
        return live

    def remember(self, live: LiveRequest) -> None:
        """Enter a request that ended under an earlier scheduler into the record, if its id is not known."""
        if self.find(live.key) is None:
            self._record(live)

    def forget(self, live: LiveRequest) -> None:
        """Drop an ended request from the record, because its id is used anew."""
        if self._ended.pop(live.key, None) is not None:
            self._uncount(live)

    def forget_kept(self, key: RequestKey) -> None:
        """Drop an ended request from the record, because its result is deleted from the journal."""
        ended = self._ended.get(key)
        if ended is not None and ended.journaled:
            self.forget(ended)

    def recent(self) -> Iterable[LiveRequest]:
        """Return the requests that ended, the latest first."""
        return reversed(self._ended.values())

    def admit(self, live: LiveRequest) -> None:
        """Enter a request: from here on it ends exactly once, at its deadline at the latest."""
        self._live[live.key] = live
        for listener in self._admission_listeners:
            listener(live)
        if live.request.deadline_at is not None:
            live.deadline_timer = self._clock.call_at(live.request.deadline_at, lambda: self._expire(live))

    def end(self, live: LiveRequest, outcome: Outcome) -> bool:
        """End a request; return False if it had ended before, the first cause wins, or is handed over.

        It leaves the queue, its attempt is stopped, and its readers get the outcome.  Of several choices each finishes
        by itself; any other end is that of all which have not ended.
        """
        if live.choices is None or isinstance(outcome, Finished):
            return self._end(live, outcome)
        ended = [self._end(each, outcome) for each in live.choices.members]
        return any(ended)

    def _end(self, live: LiveRequest, outcome: Outcome) -> bool:
        if live.state.ended or self._handed_over:
            return False
        now = self._clock.now()
        live.transition(_state_of(outcome))
        live.outcome, live.ended_at = outcome, now
        if live.deadline_timer is not None:
            live.deadline_timer.cancel()
        self._scheduler.withdraw(live.key, now)
        reason = str(outcome) if isinstance(outcome, Exception) else "finished"
        for listener in self._end_listeners:
            listener(live, reason)
        live.note(now, live.state.value, str(outcome) if isinstance(outcome, Exception) else outcome.finish_reason)
        self._record(live)
        live.changed()
        live.observed.ended(live, now)
        _log_end(live, outcome)
        return True

    def hand_over(self) -> None:
        """Leave the live requests to the next scheduler: none of them ends here any more, whoever stops reading it."""
        self._handed_over = True

    def _expire(self, live: LiveRequest) -> None:
        where = "in the queue" if live.state is RequestState.QUEUED else f"after {len(live.output)} output tokens"
        self.end(live, DeadlineExceeded(where))

    def _record(self, live: LiveRequest) -> None:
        """Move a request into the record once all its choices have ended; it is found there by choice 0."""
        live.forget_input()
        if not live.all_ended:
            return
        lead, members = live.lead, live.members
        for each in members:
            self._live.pop(each.key, None)
        self._ended[lead.key] = lead
        size = self._sizes[lead.key] = sum(map(record_size, members))
        self.recorded_bytes += size
        while len(self._ended) > 1 and (
            len(self._ended) > self._limits.requests or self.recorded_bytes > self._limits.memory_bytes
        ):
            _, oldest = self._ended.popitem(last=False)
            self._uncount(oldest)

    def _uncount(self, live: LiveRequest) -> None:
        self.recorded_bytes -= self._sizes.pop(live.key)


def _state_of(outcome: Outcome) -> RequestState:
    if isinstance(outcome, Finished):
        return RequestState.FINISHED
    if isinstance(outcome, RequestCancelled):
        return RequestState.CANCELLED
    if isinstance(outcome, DeadlineExceeded):
        return RequestState.EXPIRED
    return RequestState.FAILED


def _log_end(live: LiveRequest, outcome: Outcome) -> None:
    level = logging.INFO if live.state in (RequestState.FAILED, RequestState.EXPIRED) else logging.DEBUG
    if not log.isEnabledFor(level):
        return
    if isinstance(outcome, Finished):
        why = f"{outcome.finish_reason} after {outcome.completion_tokens} tokens"
    elif isinstance(outcome, InvalidRequest):
        # A description may quote what the caller wrote.
        why = f"wrong values of {', '.join(violation.field for violation in outcome.violations)}"
    else:
        why = str(outcome)
    log.log(level, "request %s %s: %s", live.key, live.state.value, why, extra=live.about)
