"""Collects what a client has to say on a session, and makes one message of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from sage.controlplane.v1 import common_pb2, inference_pb2
from sage_client._call import Call
from sage_wire.metadata import TRACEPARENT, TRACESTATE
from sage_wire.protocol import PROTOCOL_VERSION

HANDLES_LIMIT = 4096
"""Most handles of a session, as the contract bounds them; further ones wait here."""

UNACCEPTED_LIMIT = 1024
"""Most handles between Submit and HandleAccepted; further ones wait here."""

REQUESTS_LIMIT_BYTES = 512 * 1024
"""Most bytes of requests in one message, and one request: together below the contract's 1 MiB."""

ENTRIES_LIMIT = 4096
"""Most entries of one field of a message."""


class SessionOutbox:
    """Coalesces requests, pauses, leaves, acknowledgements and pings into messages.  Not safe for threads."""

    def __init__(self) -> None:
        self.acknowledged = 0  # number of the frame that the latest message acknowledged
        self._opened = False
        self._waiting: dict[int, Call] = {}  # by handle: requests to begin or to attach to
        # A message's requests begin before its leaves count: a handle that is left makes room in the next message.
        self._begun: set[int] = set()  # handles whose end did not come and whose leave is not written
        self._unaccepted: set[int] = set()  # those of them whose HandleAccepted did not come
        self._pauses: dict[int, bool] = {}  # by begun handle: whether to pause or to resume
        self._leaves: list[int] = []
        self._handled = 0
        self._ping = 0
        self._bye = False
        self._news: asyncio.Future[None] | None = None  # done when there is something to write

    async def take(self) -> inference_pb2.SessionRequest:
        """Return the next message; wait until there is something to say."""
        while (message := self._message()) is None:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        return message

    @property
    def held_back(self) -> list[int]:
        """The handles that wait because too many others are not accepted."""
        return list(self._waiting) if len(self._unaccepted) >= UNACCEPTED_LIMIT else []

    def begin(self, handle: int, call: Call) -> None:
        """Submit the call's request, or attach to it."""
        self._waiting[handle] = call
        self._wake()

    def ended(self, handle: int) -> None:
        """Forget a handle that the scheduler ended."""
        self._pauses.pop(handle, None)
        self._begun.discard(handle)
        self.accepted(handle)

    def accepted(self, handle: int) -> None:
        """Note that the scheduler accepted a handle."""
        self._unaccepted.discard(handle)
        if self._waiting:
            self._wake()

    def pause(self, handle: int, paused: bool) -> None:
        """Pause or resume a handle."""
        if handle not in self._waiting:
            self._pauses[handle] = paused
            self._wake()

    def leave(self, handle: int) -> None:
        """Let go of a handle."""
        self._pauses.pop(handle, None)
        if self._waiting.pop(handle, None) is None:
            self._leaves.append(handle)
            self._wake()

    def acknowledge(self, number: int, *, now: bool) -> None:
        """Acknowledge frames up to ``number``: now, or with the next message."""
        self._handled = number
        if now:
            self._wake()

    def ping(self, number: int) -> None:
        """Ask the scheduler for a sign of life."""
        self._ping = number
        self._wake()

    def bye(self) -> None:
        """End the session after what waits here."""
        self._bye = True
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _message(self) -> inference_pb2.SessionRequest | None:
        message = inference_pb2.SessionRequest(
            leave=self._leaves[:ENTRIES_LIMIT], ping=self._ping, bye=self._bye, acknowledged=self._handled
        )
        if not self._opened:
            self._opened = True
            message.open.protocol_version = PROTOCOL_VERSION
        for handle, paused in self._pauses.items():
            (message.pause if paused else message.resume).append(handle)
        self._begin_waiting(message)
        self._pauses, self._ping = {}, 0
        self._begun.difference_update(message.leave)
        self._unaccepted.difference_update(message.leave)
        del self._leaves[:ENTRIES_LIMIT]
        if self._handled == self.acknowledged:
            message.acknowledged = 0
        self.acknowledged = self._handled
        return message if message.ByteSize() else None

    def _begin_waiting(self, message: inference_pb2.SessionRequest) -> None:
        size, begun = 0, []
        for handle, call in self._waiting.items():
            full = len(self._begun) >= HANDLES_LIMIT or len(self._unaccepted) >= UNACCEPTED_LIMIT
            if full or size >= REQUESTS_LIMIT_BYTES:
                break
            size += _add(message, handle, call)
            self._begun.add(handle)
            self._unaccepted.add(handle)
            begun.append(handle)
        for handle in begun:
            del self._waiting[handle]


def _add(message: inference_pb2.SessionRequest, handle: int, call: Call) -> int:
    """Add a request to a message; return its size in bytes."""
    if call.paused:
        message.pause.append(handle)
    if call.accepted and call.has_output:
        attach = message.attach.add(handle=handle, request_id=call.request_id, tenant=call.request.tenant)
        attach.takes_choices = True
        attach.after.extend(call.positions())
        if not attach.after[0].choice:
            attach.after_attempt.CopyFrom(attach.after[0].after_attempt)
        return attach.ByteSize()
    submit = message.submit.add(handle=handle, request=call.request)
    if call.trace:
        submit.trace_context.CopyFrom(_trace_context(call.trace))
    return submit.ByteSize()


def _trace_context(headers: Iterable[tuple[str, str]]) -> common_pb2.TraceContext:
    given = dict(headers)
    return common_pb2.TraceContext(traceparent=given.get(TRACEPARENT, ""), tracestate=given.get(TRACESTATE, ""))
