"""All attempts this executor holds: those the engine works on, and those whose end is not acknowledged yet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import NoReturn

from executor_svc.runtime.assignment import Assignment, EngineHands
from executor_svc.runtime.attempt_output import AttemptOutput
from executor_svc.runtime.log_context import about, about_assigned
from executor_svc.runtime.messages import (
    Accepted,
    Ack,
    Assign,
    Attempt,
    EndCause,
    Ended,
    HeldAttempt,
    InvalidAssign,
    Phase,
    Rejected,
    RejectReason,
)
from executor_svc.runtime.observer import NULL_OBSERVER, Observer
from executor_svc.runtime.outbox import Outbox

log = logging.getLogger(__name__)

KV_LEASE_MARGIN_S = 1.0  # a decode leg with less than this left of its KV lease could read blocks that are gone
MAX_HELD = 4096


class Assignments:
    """At ``max_held`` attempts a further Assign is rejected as FULL; without ``generates``, every one as NOT_READY."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        max_held: int = MAX_HELD,
        generates: bool = True,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        self._outbox = outbox
        self._observer = observer
        self._max_held = max_held
        self._generates = generates
        self._hands: EngineHands | None = None
        self._running: dict[Attempt, Assignment] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly
        self._held: dict[Attempt, AttemptOutput] = {}  # running and ended ones
        self._by_number: dict[int, AttemptOutput] = {}  # of the session's epoch
        self._epoch = 0
        self._changed = asyncio.Event()
        self.draining = False
        self.kv_kept_until = float("-inf")  # on the loop's clock: the latest lease of a prompt's KV left behind here
        self.last_handed_over = 0  # number of the last Assign that the engine has, or will never have
        self.on_change: Callable[[], None] = lambda: None  # an attempt came or ended

    # --- where it stands --------------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def held(self) -> tuple[HeldAttempt, ...]:
        return tuple(output.held for output in self._held.values())

    async def none_running(self) -> None:
        while self._running:
            await self._next_change()

    async def none_held(self) -> None:
        """Waits until every end is acknowledged for good."""
        while self._held:
            await self._next_change()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _note_change(self) -> None:
        self._changed.set()
        self.on_change()

    # --- the engine and the session ---------------------------------------------------------------------------------

    def serve(self, hands: EngineHands) -> None:
        """The engine is up."""
        self._hands = hands
        hands.engine.on_step(self._outbox.flush)

    def begin_session(self, epoch: int, keep: Collection[Attempt]) -> None:
        """Go on with what the scheduler still wants, as soon as it says from where; let everything else go."""
        self._epoch = epoch
        kept = {attempt for attempt in keep if attempt.epoch == epoch and attempt in self._held}
        for attempt in [attempt for attempt in self._held if attempt not in kept]:
            self._let_go(attempt, "the scheduler does not want it any more")
        self._by_number = {attempt.number: self._held[attempt] for attempt in kept}
        if not kept:
            self.last_handed_over = 0  # a scheduler that kept nothing counts its Assigns from one
        self._outbox.open()

    def end_session(self) -> None:
        """The streams are gone.  Attempts run on; a new session may still want them."""
        self._outbox.close()
        self._by_number = {}
        for output in self._held.values():
            output.suspend()

    def let_all_go(self, reason: str) -> None:
        """Nobody is going to ask for them any more."""
        for attempt in list(self._held):
            self._let_go(attempt, reason)

    def let_unresumed_go(self, reason: str) -> None:
        """Attempts that were kept, but whose output was never asked for: they are given back."""
        for attempt, output in list(self._held.items()):
            if output.awaits_resume:
                self._let_go(attempt, reason)
                self._give_back(attempt, reason)

    def _give_back(self, attempt: Attempt, reason: str) -> None:
        """The scheduler believes that an attempt is here, and it is not: else its room would be taken for ever."""
        self._outbox.notice(
            Ended(attempt_number=attempt.number, cause=EndCause.CANCELLED, total_tokens=0, message=reason)
        )

    def _let_go(self, attempt: Attempt, reason: str) -> None:
        log.info("attempt %s let go: %s", attempt, reason, extra=self._held[attempt].about)
        self._forget(attempt)
        if attempt in self._running:
            self._running[attempt].interrupt(EndCause.CANCELLED, reason)

    # --- commands ---------------------------------------------------------------------------------------------------

    def assign(self, assign: Assign) -> None:
        refusal = self._refusal(assign)
        if refusal is not None:
            self._reject(assign, *refusal)
            return
        assert self._hands is not None
        loop = asyncio.get_running_loop()
        deadline = None if assign.remaining_s is None else loop.time() + assign.remaining_s
        observed = self._observer.assigned(assign)
        assign = replace(assign, trace_headers=observed.trace_headers)
        assignment = Assignment(assign, self._hands, deadline, observed)
        said_of = assignment.output.about
        log.debug("attempt %s of request %s: %s", assign.attempt, assign.request_id, assign.reasons, extra=said_of)
        self._running[assign.attempt] = assignment
        self._held[assign.attempt] = self._by_number[assign.attempt.number] = assignment.output
        own = copy_context()  # of the task and of its end: log lines of both say which attempt they are about
        running = assignment.run(partial(self._taken, assign))
        task = loop.create_task(running, name=f"attempt-{assign.attempt}", context=own)
        self._tasks.add(task)
        assignment.start(task)
        task.add_done_callback(partial(self._concluded, assignment), context=own)
        # After the task was made: the engine has the request before the link is busy with this.
        self._outbox.notice(Accepted(attempt_number=assign.attempt.number))
        self._note_change()

    def _refusal(self, assign: Assign) -> tuple[RejectReason, str] | None:
        if assign.attempt.epoch != self._epoch:
            return RejectReason.STALE_EPOCH, f"the session is of epoch {self._epoch}"
        if not self._generates:
            return RejectReason.NOT_READY, "this instance was started to embed: it does not generate"
        if self._hands is None:
            return RejectReason.NOT_READY, "the engine is not up yet"
        split = assign.phase is Phase.PREFILLING or assign.kv_transfer_params is not None
        if split and self._hands.engine.facts.kv_connector is None:
            return RejectReason.NOT_READY, "the engine of this instance has no KV connector"
        if self.draining and assign.kv_transfer_params is None:
            # A decode leg has had its room here since its prefill began elsewhere: it is of what is still finished.
            return RejectReason.DRAINING, "this instance is draining"
        if assign.kv_lease_s is not None and assign.kv_lease_s < KV_LEASE_MARGIN_S:
            return RejectReason.KV_LEASE_EXPIRED, f"{max(0.0, assign.kv_lease_s):.1f} s are left of the KV lease"
        return self._no_room(assign.attempt)

    def _no_room(self, attempt: Attempt) -> tuple[RejectReason, str] | None:
        if attempt in self._held or attempt in self._running:
            return RejectReason.FULL, "an attempt of this number is here already"
        if max(len(self._held), len(self._running)) >= self._max_held:
            return RejectReason.FULL, f"{self._max_held} attempts are held already"
        return None

    def _reject(self, assign: Assign | InvalidAssign, reason: RejectReason, message: str) -> None:
        attempt = assign.attempt
        log.warning("attempt %s rejected: %s", attempt, message, extra=about_assigned(assign))
        self._observer.turned_down(f"rejected_{reason.value}")
        self._handed_over(assign.number)
        self._outbox.notice(Rejected(attempt_number=attempt.number, reason=reason, message=message))

    def refuse_invalid(self, assign: InvalidAssign) -> None:
        """An Assign that makes no sense ends at once, as what the engine itself would call invalid."""
        attempt = assign.attempt
        if attempt.epoch != self._epoch:
            self._reject(assign, RejectReason.STALE_EPOCH, f"the session is of epoch {self._epoch}")
            return
        if (refusal := self._no_room(attempt)) is not None:
            self._reject(assign, *refusal)
            return
        said_of = about_assigned(assign)
        log.warning("attempt %s is invalid: %s", attempt, assign.field_name, extra=said_of)
        self._observer.turned_down(EndCause.INVALID.value)
        output = AttemptOutput(attempt, detokenizer=_no_text, about=said_of)
        output.ended = Ended(
            attempt_number=attempt.number,
            cause=EndCause.INVALID,
            total_tokens=0,
            field_name=assign.field_name,
            message=assign.message,
        )
        self._held[attempt] = self._by_number[attempt.number] = output
        self._handed_over(assign.number)
        self._outbox.notice(Accepted(attempt_number=attempt.number))
        self._outbox.ended(output)

    def cancel(self, attempt: Attempt, reason: str) -> None:
        """Confirmed by Ended; of one that has ended, Ended is on its way."""
        if attempt.epoch != self._epoch:
            log.warning("cancel of attempt %s, which is of another epoch, is left aside", attempt, extra=about(attempt))
        elif attempt not in self._held:
            self._give_back(attempt, "it is not here")
        elif attempt in self._running:
            self._running[attempt].interrupt(EndCause.CANCELLED, reason)

    def resume(self, attempt: Attempt, from_index: int) -> None:
        """Send an attempt's output again from a position."""
        output = self._held.get(attempt)
        if output is None:
            log.warning("output of attempt %s is asked for, which is not here", attempt, extra=about(attempt))
            if attempt.epoch == self._epoch:
                self._give_back(attempt, "it is not here any more")
            return
        try:
            output.rewind(from_index)
        except ValueError as error:
            log.error("attempt %s given up: %s", attempt, error, extra=output.about)
            output.rewind(len(output.token_ids))
            self._give_up(attempt, output, str(error))
            return
        if output.pieces:
            self._outbox.tokens(output)
            self._outbox.flush()
        if output.ended is not None:
            self._outbox.ended(output)

    def _give_up(self, attempt: Attempt, output: AttemptOutput, message: str) -> None:
        if attempt in self._running:
            self._running[attempt].interrupt(EndCause.FAILED, message)
        elif output.ended is not None:
            self._outbox.ended(output)

    def acknowledge(self, acks: Iterable[Ack]) -> None:
        for ack in acks:
            output = self._by_number.get(ack.attempt_number)
            if output is None:
                continue
            output.acknowledge(ack.tokens)
            if ack.ended and output.ended is not None:
                self._forget(output.attempt)

    def fail_all(self, cause: EndCause, message: str) -> None:
        """End everything that runs, reported to the scheduler."""
        for assignment in list(self._running.values()):
            assignment.interrupt(cause, message)

    # --- what tasks report ------------------------------------------------------------------------------------------

    def _handed_over(self, number: int) -> None:
        self.last_handed_over = max(self.last_handed_over, number)

    def _taken(self, assign: Assign) -> None:
        """The engine has it.  One that was let go belongs to a session whose numbers count no more."""
        if assign.attempt in self._held:
            self._handed_over(assign.number)

    def _concluded(self, assignment: Assignment, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        assign = assignment.assign
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("attempt %s of request %s failed here", assign.attempt, assign.request_id, exc_info=error)
        self._taken(assign)
        self._running.pop(assign.attempt, None)
        assignment.conclude()
        ended = assignment.output.ended
        if ended is not None:
            if ended.kv_lease_ends_at is not None:
                self.kv_kept_until = max(self.kv_kept_until, ended.kv_lease_ends_at)
            level = logging.DEBUG if ended.cause is EndCause.FINISHED else logging.INFO
            # What the engine finds invalid it may quote.
            why = ended.field_name if ended.cause is EndCause.INVALID else ended.message
            log.log(level, "attempt %s of request %s: %s after %d tokens %s", assign.attempt, assign.request_id,
                    ended.cause.value, ended.total_tokens, why)  # fmt: skip
        self._note_change()

    def _forget(self, attempt: Attempt) -> None:
        self._held.pop(attempt, None)
        if self._by_number.get(attempt.number) is not None and attempt.epoch == self._epoch:
            self._by_number.pop(attempt.number)
        self._note_change()


def _no_text() -> NoReturn:
    raise AssertionError("an attempt that never ran has no output to send again")
