"""The attempts that this executor holds: running ones, and ended ones whose end is not acknowledged yet."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import partial
from typing import NoReturn

from executor_svc.runtime.attempts.admission import Refusal, refusal
from executor_svc.runtime.attempts.attempt import Attempt
from executor_svc.runtime.attempts.run import Run, started, take_step
from executor_svc.runtime.attempts.services import AttemptServices
from executor_svc.runtime.log_context import about, about_assigned, logged_about
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.commands import Assign, InvalidAssign
from executor_svc.runtime.messages.outputs import (
    Accepted,
    Ack,
    EndCause,
    Ended,
    Rejected,
    RejectReason,
)
from executor_svc.runtime.messages.registration import HeldAttempt
from executor_svc.runtime.messages.reports import HeldAssign
from executor_svc.runtime.observer import NULL_OBSERVER, Observer
from executor_svc.runtime.outputs.attempt_output import AttemptOutput
from executor_svc.runtime.outputs.outbox import Outbox

log = logging.getLogger(__name__)

MAX_HELD = 4096

ENDED_KEPT_S = 60.0
"""Seconds past its end for which an attempt is kept at most where a scheduler is connected."""


class AttemptTable:
    """Starts, resumes and ends attempts as the scheduler orders, and holds their output until it is acknowledged.

    The table holds at most ``max_held`` attempts; a further Assign is rejected as FULL.  An executor that was started
    with the role embedding (``generates`` False) rejects an Assign that generates as NOT_READY, and any other one
    rejects those that embed.
    """

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
        self._services: AttemptServices | None = None
        self._running: dict[AttemptId, Run] = {}
        self._adapters: Counter[str] = Counter()  # attempts that begin or run, by adapter
        self._held: dict[AttemptId, AttemptOutput] = {}  # running and ended ones
        self._epoch = 0
        self._changed = asyncio.Event()
        self.draining = False
        self.kv_kept_until = float("-inf")  # on the loop's clock: when the last lease of KV kept for other engines ends
        self.last_assign = 0  # highest number of an Assign that the engine has, or never will
        self.engine_awake: Callable[[], bool] = lambda: True  # while it sleeps, it runs nothing
        self.holds_adapter: Callable[[str], bool] = lambda name: False  # whether one was added and is loaded
        self.on_change: Callable[[], None] = lambda: None  # called when an attempt was started, ended or forgotten

    # --- counts --------------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Number of attempts the engine works on."""
        return len(self._running)

    def uses(self, adapter: str) -> bool:
        """Return whether the engine works on an attempt with this adapter."""
        return adapter in self._adapters

    @property
    def held(self) -> tuple[HeldAttempt, ...]:
        """Every attempt held: running ones, and ended ones whose end is not acknowledged."""
        return tuple(output.held for output in self._held.values())

    async def none_running(self) -> None:
        """Wait until the engine works on no attempt."""
        while self._running:
            await self._next_change()

    async def none_held(self) -> None:
        """Wait until every end is acknowledged."""
        while self._held:
            await self._next_change()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _note_change(self) -> None:
        self._changed.set()
        self.on_change()

    # --- the engine and the session ----------------------------------------------------------------------------------

    def serve(self, services: AttemptServices) -> None:
        """Begin to accept attempts, because the engine is up."""
        self._services = services
        services.engine.on_outputs(take_step)
        services.engine.on_step(self._outbox.flush)

    def begin_session(self, epoch: int, keep: Collection[AttemptId], *, adopts: bool = False) -> None:
        """Fence every held attempt that is not in ``keep`` and that the scheduler cannot adopt.

        The output of a kept or adopted attempt is sent again once the scheduler has resumed it from a position.
        ``adopts``: the scheduler adopts attempts that another one began.
        """
        self._epoch = epoch
        kept = {attempt_id for attempt_id in keep if attempt_id in self._held}
        for attempt_id, output in list(self._held.items()):
            if attempt_id not in kept and not (adopts and attempt_id.epoch != epoch and output.adoptable):
                self._fence(attempt_id, "the scheduler does not keep it in the new session")
        if not kept:
            self.last_assign = 0  # a scheduler that kept nothing counts its Assigns from one
        self._outbox.open(epoch)

    def end_session(self) -> None:
        """Stop sending, because the streams are gone.  Attempts run on: a new session may keep them."""
        self._outbox.close()
        for output in self._held.values():
            output.suspend()

    def fence_all(self, reason: str) -> None:
        """Abort and forget every attempt, because no scheduler will ask for its output."""
        for attempt_id in list(self._held):
            self._fence(attempt_id, reason)

    def fence_unresumed(self, reason: str) -> None:
        """Abort, forget and report the attempts that the new session kept but never resumed."""
        for attempt_id, output in list(self._held.items()):
            if output.awaits_resume:
                self._fence(attempt_id, reason)
                self._report_missing(attempt_id, reason)

    def _report_missing(self, attempt_id: AttemptId, reason: str) -> None:
        """Report an attempt that this executor does not hold as ended, so that the scheduler releases its capacity."""
        self._outbox.notice(Ended(attempt=attempt_id, cause=EndCause.CANCELLED, total_tokens=0, message=reason))

    def _fence(self, attempt_id: AttemptId, reason: str) -> None:
        log.info("attempt %s aborted and forgotten: %s", attempt_id, reason, extra=self._held[attempt_id].about)
        self._forget(attempt_id)
        if attempt_id in self._running:
            self._running[attempt_id].interrupt(EndCause.CANCELLED, reason)

    # --- commands ----------------------------------------------------------------------------------------------------

    def assign(self, assign: Assign) -> None:
        """Start an attempt, or reject it."""
        refused = self._refusal(assign)
        if refused is not None:
            self._reject(assign, *refused)
            return
        assert self._services is not None
        loop = asyncio.get_running_loop()
        deadline = None if assign.remaining_s is None else loop.time() + assign.remaining_s
        observed = self._observer.assigned(assign)
        if observed.trace_headers != assign.trace_headers:
            assign = replace(assign, trace_headers=observed.trace_headers)
        attempt = Attempt(assign, self._services, observed)
        log_extra = attempt.output.about
        log.debug("attempt %s of request %s: %s", assign.attempt, assign.request_id, assign.reasons, extra=log_extra)
        self._held[assign.attempt] = attempt.output
        with logged_about(log_extra):
            self._start(attempt, deadline)
        # Sent after the start, so that the engine gets the request before the link is busy with this message.
        self._outbox.notice(Accepted(attempt=assign.attempt))
        self._note_change()

    def _start(self, attempt: Attempt, deadline: float | None) -> None:
        self._count_adapter(attempt.assign, 1)
        over = partial(self._concluded, attempt)
        try:
            submitted = partial(self._submitted, attempt.assign)
            run = started(attempt, deadline=deadline, on_submitted=submitted, on_over=over)
        except Exception as defect:
            over(defect)
            return
        if run is None:
            over(None)
        elif attempt.output.ended is None:
            self._running[attempt.assign.attempt] = run

    def _count_adapter(self, assign: Assign, by: int) -> None:
        if assign.adapter is not None:
            self._adapters[assign.adapter] += by
            if not self._adapters[assign.adapter]:
                del self._adapters[assign.adapter]

    def _refusal(self, assign: Assign) -> Refusal | None:
        if assign.attempt.epoch != self._epoch:
            return self._stale()
        facts = None if self._services is None else self._services.engine.facts
        refused = refusal(
            assign,
            generates=self._generates,
            facts=facts,
            draining=self.draining,
            holds_adapter=self.holds_adapter,
            awake=self.engine_awake(),
        )
        return refused or self._full(assign.attempt)

    def _stale(self) -> Refusal:
        return RejectReason.STALE_EPOCH, f"the session is of epoch {self._epoch}"

    def _full(self, attempt_id: AttemptId) -> Refusal | None:
        if attempt_id in self._held or attempt_id in self._running:
            return RejectReason.FULL, "this executor holds an attempt of this number already"
        if max(len(self._held), len(self._running)) >= self._max_held:
            return RejectReason.FULL, f"{self._max_held} attempts are held already"
        return None

    def _reject(self, assign: Assign | InvalidAssign, reason: RejectReason, message: str) -> None:
        attempt_id = assign.attempt
        log.warning("attempt %s rejected: %s", attempt_id, message, extra=about_assigned(assign))
        self._observer.not_started(f"rejected_{reason.value}")
        self._note_number(assign.number)
        self._outbox.notice(Rejected(attempt=attempt_id, reason=reason, message=message))

    def refuse_invalid(self, assign: InvalidAssign) -> None:
        """Accept an attempt whose Assign makes no sense and end it at once as INVALID."""
        attempt_id = assign.attempt
        if attempt_id.epoch != self._epoch:
            self._reject(assign, *self._stale())
            return
        if (refused := self._full(attempt_id)) is not None:
            self._reject(assign, *refused)
            return
        log_extra = about_assigned(assign)
        log.warning("attempt %s is invalid: field %s", attempt_id, assign.field_name, extra=log_extra)
        self._observer.not_started(EndCause.INVALID.value)
        output = AttemptOutput(attempt_id, detokenizer=_no_text, about=log_extra)
        output.ended = Ended(
            attempt=attempt_id,
            cause=EndCause.INVALID,
            total_tokens=0,
            field_name=assign.field_name,
            message=assign.message,
        )
        self._held[attempt_id] = output
        self._note_number(assign.number)
        self._outbox.notice(Accepted(attempt=attempt_id))
        self._outbox.ended(output)

    def cancel(self, attempt_id: AttemptId, reason: str) -> None:
        """End an attempt.  Ended confirms the end; if the attempt has ended already, its Ended is on the way."""
        output = self._held.get(attempt_id)
        if output is None:
            self._report_missing(attempt_id, "the executor does not hold this attempt")
        elif output.awaits_resume:
            self._fence(attempt_id, reason)
            self._report_missing(attempt_id, reason)
        elif attempt_id in self._running:
            self._running[attempt_id].interrupt(EndCause.CANCELLED, reason)

    def held_assign(self, attempt_id: AttemptId) -> HeldAssign:
        """Return the answer to FetchAssign."""
        output = self._held.get(attempt_id)
        if output is None:
            return HeldAssign(attempt=attempt_id, assign=None)
        return output.held_assign(asyncio.get_running_loop().time())

    def resume(self, attempt_id: AttemptId, from_index: int) -> None:
        """Send an attempt's output again from output position ``from_index``."""
        output = self._held.get(attempt_id)
        if output is None:
            log.warning(
                "attempt %s cannot be resumed: this executor does not hold it", attempt_id, extra=about(attempt_id)
            )
            self._report_missing(attempt_id, "the executor does not hold this attempt any more")
            return
        try:
            output.rewind(from_index)
        except ValueError as error:
            log.error("attempt %s cannot be resumed: %s", attempt_id, error, extra=output.about)
            output.rewind(len(output.token_ids))
            self._fail(attempt_id, output, str(error))
            return
        if output.unsent:
            self._outbox.tokens(output)
            self._outbox.flush()
        if output.ended is not None:
            self._outbox.ended(output)

    def _fail(self, attempt_id: AttemptId, output: AttemptOutput, message: str) -> None:
        if attempt_id in self._running:
            self._running[attempt_id].interrupt(EndCause.FAILED, message)
        elif output.ended is not None:
            self._outbox.ended(output)

    def acknowledge(self, acks: Iterable[Ack]) -> None:
        """Release the output that the scheduler has, and forget attempts whose end it has."""
        for ack in acks:
            output = self._held.get(ack.attempt)
            if output is None:
                continue
            output.acknowledge(ack.tokens)
            if ack.ended and output.ended is not None:
                self._forget(output.attempt)

    def end_all(self, cause: EndCause, message: str) -> None:
        """End every running attempt with ``cause``; their ends are reported to the scheduler."""
        for run in list(self._running.values()):
            run.interrupt(cause, message)

    # --- events of an attempt's run ----------------------------------------------------------------------------------

    def _note_number(self, number: int) -> None:
        self.last_assign = max(self.last_assign, number)

    def _submitted(self, assign: Assign) -> None:
        """Note that the engine has an attempt.

        Ignored for a fenced one, whose number belongs to an earlier session.
        """
        if assign.attempt in self._held:
            self._note_number(assign.number)

    def _concluded(self, attempt: Attempt, defect: BaseException | None) -> None:
        with logged_about(attempt.output.about):
            self._conclude(attempt, defect)

    def _conclude(self, attempt: Attempt, defect: BaseException | None) -> None:
        assign = attempt.assign
        if defect is not None:
            log.error(
                "attempt %s of request %s failed in the executor", assign.attempt, assign.request_id, exc_info=defect
            )
        self._submitted(assign)
        self._running.pop(assign.attempt, None)
        self._count_adapter(assign, -1)
        try:
            attempt.conclude()
        except Exception as broken:
            log.error("the end of attempt %s of request %s failed", assign.attempt, assign.request_id, exc_info=broken)
            if attempt.output.ended is None:  # else the scheduler is told already
                attempt.ending = None
                attempt.conclude()
        ended = attempt.output.ended
        if ended is not None:
            asyncio.get_running_loop().call_later(ENDED_KEPT_S, self._forget_ended, assign.attempt)
            if ended.kv_lease_ends_at is not None:
                self.kv_kept_until = max(self.kv_kept_until, ended.kv_lease_ends_at)
            level = logging.DEBUG if ended.cause is EndCause.FINISHED else logging.INFO
            # The engine's message about an invalid request may quote the request.
            why = ended.field_name if ended.cause is EndCause.INVALID else ended.message
            log.log(level, "attempt %s of request %s: %s after %d tokens%s", assign.attempt, assign.request_id,
                    ended.cause.value, ended.total_tokens, f": {why}" if why else "")  # fmt: skip
        self._note_change()

    def _forget_ended(self, attempt_id: AttemptId) -> None:
        """Forget an attempt whose end was sent long ago; one that was not sent is kept until a scheduler comes."""
        output = self._held.get(attempt_id)
        if output is not None and not output.awaits_resume:
            log.info("the end of attempt %s was not acknowledged in %g s", attempt_id, ENDED_KEPT_S, extra=output.about)
            self._forget(attempt_id)

    def _forget(self, attempt_id: AttemptId) -> None:
        self._held.pop(attempt_id, None)
        self._note_change()


def _no_text() -> NoReturn:
    raise AssertionError("an invalid attempt never ran: it has no output to send again")
