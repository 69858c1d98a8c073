"""ExecutorService: an executor's control stream and output stream, together one session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias, TypeVar

import grpc

from sage.controlplane.v1 import common_pb2, executor_pb2, executor_pb2_grpc
from sage_wire import durations
from sage_wire.errors import ErrorReason
from sage_wire.protocol import ADOPTION, ASSIGN_BATCHES, STEP_FRAMES
from scheduler_svc.access.caller import caller
from scheduler_svc.control.adoption.proofs import Proofs
from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.kv_releases import KvReleases
from scheduler_svc.control.instances.engine_reports import EngineReports
from scheduler_svc.control.instances.registrar import Registrar
from scheduler_svc.control.instances.registration import UnknownSession
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.instances.sessions import Sessions
from scheduler_svc.control.requests.kept_ends import KeptEnds
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.transport import engine_facts, engine_reports, registrations
from scheduler_svc.transport.adapters import adapter_reports
from scheduler_svc.transport.attempt_reports import AttemptReports
from scheduler_svc.transport.clipping import reported
from scheduler_svc.transport.enums import ENGINE_STATE_FROM_WIRE, ROLE_TO_WIRE
from scheduler_svc.transport.errors import WireError
from scheduler_svc.transport.executor_link import StreamLink
from scheduler_svc.transport.request_records import held_request
from scheduler_svc.transport.sleep import sleep_report
from scheduler_svc.transport.submissions import attempt_name
from scheduler_svc.transport.tokenizer_upload import TokenizerUpload
from scheduler_svc.transport.two_way_stream import both_ways, write_all

log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
M = TypeVar("M")

FIRST_MESSAGE_TIMEOUT_S = 10.0


class ExecutorServicer(executor_pb2_grpc.ExecutorServiceServicer):
    """Run the streams of executors: pass their messages to control, and write what control queues for them."""

    def __init__(
        self,
        registrar: Registrar,
        sessions: Sessions,
        reports: EngineReports,
        attempts: AttemptTable,
        kv_releases: KvReleases,
        ends: KeptEnds,
        new_upload: Callable[[], TokenizerUpload],
        *,
        epoch: int,
        proofs: Proofs | None = None,
        leader_lease_s: float | None = None,
    ) -> None:
        """``proofs``: None: executors hold nothing for the next scheduler.

        ``leader_lease_s``: how long this scheduler leads without renewing it; None: it is the only one.
        """
        self._registrar = registrar
        self._sessions = sessions
        self._reports = reports
        self._attempts = attempts
        self._kv_releases = kv_releases
        self._ends = ends
        self._new_upload = new_upload
        self._epoch = epoch
        self._proofs = proofs
        self._leader_lease_s = leader_lease_s

    # --- control ----------------------------------------------------------------------------------

    async def Control(  # type: ignore[override]  # it writes to the context instead of yielding
        self, request_iterator: AsyncIterator[executor_pb2.ControlRequest], context: Context
    ) -> None:
        """Run a control stream from Register to its end.

        Raises WireError for a registration that is refused, PermissionDenied for an instance that is not the caller's,
        DuplicateInstance if the instance has a live session elsewhere.
        """
        first = await _first(request_iterator, "register")
        registration = registrations.registration(first.register)
        caller().check_instance(registration.spec.instance_id)
        holds = ADOPTION in first.register.capabilities
        link = StreamLink(
            registration.spec.instance_id,
            epoch=self._epoch,
            owner=caller().name,
            names=self._attempts.names,
            proofs=self._proofs if holds else None,
            batches=ASSIGN_BATCHES in first.register.capabilities,
        )
        welcome = self._registrar.register(registration, link)
        answer = executor_pb2.Welcome(
            protocol_version=registrations.agreed_version(first.register),
            session_id=welcome.session_id,
            epoch=welcome.epoch,
            lease=durations.to_wire(welcome.lease_s),
            heartbeat_interval=durations.to_wire(welcome.heartbeat_interval_s),
            keep=[
                *(link.attempt(number) for number in welcome.keep),
                *(common_pb2.Attempt(epoch=epoch, number=number) for epoch, number in welcome.keep_ended),
            ],
            capabilities=[STEP_FRAMES, ADOPTION],
            role=ROLE_TO_WIRE[welcome.role],
            resume_secret=welcome.resume_secret,
        )
        if welcome.adopt_s is not None and holds:
            answer.adopt.CopyFrom(durations.to_wire(welcome.adopt_s))
        if self._leader_lease_s is not None:
            answer.leader_lease.CopyFrom(durations.to_wire(self._leader_lease_s))
        session = self._sessions.by_id(welcome.session_id)
        await both_ways(
            read=lambda: self._read_control(session, request_iterator),
            write=lambda: write_all(link.control, context.write, first=executor_pb2.ControlResponse(welcome=answer)),
            broken=lambda reason: self._sessions.control_broken(session, reason),
            stuck=link.stuck,
        )

    async def _read_control(self, session: Session, messages: AsyncIterator[executor_pb2.ControlRequest]) -> None:
        upload = self._new_upload()
        try:
            async for message in messages:
                if not self._sessions.current(session):
                    return  # replaced: nothing of it counts any more
                self._on_control(session, message, upload)
        finally:
            upload.abandon()

    def _on_control(self, session: Session, message: executor_pb2.ControlRequest, upload: TokenizerUpload) -> None:
        self._sessions.renew_lease(session)
        kind = message.WhichOneof("message")
        if kind == "heartbeat":
            self._reports.heartbeat(session, engine_reports.load_report(message.heartbeat))
        elif kind == "prefix_cache_report":
            report = message.prefix_cache_report
            self._reports.cache_report(session, report.number, engine_reports.cache_report(report))
        elif kind == "held_assign":
            answer = message.held_assign
            held = held_request(answer, session.instance_id, self._proofs, self._reports.now())
            self._reports.held_assign(session, attempt_name(answer.attempt), held)
        elif kind == "adapter_states":
            states = message.adapter_states
            self._reports.adapter_states(session, states.number, adapter_reports(states))
        elif kind == "sleep_report":
            if (sleep := sleep_report(message.sleep_report)) is not None:
                self._reports.sleep_report(session, sleep)
        elif kind == "engine_status":
            self._on_engine_status(session, message.engine_status)
        elif kind == "tokenizer_chunk":
            upload.take(message.tokenizer_chunk)
        elif kind == "drain_requested":
            self._reports.wants_drain(session, reported(message.drain_requested.reason))
        elif kind == "drained":
            self._reports.drained(session)
        elif kind == "kv_released":
            released = message.kv_released
            self._kv_releases.answered(
                session.instance_id, released.number, released=released.released, message=reported(released.message)
            )
        elif kind == "goodbye":
            self._sessions.goodbye(session, reported(message.goodbye.reason))
        elif kind == "register":
            raise WireError(ErrorReason.INVALID_REGISTRATION, "this stream is already registered")

    def _on_engine_status(self, session: Session, status: executor_pb2.EngineStatus) -> None:
        state = ENGINE_STATE_FROM_WIRE.get(status.state)
        if state is None:
            raise WireError(ErrorReason.INVALID_REGISTRATION, f"{status.state} is not a state of an engine")
        facts = engine_facts.facts(status.facts) if state is InstanceState.READY else None
        progress = engine_reports.progress(status)
        self._reports.engine_status(session, state, progress, reported(status.message), facts)

    # --- outputs ----------------------------------------------------------------------------------

    async def Outputs(  # type: ignore[override]  # it writes to the context instead of yielding
        self, request_iterator: AsyncIterator[executor_pb2.OutputsRequest], context: Context
    ) -> None:
        """Run an output stream from Hello to its end; it replaces an older one of its session.

        Raises UnknownSession, and WireError if the first message is not Hello.
        """
        first = await _first(request_iterator, "hello")
        session = self._sessions.by_id(first.hello.session_id)
        link = session.link
        assert isinstance(link, StreamLink)
        if link.owner != caller().name:
            raise UnknownSession()
        outbox = link.new_outputs()
        if session.outputs_up:
            # The older stream broke; the executor noticed before the scheduler did.
            self._sessions.outputs_broken(session, "replaced by a newer one")
        self._sessions.outputs_opened(session.session_id)

        def broken(reason: str) -> None:
            if link.outputs is outbox:
                self._sessions.outputs_broken(session, reason)

        await both_ways(
            read=lambda: self._read_outputs(session, link, request_iterator),
            write=lambda: write_all(outbox, context.write),
            broken=broken,
            stuck=link.stuck,
        )

    async def _read_outputs(
        self, session: Session, link: StreamLink, messages: AsyncIterator[executor_pb2.OutputsRequest]
    ) -> None:
        """Pass on the executor's messages about its attempts."""
        reports = AttemptReports(self._attempts, link, session.instance_id, self._ends, epoch=self._epoch)
        async for message in messages:
            if not self._sessions.current(session):
                return  # replaced: nothing of it counts any more
            if reports.take(message):
                self._sessions.renew_lease(session)


async def _first(messages: AsyncIterator[M], wanted: str) -> M:
    """Return the first message.  Raises WireError unless it is ``wanted`` and comes in FIRST_MESSAGE_TIMEOUT_S."""
    try:
        first = await asyncio.wait_for(anext(messages), FIRST_MESSAGE_TIMEOUT_S)
    except (StopAsyncIteration, TimeoutError):
        raise WireError(ErrorReason.INVALID_REGISTRATION, f"the first message must be {wanted}") from None
    if first.WhichOneof("message") != wanted:  # type: ignore[attr-defined]
        raise WireError(ErrorReason.INVALID_REGISTRATION, f"the first message must be {wanted}")
    return first
