"""Runs one attempt: reads the engine's outputs, sends pieces of output and exactly one end to the scheduler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from executor_svc.runtime.attempts.ending import Ending
from executor_svc.runtime.attempts.leg import (
    Complete,
    Leg,
    already_complete,
    engine_request_id,
    first_leg,
    resumed_leg,
)
from executor_svc.runtime.attempts.replay import Replay, ReplayDiverged
from executor_svc.runtime.attempts.services import AttemptServices
from executor_svc.runtime.engine_port import (
    EngineDeadError,
    EngineError,
    EngineOutput,
    FinishReason,
    InvalidRequestError,
    JsonValue,
    TokenLogprob,
)
from executor_svc.runtime.log_context import ABOUT, EXTRA, about_assigned
from executor_svc.runtime.messages.commands import Assign, Phase
from executor_svc.runtime.messages.outputs import EndCause, Ended
from executor_svc.runtime.observer import AttemptObserver, UnobservedAttempt
from executor_svc.runtime.outputs.attempt_output import AttemptOutput
from executor_svc.runtime.text.detokenizer import Detokenizer, StopMatch

log = logging.getLogger(__name__)

RELEASE_TIMEOUT_S = 10.0  # for the engine to release an aborted request; longer means it is stuck
STOP_TIMEOUT_S = 10.0  # for the engine to stop a prefill leg; then the leg is aborted, even if its KV stays behind

DEADLINE_PASSED = "the caller's deadline passed"
KV_RECOMPUTED = "the KV of its prompt could not be fetched and was computed here"


class Attempt:
    """Runs one leg of a request on the engine, in one task.

    When the task is done and ``conclude`` was called, ``output.ended`` is set and the engine holds nothing for the
    attempt.
    """

    def __init__(
        self,
        assign: Assign,
        services: AttemptServices,
        deadline: float | None,
        observed: AttemptObserver | None = None,
    ) -> None:
        self.assign = assign
        self._services = services
        self._observed = observed or UnobservedAttempt(assign.trace_headers)
        self._first_token_due = True
        self._deadline = deadline  # on the event loop's clock
        self._started_at = asyncio.get_running_loop().time()
        self._ending: Ending | None = None
        self._stopping: Ending | None = None  # how a prefill leg ends if the engine can still stop it
        self._stop: asyncio.Task[None] | None = None
        self._cached_prompt_tokens = 0
        self._kv_transfer_params: Mapping[str, JsonValue] | None = None
        self._engine_has_it = False  # then the engine itself releases the KV that the request was to fetch
        self._kv_lease_ends_at: float | None = None  # on the event loop's clock
        # Not a method: the output would know the attempt, which would stay until garbage is collected.
        detokenizer = partial(services.text.detokenizer, assign.text, assign.prompt_token_ids)
        self._text: Detokenizer = detokenizer()
        self._task: asyncio.Task[None] | None = None
        continuation = assign.continuation
        self.output = AttemptOutput(
            assign.attempt,
            detokenizer=detokenizer,
            emitted=continuation.emitted_token_ids if continuation else (),
            emitted_text_length=continuation.emitted_text_length if continuation else 0,
            logprobs=assign.sampling.logprobs is not None,
            about=about_assigned(assign),
        )

    # --- start and end ------------------------------------------------------------------------------------------------

    def start(self, task: asyncio.Task[None]) -> None:
        """Note the task that ``run`` runs in, so that the attempt can be interrupted."""
        self._task = task

    def interrupt(self, cause: EndCause, message: str) -> None:
        """End the attempt early.  Without effect if the attempt is ending already."""
        task = self._task
        if self._ending is not None or self._stopping is not None or task is None or task.done():
            return
        ending = Ending(cause=cause, message=message)
        if self.assign.phase is Phase.PREFILLING and self._engine_has_it:
            # The leg may be over already, with its KV kept: then it must end as FINISHED, with its transfer parameters.
            self._stopping = ending
            self._stop = asyncio.get_running_loop().create_task(self._stop_leg(task, ending), name="stop-prefill")
        else:
            self._abort(task, ending)

    def _abort(self, task: asyncio.Task[None], ending: Ending) -> None:
        self._ending = self._ending or ending
        task.cancel()

    async def _stop_leg(self, task: asyncio.Task[None], ending: Ending) -> None:
        """Ask the engine to stop a prefill leg; ``_consume`` reads how the leg ended from the last output."""
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._services.engine.stop(engine_request_id(self.assign))
                await asyncio.wait([task])
        except TimeoutError:
            log.warning("the engine did not stop a prefill in %g s", STOP_TIMEOUT_S)
        except EngineError as error:
            log.warning("the engine did not stop a prefill: %s", error)
        finally:
            if not task.done():
                self._abort(task, ending)

    async def run(self, on_submitted: Callable[[], None]) -> None:
        """Generate until the end.

        ``on_submitted`` is called once: when the engine has the request, or when it is certain that it never will.
        """
        ABOUT.set(self.output.about[EXTRA])
        try:
            complete = self._complete_already()
            leg = None if complete else first_leg(self.assign, self._services.engine.facts)
        except InvalidRequestError as error:
            self._end(EndCause.INVALID, error.message, field_name=error.field_name)
            leg = None
        asyncio.get_running_loop().call_soon(on_submitted)
        if leg is None:
            return
        try:
            await self._generate(leg)
        except ReplayDiverged as divergence:
            await self._after_divergence(divergence)

    def conclude(self) -> None:
        """Report the end to the scheduler.  Call once, when the task is done, even if it failed or was cancelled."""
        ending = self._ending or Ending(cause=EndCause.FAILED, message="the executor failed to run the attempt")
        trailing = self._text.finish() if ending.cause is EndCause.FINISHED and not ending.stop_string else ""
        self.output.ended = Ended(
            attempt_number=self.assign.attempt.number,
            cause=ending.cause,
            total_tokens=len(self.output.token_ids),
            finish_reason=ending.finish_reason,
            stop_string=ending.stop_string,
            stop_token_id=ending.stop_token_id,
            trailing_text=trailing,
            cached_prompt_tokens=min(self._cached_prompt_tokens, len(self.assign.prompt_token_ids)),
            field_name=ending.field_name,
            message=ending.message or (KV_RECOMPUTED if self.output.kv_recomputed else ""),
            kv_transfer_params=self._kv_transfer_params,
            kv_lease_ends_at=self._kv_lease_ends_at,
            kv_unclaimed=self.assign.kv_transfer_params is not None and not self._engine_has_it,
            kv_recomputed=self.output.kv_recomputed,
            engine_time_s=asyncio.get_running_loop().time() - self._started_at,
            engine_died=ending.engine_died,
        )
        self._task = None  # a cancelled one knows the attempt by its traceback: both would stay
        self._services.outbox.ended(self.output)
        self._observed.ended(self.output.ended)

    def _end(
        self,
        cause: EndCause,
        message: str = "",
        *,
        field_name: str = "",
        finish_reason: FinishReason | None = None,
        stop_string: str = "",
        stop_token_id: int | None = None,
        engine_died: bool = False,
    ) -> None:
        if self._ending is None:
            self._ending = Ending(
                cause=cause,
                message=message,
                field_name=field_name,
                finish_reason=finish_reason,
                stop_string=stop_string,
                stop_token_id=stop_token_id,
                engine_died=engine_died,
            )

    # --- continuing an earlier attempt's output ----------------------------------------------------------------------

    def _complete_already(self) -> bool:
        """Feed the delivered tokens to the detokenizer.  Return True if they are the whole output, so that only its end
        was lost.
        """
        continuation = self.assign.continuation
        if continuation is None:
            return False
        emitted = continuation.emitted_token_ids
        complete = already_complete(self.assign, self._services.engine.facts, self._services.end_ids)
        undecoded = self._undecoded(complete.stop_token_id if complete else None)
        match = self._text.prime(emitted[: len(emitted) - undecoded], continuation.emitted_text_length)
        if match is not None:
            complete = Complete(finish_reason=FinishReason.STOP, stop_string=match.stop)
        if complete is None:
            return False
        self.output.undecoded = undecoded
        self._end(
            EndCause.FINISHED,
            finish_reason=complete.finish_reason,
            stop_string=complete.stop_string,
            stop_token_id=complete.stop_token_id,
        )
        return True

    async def _after_divergence(self, divergence: ReplayDiverged) -> None:
        continuation = self.assign.continuation
        if continuation is None or not continuation.best_effort:
            self._end(EndCause.REPLAY_DIVERGED, str(divergence))
            return
        log.warning(
            "replay diverged; the caller allows best effort, so generation goes on from the delivered tokens: %s",
            divergence,
        )
        await self._generate(resumed_leg(self.assign, self._services.engine.facts))

    # --- generating -------------------------------------------------------------------------------------------------

    async def _generate(self, leg: Leg) -> None:
        """Run one leg on the engine and note how it ended.  Raises ReplayDiverged."""
        outputs = self._services.engine.generate(leg.request)
        self._engine_has_it = True
        prefills = self.assign.phase is Phase.PREFILLING
        try:
            with self._stopped_at(self._deadline if prefills else None):
                async with asyncio.timeout_at(None if prefills else self._deadline):
                    await self._consume(outputs, leg)
        except TimeoutError:
            self._end(EndCause.DEADLINE, DEADLINE_PASSED)
        except InvalidRequestError as error:
            self._note_engine_refusal()
            self._end(EndCause.INVALID, error.message, field_name=error.field_name)
        except EngineDeadError as error:
            self._note_engine_refusal()
            self._end(EndCause.FAILED, f"the engine died: {error}", engine_died=True)
            self._services.on_dead(error)
        except EngineError as error:
            self._note_engine_refusal()
            self._end(EndCause.FAILED, str(error))
        finally:
            await self._release(outputs)

    @contextmanager
    def _stopped_at(self, deadline: float | None) -> Iterator[None]:
        """Stop a prefill leg at ``deadline`` through the engine.

        Cancelling its task could lose KV that is kept already.
        """
        if deadline is None:
            yield
            return
        timer = asyncio.get_running_loop().call_at(deadline, self.interrupt, EndCause.DEADLINE, DEADLINE_PASSED)
        try:
            yield
        finally:
            timer.cancel()

    def _note_engine_refusal(self) -> None:
        """Note that the engine refused the request.

        Before the first token the KV connector may not know the request, and then does not release its KV.
        """
        self._engine_has_it = not self._first_token_due

    async def _release(self, outputs: AsyncGenerator[EngineOutput, None]) -> None:
        """Have the engine release the request's KV and slot, if it still holds them."""
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await outputs.aclose()
        except TimeoutError:
            self._services.on_dead(EngineDeadError(f"the engine did not release a request in {RELEASE_TIMEOUT_S:g} s"))
        except EngineDeadError as error:
            self._services.on_dead(error)

    async def _consume(self, outputs: AsyncGenerator[EngineOutput, None], leg: Leg) -> None:
        replay = Replay(leg.replayed) if leg.replayed else None
        async for output in outputs:
            if replay is not None:
                output = self._without_replayed(output, replay)
                if replay.done:
                    replay = None
            if self._take(output):
                return
        self._end(EndCause.FAILED, "the engine ended the request without a reason")

    def _without_replayed(self, output: EngineOutput, replay: Replay) -> EngineOutput:
        skipped = replay.skip(output.token_ids)
        if output.finish_reason is not None and output.finish_reason is not FinishReason.ABORTED:
            replay.check_complete()
        if skipped:
            output.token_ids = output.token_ids[skipped:]
            if output.logprobs is not None:
                output.logprobs = output.logprobs[skipped:]
        return output

    def _take(self, output: EngineOutput) -> bool:
        """Process one engine output.  Return True if it is the attempt's last one."""
        if output.cached_prompt_tokens is not None:
            self._cached_prompt_tokens = output.cached_prompt_tokens
        if output.kv_pull_failed:
            self.output.kv_recomputed = True
            log.warning(KV_RECOMPUTED)
        if self.assign.phase is Phase.PREFILLING:
            return output.finish_reason is not None and self._prefilled(output, output.finish_reason)
        token_ids = output.token_ids
        match: StopMatch | None = None
        if token_ids:
            undecoded = self._undecoded(output.stop_token_id)
            match = self._text.feed(token_ids[:-1] if undecoded else token_ids)
            logprobs = output.logprobs
            if match is not None:
                token_ids = token_ids[: match.consumed]
                logprobs = logprobs and logprobs[: match.consumed]
            elif undecoded:
                self.output.undecoded = undecoded
            self._put(token_ids, logprobs)
        if match is not None:
            self._end(EndCause.FINISHED, finish_reason=FinishReason.STOP, stop_string=match.stop)
            return True
        return output.finish_reason is not None and self._finished(output, output.finish_reason)

    def _put(self, token_ids: Sequence[int], logprobs: list[list[TokenLogprob]] | None) -> None:
        output = self.output
        if self._first_token_due and token_ids:
            self._first_token_due = False
            self._observed.first_token()
        output.append(token_ids, self._text.take(), logprobs)
        if not output.queued:
            self._services.outbox.tokens(output)

    def _undecoded(self, stop_token_id: int | None) -> int:
        """Return how many tokens at the end give no text: 1 for a stop token whose text is not wanted, else 0."""
        return 0 if stop_token_id is None or self.assign.text.include_stop_in_output else 1

    def _prefilled(self, output: EngineOutput, reason: FinishReason) -> bool:
        """Process the last output of a prefill leg: report its KV and drop its token."""
        lease_s = self._services.engine.facts.kv_lease_s
        if reason is FinishReason.ABORTED and self._stopping is not None:
            self._ending = self._stopping
        elif output.kv_transfer_params is None or lease_s is None:
            self._end(EndCause.FAILED, "the engine kept no KV of the prompt to be fetched")
        else:
            self._kv_transfer_params = output.kv_transfer_params
            self._kv_lease_ends_at = asyncio.get_running_loop().time() + lease_s - output.kv_kept_s
            self._end(EndCause.FINISHED, finish_reason=reason)
        return True

    def _finished(self, output: EngineOutput, reason: FinishReason) -> bool:
        if reason is FinishReason.ABORTED:
            self._end(EndCause.FAILED, "the engine aborted the request")
        else:
            self._end(EndCause.FINISHED, finish_reason=reason, stop_token_id=output.stop_token_id)
        return True
