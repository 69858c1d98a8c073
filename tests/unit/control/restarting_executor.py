"""A modelled executor that outlives its schedulers: it holds attempts under their names and sends them again."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from sage.controlplane.v1 import common_pb2, executor_pb2
from scheduler_svc.control.attempts.executor_link import AssignOrder
from scheduler_svc.control.attempts.held_attempt import HeldAttempt
from scheduler_svc.control.instances.registration import DuplicateInstance, Registration
from scheduler_svc.control.instances.session import Session
from scheduler_svc.domain.adapters.registered_adapter import AdapterSource
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.load_report import IterationSample, LoadReport
from scheduler_svc.domain.role_change import RoleChange
from scheduler_svc.transport.assign import assign_message
from scheduler_svc.transport.request_records import held_request
from tests.unit.control.world import KEY, MODEL

if TYPE_CHECKING:
    from tests.unit.control.restarting_fleet import Fleet, Reign

Name = tuple[int, int]
VOCABULARY = 1_000
STEP_S = 0.05
MAX_RUNNING = 4
BREAK_S = (0.0, 0.15)
"""Seconds that a broken link takes to come back: within the scheduler's grace."""

UNSEEDED = "unseeded"


def next_token(prefix: Sequence[int], nonce: int) -> int:
    """The token after a prefix: any other prefix gives another one, so every splice shows."""
    return (
        zlib.crc32(nonce.to_bytes(8, "little") + b"".join(each.to_bytes(2, "little") for each in prefix)) % VOCABULARY
    )


@dataclass(eq=False)
class Held:
    """One attempt."""

    order: AssignOrder
    assign: executor_pb2.Assign
    tokens: list[int]  # those of earlier attempts included
    nonce: int  # 0 for a greedy request
    received_at: float
    sent: int
    ended: AttemptEnd | None = None
    end_sent: bool = False
    silent: bool = False  # a session broke: nothing is sent before the scheduler asks for it
    first_token_at: float | None = None

    @property
    def name(self) -> Name:
        return self.order.epoch, self.order.attempt_number


class Wire:
    """Implements ExecutorLink for one session; nothing passes once it is cut."""

    def __init__(self, executor: Executor, reign: Reign) -> None:
        self._executor = executor
        self._reign = reign
        self.cut = False

    def assign(self, order: AssignOrder) -> None:
        assign = assign_message(order, self._executor.instance_id, KEY)
        if order.continuation is not None:  # a message on the wire does not grow any more
            emitted = list(order.continuation.emitted_token_ids)
            order = replace(order, continuation=replace(order.continuation, emitted_token_ids=emitted))
        self._send(partial(self._executor.assign, order, assign))

    def cancel(self, attempt_number: int, reason: str) -> None:
        self._send(partial(self._executor.cancel, self._name(attempt_number)))

    def cancel_named(self, epoch: int, number: int, reason: str) -> None:
        self._send(partial(self._executor.cancel, (epoch, number)))

    def resend(self, attempt_number: int, from_index: int) -> None:
        self._send(partial(self._executor.resend, self._name(attempt_number), from_index))

    def resend_named(self, epoch: int, number: int, from_index: int) -> None:
        self._send(partial(self._executor.resend, (epoch, number), from_index))

    def fetch_assign(self, epoch: int, number: int) -> None:
        self._send(partial(self._executor.answer, (epoch, number)))

    def acknowledge(self, attempt_number: int, tokens: int, *, ended: bool) -> None:
        """Nothing is acknowledged here but ends, which ``Executor`` does."""

    def forget(self, name: Name) -> None:
        self._send(partial(self._executor.forget, name))

    def drain(self, *, resume: bool) -> None:
        """Do nothing: these executors are not drained."""

    def release_kv(self, number: int, params: bytes) -> None:
        raise AssertionError("nothing is split here")

    def want_tokenizer(self, tokenizer_hash: str) -> None:
        raise AssertionError("tokenizers are always here")

    def want_sleep(self, number: int, *, asleep: bool) -> None:
        """Ignored: its engine cannot sleep."""

    def want_adapters(self, number: int, sources: Sequence[AdapterSource]) -> None:
        raise AssertionError("no adapters are registered here")

    def keep_role(self, change: RoleChange | None, age_s: float) -> None:
        raise AssertionError("roles are not automatic here")

    def acknowledge_heartbeat(self, number: int) -> None:
        """Do nothing."""

    def close(self, reason: str) -> None:
        self._send(self._executor.disconnected)

    def _name(self, number: int) -> Name:
        return self._reign.plane.attempts.names.of(number) or (self._reign.epoch, number)

    def _send(self, command: partial[None] | object) -> None:
        """Have a command arrive a moment later, unless the link is cut before."""

        def arrive() -> None:
            if not self.cut and self._executor.wire is self and callable(command):
                command()

        if not self.cut and self._reign.writes:
            clock = self._executor.fleet.clock
            clock.call_at(clock.now() + self._executor.fleet.delay_s(), arrive)


