"""InferenceService.Session: opens sessions of clients within their bounds, and ends them with the scheduler."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, TypeAlias

import grpc

from sage.controlplane.v1 import inference_pb2
from sage_common.clock import Clock
from sage_wire import durations
from sage_wire.errors import ErrorReason
from sage_wire.protocol import OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION
from scheduler_svc.access.audit import Audit
from scheduler_svc.access.caller import caller
from scheduler_svc.control.requests.intake import Intake
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest, LimitReached, SchedulerError, ShuttingDown
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.transport.client_sessions.client_session import ClientSession, Messages
from scheduler_svc.transport.client_sessions.frame_draft import FrameDraft
from scheduler_svc.transport.client_sessions.limits import (
    CALLER_SESSIONS_LIMIT,
    OPEN_LIMIT_S,
    SESSIONS_LIMIT,
    SILENCE_S,
    WINDOW_FRAMES,
)
from scheduler_svc.transport.client_sessions.observer import NULL_SESSION_OBSERVER, SessionObserver
from scheduler_svc.transport.errors import OnEnd, WireError, reason_in
from scheduler_svc.transport.health import INFERENCE
from scheduler_svc.transport.held_message import HeldMessage
from scheduler_svc.transport.refusals import Refusals

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class SessionServicer:
    """The open sessions."""

    def __init__(
        self,
        intake: Intake,
        scheduler: Scheduler,
        clock: Clock,
        audit: Audit,
        *,
        epoch: int,
        leader_lease_s: float | None = None,
        observer: SessionObserver = NULL_SESSION_OBSERVER,
        on_end: OnEnd = lambda method, reason: None,
    ) -> None:
        """``on_end`` is told of each request that is refused or fails, as of a call that ends with an error.

        ``leader_lease_s``: how long this scheduler leads without renewing it; None: it is the only one.
        """
        self._on_end = on_end
        self._intake = intake
        self._scheduler = scheduler
        self._clock = clock
        self._audit = audit
        self._epoch = epoch
        self._leader_lease_s = leader_lease_s
        self._observer = observer
        self._sessions: dict[ClientSession, None] = {}
        self._of_callers: Counter[str] = Counter()
        self._closed: SchedulerError | None = None  # why no session is taken

    def __len__(self) -> int:
        return len(self._sessions)

    async def run(self, messages: Messages, context: Context) -> None:
        """Run one stream from Open to its end.

        Raises InvalidRequest without Open in time, WireError for a version, LimitReached for too many sessions,
        ShuttingDown, and what ``ClientSession.run`` raises.
        """
        who = caller().name
        self._check_bounds(who)
        self._of_callers[who] += 1
        self._observer.opened()
        try:
            await self._run(messages, context)
        finally:
            self._observer.closed()
            self._of_callers[who] -= 1
            if not self._of_callers[who]:
                del self._of_callers[who]

    def close(self, why: SchedulerError | None = None) -> None:
        """End every session with ``why`` once what is new was written, and take no further one.

        ``why``: None: because the scheduler shuts down.
        """
        self._closed = why or ShuttingDown()
        for session in list(self._sessions):
            session.close(self._closed)

    async def _run(self, messages: Messages, context: Context) -> None:
        message = await _first(messages)
        await context.write(self._opened(message.open))
        first = HeldMessage(message)
        del message
        refusals = Refusals("Session", self._audit, context.peer())
        session = ClientSession(self._intake, self._clock, self._new_draft, refusals, self._observer)
        self._sessions[session] = None
        if self._closed is not None:
            session.close(self._closed)
        try:
            await session.run(first, messages, context.write)
        finally:
            del self._sessions[session]

    def _check_bounds(self, who: str) -> None:
        if self._closed is not None:
            raise self._closed
        if self._of_callers.total() >= SESSIONS_LIMIT:
            raise LimitReached("sessions", SESSIONS_LIMIT)
        if self._of_callers[who] >= CALLER_SESSIONS_LIMIT:
            raise LimitReached("sessions of one caller", CALLER_SESSIONS_LIMIT)

    def _new_draft(self) -> FrameDraft:
        return FrameDraft(
            self._scheduler, self._epoch, lambda status: self._on_end(f"/{INFERENCE}/Session", reason_in(status))
        )

    def _opened(self, wanted: inference_pb2.Open) -> inference_pb2.SessionResponse:
        """Answer Open.  Raises WireError for a version that is not spoken here."""
        version = wanted.protocol_version
        if not OLDEST_PROTOCOL_VERSION <= version <= PROTOCOL_VERSION + 1:
            spoken = f"{OLDEST_PROTOCOL_VERSION} to {PROTOCOL_VERSION + 1}"
            text = f"open.protocol_version: is {version}; this scheduler accepts {spoken}"
            raise WireError(ErrorReason.PROTOCOL_VERSION, text)
        opened = inference_pb2.Opened(
            protocol_version=min(version, PROTOCOL_VERSION),
            epoch=self._epoch,
            window=WINDOW_FRAMES,
            grace=durations.to_wire(self._intake.grace.seconds),
            silence=durations.to_wire(SILENCE_S),
        )
        if self._leader_lease_s is not None:
            opened.leader_lease.CopyFrom(durations.to_wire(self._leader_lease_s))
        return inference_pb2.SessionResponse(opened=opened)


async def _first(messages: Messages) -> inference_pb2.SessionRequest:
    """Return the first message.  Raises InvalidRequest unless it has Open and comes in OPEN_LIMIT_S."""
    try:
        first = await asyncio.wait_for(anext(messages), OPEN_LIMIT_S)
    except TimeoutError:
        raise _unopened(f"did not come within {OPEN_LIMIT_S:g} s") from None
    except StopAsyncIteration:
        raise _unopened("is missing: the stream has no message") from None
    if not first.HasField("open"):
        raise _unopened("is missing in the first message")
    return first


def _unopened(description: str) -> InvalidRequest:
    return InvalidRequest([FieldViolation(field="open", description=description)])
