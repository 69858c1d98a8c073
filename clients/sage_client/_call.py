"""One request on its way: what was delivered of it, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Protocol

from sage.controlplane.v1 import inference_pb2
from sage_client import _decode as decode
from sage_client._enums import RequestState
from sage_client._errors import (
    ProtocolError,
    RequestCancelledError,
    RequestNotFoundError,
    SageError,
    StreamLostError,
    UnavailableError,
    WaitTimeoutError,
)
from sage_client._events import Attempt
from sage_client._fleet_view import Cancellation
from sage_client._output_cursor import OutputCursor
from sage_client._sink import Sink

Canceller = Callable[[str, str, str], Awaitable[Cancellation]]

_NO_ATTEMPT = Attempt(epoch=0, number=0)

LEADER_LIMIT_S = 60.0
"""Seconds for which a call waits for a scheduler that leads: as long as executors go on without one."""

_SINK_FAILS = (Exception, asyncio.CancelledError)
"""What a sink may raise without harm to others: CancelledError comes of a look at a future that was cancelled."""


class Transport(Protocol):
    """Carries requests to the scheduler and their events back."""

    def leave(self, call: Call) -> None:
        """Let go of a call that is over for the client, and not for the scheduler."""

    def pause(self, call: Call) -> None:
        """Stop its output."""

    def resume(self, call: Call) -> None:
        """Go on with its output."""


class Call:
    """A request that a sink receives.  Use it on the client's event loop; ``AsyncClient.start`` makes it.

    It lives until the request ends or ``leave`` is called, also when nobody holds it.

    Attributes:
        request_id: id of the request, known before the scheduler answers.
        timeout_s: seconds after which the call ends with WaitTimeoutError.
        attempt: the attempt that generated the output which the sink gets now.
        output_attempt: the attempt that generated the last token that was delivered.
        over: whether the sink gets nothing more.
        paused: whether ``pause`` was called last, not ``resume``.
    """

    __slots__ = (
        "__weakref__",
        "_break_failures",
        "_cancel",
        "_cancelled",
        "_cursors",
        "_leaderless_since",
        "_loop",
        "_overlaps",
        "_placements",
        "_sent_again",
        "_sink",
        "_timer",
        "_transport",
        "_unanswered_since",
        "accepted",
        "attempt",
        "broke",
        "output_attempt",
        "over",
        "parked",
        "paused",
        "request",
        "timeout_s",
        "trace",
    )

    def __init__(
        self,
        request: inference_pb2.GenerateRequest,
        sink: Sink,
        *,
        cancel: Canceller,
        timeout_s: float,
        trace: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.request = request
        self.timeout_s = timeout_s
        self.trace = trace  # the caller's trace context, as metadata
        self.accepted = False
        self.attempt = _NO_ATTEMPT
        self.output_attempt = _NO_ATTEMPT
        self.broke = False  # whether the connection broke after the acceptance
        self.over = False
        self.parked: SageError | None = None  # why the scheduler gave up its handle while it was paused
        self.paused = False
        self._sink = sink
        self._cancel = cancel
        self._cancelled = False  # whether ``cancel`` was called
        self._break_failures = 0  # breaks since the last new token
        self._leaderless_since: float | None = None  # when a scheduler said first, since then, that it does not lead
        self._unanswered_since: float | None = None  # when the connection broke first before the acceptance
        self._sent_again = False  # whether a scheduler may have the request from before
        self._cursors: dict[int, OutputCursor] = {}
        self._overlaps: dict[int, tuple[int, int]] = {}  # by choice: tokens and code points that come a second time
        self._placements: set[Attempt] = set()
        self._transport: Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(timeout_s, self._time_out)

    @property
    def request_id(self) -> str:
        return self.request.request_id

    def leave(self) -> None:
        """Let go of the request: the scheduler cancels it, unless it is detached or has other readers.  Idempotent."""
        if not self.over:
            self._close()
            if self._transport is not None:
                self._transport.leave(self)

    async def cancel(self, reason: str = "") -> Cancellation:
        """Cancel the request, detached or not; the sink then gets RequestCancelledError.  Idempotent."""
        self._cancelled = True
        try:
            return await self._cancel(self.request_id, self.request.tenant, reason)
        except RequestNotFoundError:
            if self.accepted or self.over:
                raise
        return await self._cancel_unaccepted(reason)

    def pause(self) -> None:
        """Stop the output; what is on its way still comes.  The request runs on.  Idempotent."""
        if not (self.paused or self.over):
            self.paused = True
            if self._transport is not None:
                self._transport.pause(self)

    def resume(self) -> None:
        """Go on with the output where it stopped.  Idempotent."""
        if self.paused and not self.over:
            self.paused = False
            if self._transport is not None:
                self._transport.resume(self)

    # What follows is for transports.

    def carried_by(self, transport: Transport) -> None:
        """Note the transport that carries the call from now on."""
        self._transport = transport

    @property
    def position(self) -> int:
        """Output position after the delivered tokens of choice 0."""
        return self._cursor(0).next_index

    def positions(self) -> list[tuple[int, int]]:
        """Return each choice with its output position; choices at 0 are left out."""
        choices = range(max(self.request.spec.sampling.n, 1))
        found = {choice: self._cursor(choice).next_index for choice in {*choices, *self._cursors}}
        return [(choice, index) for choice, index in sorted(found.items()) if index]

    @property
    def has_output(self) -> bool:
        """Whether tokens were delivered."""
        start = self.request.after_token
        return any(cursor.next_index > start for cursor in self._cursors.values())

    def may_be_known(self) -> None:
        """Note that a scheduler may know the request, which is sent again."""
        self.request.fresh = False
        self._sent_again = True

    def count_break(self, attempts: int) -> bool:
        """Count a broken connection; return whether one of ``attempts`` to reattach without a new token is left."""
        self.broke = self.broke or self.accepted
        self._break_failures += 1
        return self._break_failures <= attempts

    def may_be_sent_again(self, limit_s: float) -> bool:
        """Note that the connection broke before the acceptance; return whether it did so ``limit_s`` ago at most."""
        now = self._loop.time()
        if self._unanswered_since is None:
            self._unanswered_since = now
        return not self.accepted and now < self._unanswered_since + limit_s

    def may_wait_for_leader(self) -> bool:
        """Note that no scheduler leads that could be asked; return whether the call goes on waiting for one."""
        now = self._loop.time()
        self.broke = self.broke or self.accepted
        if self._leaderless_since is None:
            self._leaderless_since = now
        return now < self._leaderless_since + LEADER_LIMIT_S

    @property
    def leaderless_s(self) -> float:
        """For how many seconds no scheduler has led that could be asked."""
        return 0.0 if self._leaderless_since is None else self._loop.time() - self._leaderless_since

    @property
    def breaks(self) -> int:
        """Broken connections since the last new token."""
        return self._break_failures

    def take_accepted(self, message: inference_pb2.Accepted) -> None:
        """Take the acceptance, or the answer to a reattachment."""
        self.parked = self._leaderless_since = None
        self.request.receipt = message.receipt
        if not self.accepted:
            self.accepted = True
            self._tell(self._sink.accepted, decode.accepted(message))
        elif not message.attached and self.has_output:
            self.end_with(self._begun_anew())

    def take_positions(self, positions: Iterable[inference_pb2.ChoicePosition]) -> None:
        """Take where each choice's output begins on a handle; a choice without one begins at 0."""
        begins = {each.choice: (each.after_token, each.text_offset) for each in positions}
        self._overlaps.clear()
        try:
            for choice in {*begins, *self._cursors}:
                repeated = self._cursor(choice).begin(*begins.get(choice, (0, 0)))
                if any(repeated):
                    self._overlaps[choice] = repeated
        except ProtocolError as error:
            self.end_with(error)

    def take_scheduled(self, message: inference_pb2.Scheduled) -> None:
        """Take a placement; after a reattachment the scheduler repeats the current one."""
        named = message.decision.attempt
        self._set_attempt(named.epoch, named.number)
        if self.attempt not in self._placements:
            self._placements.add(self.attempt)
            self._tell(self._sink.scheduled, decode.scheduled(message))

    def take_output(self, choice: int, token_ids: list[int], text: str) -> None:
        """Take output that continues where the handle's output stopped."""
        if self.over:
            return
        cursor = self._cursors.get(choice) or self._cursor(choice)
        if self._overlaps:
            token_ids, text = self._cut(choice, token_ids, text)
            if not (token_ids or text):
                return
        first, offset = cursor.next_index, cursor.next_offset or 0
        cursor.next_index = first + len(token_ids)
        self.output_attempt = self.attempt
        cursor.next_offset = offset + len(text)
        self._break_failures = 0
        self._leaderless_since = None
        try:
            self._sink.tokens(choice, first, token_ids, offset, text, ())
        except _SINK_FAILS as error:
            self._sink_failed(error)

    def take_tokens(self, message: inference_pb2.Tokens) -> None:
        """Take output that names its position."""
        choice, sent = message.choice, message.token_ids[:]
        cursor = self._cursor(choice)
        try:
            token_ids, text = cursor.advance(message.first_index, sent, message.text_offset, message.text)
        except ProtocolError as error:
            self.end_with(error)
            return
        self._overlaps.pop(choice, None)
        if not (token_ids or text):
            return
        if message.HasField("attempt"):
            self._set_attempt(message.attempt.epoch, message.attempt.number)
        self.output_attempt = self.attempt
        self._break_failures = 0
        self._leaderless_since = None
        logprobs = decode.logprobs(message.logprobs)[len(sent) - len(token_ids) :]
        assert cursor.next_offset is not None
        first, offset = cursor.next_index - len(token_ids), cursor.next_offset - len(text)
        self._tell(self._sink.tokens, choice, first, token_ids, offset, text, logprobs)

    def take_finished(self, message: inference_pb2.Finished) -> None:
        """Take the end of a request that ended by itself."""
        if not self.over:
            event = decode.finished(message)
            self._close()
            self._tell(self._sink.finished, event, last=True)

    def take_failure(self, failure: SageError) -> None:
        """Take the end of a request that the scheduler refused or ended."""
        if not self.over:
            self._close()
            self._tell(self._sink.failed, self._explained(failure), last=True)

    def end_with(self, error: SageError) -> None:
        """End the call for a reason that the scheduler does not know, and let go of the request."""
        if not self.over:
            error.request_id = error.request_id or self.request_id
            self.leave()
            self._tell(self._sink.failed, error, last=True)

    def _close(self) -> None:
        self.over = True
        self._timer.cancel()

    def _tell(self, method: Callable[..., None], *arguments: object, last: bool = False) -> None:
        if self.over and not last:
            return
        try:
            method(*arguments)
        except _SINK_FAILS as error:
            self._sink_failed(error)

    def _sink_failed(self, error: BaseException) -> None:
        self.leave()
        what = f"a sink raised an exception, so request {self.request_id} is left"
        self._loop.call_exception_handler({"message": what, "exception": error})

    def _cursor(self, choice: int) -> OutputCursor:
        start = self.request.after_token
        return self._cursors.setdefault(choice, OutputCursor(next_index=start, next_offset=None if start else 0))

    def _cut(self, choice: int, token_ids: list[int], text: str) -> tuple[list[int], str]:
        """Return the part of a piece that was not delivered yet."""
        tokens, points = self._overlaps.get(choice, (0, 0))
        rest = max(tokens - len(token_ids), 0), max(points - len(text), 0)
        if any(rest):
            self._overlaps[choice] = rest
        else:
            self._overlaps.pop(choice, None)
        return token_ids[tokens:], text[points:]

    def _set_attempt(self, epoch: int, number: int) -> None:
        if (self.attempt.epoch, self.attempt.number) != (epoch, number):
            self.attempt = Attempt(epoch=epoch, number=number)

    async def _cancel_unaccepted(self, reason: str) -> Cancellation:
        """Cancel a request that was not accepted yet."""
        self.end_with(RequestCancelledError("cancelled before it was accepted"))
        try:
            # If the request was accepted meanwhile and is detached, it would keep running without this call.
            found = await self._cancel(self.request_id, self.request.tenant, reason)
        except RequestNotFoundError:
            return Cancellation(cancelled=True, state=RequestState.CANCELLED)
        return replace(found, cancelled=found.cancelled or found.state is RequestState.CANCELLED)

    def _time_out(self) -> None:
        self.end_with(WaitTimeoutError(f"the request did not end within {self.timeout_s:g} s"))

    def _explained(self, failure: SageError) -> SageError:
        """Return what a failure means for a request whose connection broke, or that was given up, before."""
        if self.parked is not None and isinstance(failure, RequestNotFoundError):
            return self.parked
        if not (self.broke or (self._sent_again and not self.accepted)):
            return failure
        if self.broke and isinstance(failure, RequestNotFoundError):
            what = f"after {self.position} output tokens the scheduler no longer knew the request ({failure.message})"
            return StreamLostError(what, status=failure.status, request_id=self.request_id)
        if isinstance(failure, RequestCancelledError) and not (self.request.detached or self._cancelled):
            what = (
                f"the connection broke and the scheduler cancelled the request ({failure.message}); "
                "a detached request would be kept"
            )
            return UnavailableError(what, status=failure.status, request_id=self.request_id)
        return failure

    def _begun_anew(self) -> StreamLostError:
        # Ending the call lets go of the new run: the scheduler then cancels it, unless it is detached.
        new_run = "the new run goes on without this stream" if self.request.detached else "the new run is cancelled"
        return StreamLostError(
            f"after {self.position} output tokens the scheduler no longer knew the request and began it again; "
            f"the new output may differ, so this stream ends and {new_run}"
        )