@dataclass(eq=False)
class Executor:
    """Generates a token a step for each of the first attempts it holds, with a scheduler or without."""

    fleet: Fleet
    instance_id: str
    starts: int = 1
    held: dict[Name, Held] = field(default_factory=dict)
    wire: Wire | None = None
    reign: Reign | None = None
    session: Session | None = None
    frozen: bool = False
    dead: bool = False
    away_until: float = 0.0  # before then it does not dial
    iterations: int = 0
    last_assign: int = 0
    secret: bytes = b""
    begun: list[str] = field(default_factory=list)  # the request of each attempt that began at position 0

    @property
    def connected(self) -> bool:
        return self.wire is not None

    # --- sessions ---------------------------------------------------------------------------------

    def dial(self) -> None:
        """Register with the scheduler that there is, and report READY."""
        reign = self.fleet.reign
        if (
            reign is None
            or not reign.writes
            or self.dead
            or self.frozen
            or self.wire is not None
            or self.fleet.clock.now() < self.away_until
        ):
            return
        held = tuple(
            HeldAttempt(
                epoch=each.order.epoch,
                number=each.order.attempt_number,
                tokens=len(each.tokens),
                ended=each.ended is not None,
                adoption_proof=each.assign.adoption_proof,
            )
            for each in self.held.values()
        )
        spec = InstanceSpec(instance_id=self.instance_id, model=MODEL, engine_start_id=f"start-{self.starts}")
        self.wire, self.reign = Wire(self, reign), reign
        try:
            registration = Registration(spec=spec, resume_secret=self.secret, held=held)
            welcome = reign.plane.instances.registrar.register(registration, self.wire)
        except DuplicateInstance:
            self.disconnected()
            return
        self.secret = welcome.resume_secret
        kept = {reign.plane.attempts.names.of(number) or (reign.epoch, number) for number in welcome.keep}
        kept.update(welcome.keep_ended)
        for name in list(self.held):
            self.held[name].silent = True
            if name not in kept and name[0] == reign.epoch:
                del self.held[name]
        if not kept:
            self.last_assign = 0
        self.session = reign.plane.instances.sessions.by_id(welcome.session_id)
        reign.plane.instances.reports.engine_status(self.session, InstanceState.READY, None, "", _FACTS)
        reign.plane.instances.sessions.outputs_opened(welcome.session_id)

    def disconnected(self) -> None:
        """Go on without a scheduler, and dial again a little later."""
        if self.wire is not None:
            self.wire.cut = True
        self.wire = self.reign = self.session = None
        self.away_until = self.fleet.clock.now() + self.fleet.dice.uniform(0.05, 1.0)
        for each in self.held.values():
            each.silent = True

    def break_link(self) -> None:
        """What a reset of the connection does, on both sides."""
        session, reign = self.session, self.reign
        self.disconnected()
        self.away_until = self.fleet.clock.now() + self.fleet.dice.uniform(*BREAK_S)
        if session is not None and reign is not None:
            sessions = reign.plane.instances.sessions
            reign.receive(lambda: sessions.control_broken(session, "reset"))
            reign.receive(lambda: sessions.outputs_broken(session, "reset"))

    def kill(self) -> None:
        """The process is gone, and everything in it."""
        self.held.clear()
        self.break_link()
        self.dead = True

    def start(self) -> None:
        """A new process with a new engine."""
        self.dead = self.frozen = False
        self.starts += 1
        self.iterations = self.last_assign = 0
        self.secret = b""

    # --- commands ---------------------------------------------------------------------------------

    def assign(self, order: AssignOrder, assign: executor_pb2.Assign) -> None:
        emitted = list(order.continuation.emitted_token_ids) if order.continuation is not None else []
        unseeded = order.request.tags.get("kind") == UNSEEDED
        held = Held(
            order=order,
            assign=assign,
            tokens=emitted,
            nonce=self.fleet.new_nonce(order.request.key.request_id) if unseeded else 0,
            received_at=self.fleet.clock.now(),
            sent=len(emitted),
        )
        self.held[held.name] = held
        self.last_assign = order.number
        if not emitted:
            self.begun.append(order.request.key.request_id)
        self._finish_if_full(held)

    def cancel(self, name: Name) -> None:
        held = self.held.pop(name, None)
        tokens = len(held.tokens) if held is not None else 0
        self._report_end(name, AttemptEnd(attempt_number=name[1], cause=EndCause.CANCELLED, total_tokens=tokens))

    def resend(self, name: Name, from_index: int) -> None:
        held = self.held.get(name)
        if held is None:
            self.cancel(name)
            return
        held.sent, held.silent, held.end_sent = from_index, False, False

    def answer(self, name: Name) -> None:
        """Answer FetchAssign."""
        held, reign, session = self.held.get(name), self.reign, self.session
        assert reign is not None
        assert session is not None
        wire = executor_pb2.HeldAssign(attempt=common_pb2.Attempt(epoch=name[0], number=name[1]))
        now = self.fleet.clock.now()
        if held is not None:
            wire.assign.CopyFrom(held.assign)
            wire.tokens, wire.ended = len(held.tokens), held.ended is not None
            wire.held_for.FromMilliseconds(int((now - held.received_at) * 1_000))
            if held.first_token_at is not None:
                wire.first_token_for.FromMilliseconds(int((now - held.first_token_at) * 1_000))
        found = held_request(wire, self.instance_id, KEY, now)
        reign.receive(lambda: reign.plane.instances.reports.held_assign(session, name, found))

    def forget(self, name: Name) -> None:
        self.held.pop(name, None)

    # --- work -------------------------------------------------------------------------------------

    def step(self) -> None:
        """One engine step, and what it sends."""
        if self.dead or self.frozen:
            return
        running = [each for each in self.held.values() if each.ended is None][:MAX_RUNNING]
        for held in running:
            held.tokens.append(next_token(held.tokens, held.nonce))
            held.first_token_at = held.first_token_at or self.fleet.clock.now()
            self._finish_if_full(held)
        self.iterations += bool(running)
        if self.wire is None:
            self.dial()
            return
        for name, held in list(self.held.items()):
            if self.connected and not held.silent:
                self._flush(name, held)

    def beat(self, number: int) -> None:
        """Send a heartbeat."""
        if self.dead or self.frozen or self.session is None or self.reign is None:
            return
        held = sum(1 for each in self.held.values() if each.ended is None)
        running = min(held, MAX_RUNNING)
        report = LoadReport(
            number=number,
            last_assign=self.last_assign,
            running=running,
            waiting=held - running,
            unfinished=held,
            kv_used_tokens=sum(len(each.tokens) for each in self.held.values()),
            iterations=self.iterations,
            samples=(
                IterationSample(
                    prefill_tokens=0, decode_tokens=running, running=running, kv_used_tokens=0, elapsed_s=STEP_S
                ),
            ),
        )
        reign, session = self.reign, self.session
        reign.receive(lambda: reign.plane.instances.reports.heartbeat(session, report))

    def _finish_if_full(self, held: Held) -> None:
        if len(held.tokens) >= held.order.request.sampling.max_tokens:
            held.ended = AttemptEnd(
                attempt_number=held.order.attempt_number,
                cause=EndCause.FINISHED,
                finish_reason="length",
                total_tokens=len(held.tokens),
                engine_time_s=1.0,
            )

    def _flush(self, name: Name, held: Held) -> None:
        reign = self.reign
        assert reign is not None
        if len(held.tokens) > held.sent:
            reign.receive(partial(self._arrive, reign, name, held.sent, held.tokens[held.sent :]))
        held.sent = len(held.tokens)
        if held.ended is not None and not held.end_sent:
            held.end_sent = True
            self._report_end(name, held.ended)

    def _arrive(self, reign: Reign, name: Name, first: int, token_ids: list[int]) -> None:
        """Have tokens come to a scheduler."""
        number = _number_at(reign, name)
        if number is not None:
            reign.plane.attempts.tokens(self.instance_id, number, first, token_ids, "x" * len(token_ids), None)

    def _report_end(self, name: Name, end: AttemptEnd) -> None:
        """Report an end as ``AttemptReports`` takes it: it is kept until it is acknowledged."""
        reign, wire = self.reign, self.wire
        if reign is not None and wire is not None:
            reign.receive(partial(self._end_arrives, reign, wire, name, end))

    def _end_arrives(self, reign: Reign, wire: Wire, name: Name, end: AttemptEnd) -> None:
        acknowledge = partial(wire.forget, name)
        if reign.plane.intake.ends.came_again(self.instance_id, name, acknowledge):
            return
        number = _number_at(reign, name)
        live = None
        if number is not None:
            live = reign.plane.attempts.ended(self.instance_id, replace(end, attempt_number=number))
        if live is None:
            wire.forget(name)
        else:
            reign.plane.intake.ends.keep(live, self.instance_id, acknowledge, name)


def _number_at(reign: Reign, name: Name) -> int | None:
    return name[1] if name[0] == reign.epoch else reign.plane.attempts.names.number(*name)


_FACTS = EngineFacts(
    engine="modelled",
    engine_version="1",
    vocab_size=VOCABULARY,
    max_model_len=4_096,
    kv_capacity_tokens=100_000,
    max_running=MAX_RUNNING,
    max_batched_tokens=2_048,
    tokenizer_hash="t",
    weights="w",
    kv_block_size=16,
)
