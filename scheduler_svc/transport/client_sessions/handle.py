"""One request of a client's session, under the number that the client gave it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from google.rpc import status_pb2

from sage.controlplane.v1 import inference_pb2
from sage_common.clock import Timer
from scheduler_svc.control.requests.output_reader import OutputReader

Note = Callable[["Handle", bool], None]
"""Called with a handle that has something new, and whether a caller waits for it."""


class Handle(OutputReader):
    """Reads one request for a session: what is new of it waits here until a frame takes it.

    Of several choices each has a handle with the same number.  That of choice 0 leads the others: the session knows
    only it, and ends it with the last of them.
    """

    __slots__ = (
        "_lead",
        "_note",
        "acceptance",
        "accepted",
        "choice",
        "delivered",
        "done",
        "expiry",
        "failure",
        "flows",
        "number",
        "on_late_end",
        "over",
        "paused",
        "queued",
        "submitting",
        "with_logprobs",
    )

    def __init__(self, number: int, note: Note, on_late_end: Callable[[Handle], None]) -> None:
        """``on_late_end``: called when the request has ended and the handle is paused."""
        super().__init__()
        self.number = number
        self.choice = 0
        self._lead: Handle | None = None  # the handle of choice 0; None: it is this one
        self.done = False  # the end of its choice was taken, of several
        self._note = note
        self.on_late_end = on_late_end
        self.accepted = False
        self.acceptance: inference_pb2.HandleAccepted | None = None  # until a frame takes it
        self.failure: status_pb2.Status | None = None  # why the handle ends before, or without, its request
        self.paused = False
        self.queued = False  # it waits for a frame
        self.delivered = False  # a frame took output of it
        self.flows = False  # tokens for columns are all that is known to come
        self.with_logprobs = False
        self.over = False  # nothing of it follows
        self.submitting: asyncio.Task[None] | None = None  # until its request is accepted
        self.expiry: Timer | None = None  # while it is paused and its request has ended

    def of_choice(self, index: int) -> Handle:
        """Return the handle of another choice, which this one leads."""
        other = Handle(self.number, self._note, lambda _: self.on_late_end(self))
        other.choice, other._lead = index, self
        return other

    @property
    def lead(self) -> Handle:
        """The handle of choice 0."""
        return self if self._lead is None else self._lead

    @property
    def family(self) -> tuple[Handle, ...]:
        """The handles of all choices, choice 0 first."""
        return (self.lead, *(each for each in self.lead.others if isinstance(each, Handle)))

    def wake(self) -> None:
        """Have what is new taken into a frame: at once for a first token or an end."""
        if not self.accepted:
            return
        live = self.live
        ended = live.published_outcome is not None
        if not self.paused:
            self._note(self, ended or (not self.delivered and self.position < len(live.published)))
        elif ended and live.all_ended:
            self.on_late_end(self)

    def accept(self, acceptance: inference_pb2.HandleAccepted) -> None:
        """Begin to deliver, the acceptance first."""
        self.acceptance, self.accepted, self.submitting = acceptance, True, None
        self.with_logprobs = self.live.request.sampling.logprobs is not None
        self._note(self, True)
        if self.paused:
            self.wake()
        for each in self.family[1:]:
            each.accepted, each.with_logprobs, each.paused = True, self.with_logprobs, self.paused
            self._note(each, True)
            each.wake()

    def fail(self, failure: status_pb2.Status) -> None:
        """End the handle with a status; what of its request was not delivered yet is dropped."""
        self.failure, self.submitting = failure, None
        for each in self.family:
            each.flows = False
        self._note(self, True)

    def pause(self) -> None:
        """Deliver nothing for now."""
        for each in self.family:
            if not each.paused:
                each.paused, each.flows = True, False
                each.wake()

    def resume(self) -> None:
        """Deliver again, from where the output stopped."""
        if not self.paused:
            return
        self._cancel_expiry()
        for each in self.family:
            each.paused = False
            each.wake()

    def end(self) -> None:
        """Deliver nothing more."""
        for each in self.family:
            each.over = True
        self.acceptance = None
        self._cancel_expiry()
        if self.submitting is not None:
            self.submitting.cancel()
            self.submitting = None

    def _cancel_expiry(self) -> None:
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None
