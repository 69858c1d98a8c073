"""Joins again the choices of a request of an earlier scheduler, whose executors hold them one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sage_common.clock import Clock
from scheduler_svc.control.adoption.held_request import HeldRequest
from scheduler_svc.control.requests.choices import split
from scheduler_svc.control.requests.live_request import LiveRequest, join_choices
from scheduler_svc.control.requests.observer import NULL_OBSERVER, Observer
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.domain.request import RequestKey


class Regrouping:
    """Makes all choices of a request when the first one is adopted, and generates anew those that do not come back.

    A choice does not come back if it waited in the queue, if its executor is gone, or if it ended long before.  Nobody
    reads the request before all its choices go on.  What the journal has of a choice is not generated again.
    """

    def __init__(
        self,
        clock: Clock,
        requests: RequestTable,
        enqueue: Callable[[LiveRequest], None],
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        """``enqueue``: lets a request that was accepted before wait for a placement."""
        self._clock = clock
        self._requests = requests
        self._enqueue = enqueue
        self._observer = observer
        self._missing: dict[RequestKey, LiveRequest] = {}  # bounded by the attempts that executors may hold

    def misses(self, known: LiveRequest, held: HeldRequest) -> bool:
        """Return whether an attempt is that of a choice that did not come back yet and has not ended meanwhile."""
        waits = self._missing.get(held.request.key) is known and not known.state.ended
        return waits and known.digest == held.digest

    def expect(self, held: HeldRequest) -> None:
        """Have the choice of an attempt that is not adopted, and all others, be generated unless they come back."""
        if self._requests.find(held.request.key) is None:
            self._make(held)

    def join(self, members: Sequence[LiveRequest]) -> None:
        """Let the choices of a request come back that are not admitted yet."""
        choices = members[0].choices
        assert choices is not None
        choices.missing = len(members)
        for live in members:
            self._missing[live.key] = live
            self._requests.admit(live)

    def take(self, held: HeldRequest) -> LiveRequest:
        """Return the live request of a choice that comes back."""
        self.expect(held)
        live = self._missing.pop(held.request.key)
        assert live.choices is not None
        live.choices.missing -= 1
        if live.deadline_timer is not None:
            live.deadline_timer.cancel()
        live.request, live.identity, live.first_token_at = held.request, held.identity, held.first_token_at
        live.cost, live.attempts_before = held.cost, held.attempts
        return live

    def fill(self) -> None:
        """Generate anew what did not come back."""
        missing, self._missing = self._missing, {}
        for live in missing.values():
            assert live.choices is not None
            live.choices.missing -= 1
            if not live.state.ended:
                now = self._clock.now()
                live.observed = self._observer.adopted(live, None, now)
                live.note(now, "anew", _why(live))
                self._enqueue(live)

    def _make(self, held: HeldRequest) -> None:
        members = [
            LiveRequest(request=request, digest=held.digest, detached=held.detached, warnings=held.warnings)
            for request in split(held.request)
        ]
        join_choices(members)
        self.join(members)


def _why(live: LiveRequest) -> str:
    """Return why a choice that did not come back is generated."""
    if live.journaled:
        return f"no executor holds this choice: it goes on from the journal, after {len(live.output)} output tokens"
    return "nobody holds what an earlier scheduler had of this choice"
