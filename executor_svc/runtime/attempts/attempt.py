"""One attempt: takes the engine's outputs, sends pieces of output and exactly one end to the scheduler.

``stepped_run`` and ``streamed_run`` run an attempt on the engine and give it the outputs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial

from executor_svc.runtime.attempts.ending import Ending
from executor_svc.runtime.attempts.leg import Complete, Leg, already_complete, first_leg
from executor_svc.runtime.attempts.replay import ReplayDiverged
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
from executor_svc.runtime.log_context import about_assigned
from executor_svc.runtime.messages.commands import Assign, Phase
from executor_svc.runtime.messages.outputs import EndCause, Ended, PromptFacts
from executor_svc.runtime.observer import AttemptObserver, UnobservedAttempt
from executor_svc.runtime.outputs.attempt_output import AttemptOutput
from executor_svc.runtime.text.detokenizer import Detokenizer, StopMatch

log = logging.getLogger(__name__)

DEADLINE_PASSED = "the caller's deadline passed"
LONGEST_MESSAGE = 2048  # characters; an engine's message may quote all of a request, and a frame has many ends
KV_RECOMPUTED = "the KV of its prompt could not be fetched and was computed here"


class Attempt:
    """The output of one attempt and how it ends.

    ``begin`` comes first.  When the run is over and ``conclude`` was called, ``output.ended`` is set and the engine
    holds nothing for the attempt.
    """

    def __init__(self, assign: Assign, services: AttemptServices, observed: AttemptObserver | None = None) -> None:
        self.assign = assign
        self.services = services
        self.ending: Ending | None = None  # the first one counts
        self.stopping: Ending | None = None  # how a prefill leg ends if the engine can still stop it
        self.engine_has_it = False  # then the engine itself releases the KV that the request was to fetch
        self._observed = observed or UnobservedAttempt(assign.trace_headers)
        self._first_token_due = True
        self._started_at = asyncio.get_running_loop().time()
        self._cached_prompt_tokens = 0
        self._embedding = b""
        self._kv_transfer_params: Mapping[str, JsonValue] | None = None
        self._kv_lease_ends_at: float | None = None  # on the event loop's clock
        # Not a method: the output would know the attempt, which would stay until garbage is collected.
        detokenizer = partial(services.text.detokenizer, assign.text, assign.prompt_token_ids)
        self._text: Detokenizer = detokenizer()
        continuation = assign.continuation
        self.output = AttemptOutput(
            assign.attempt,
            detokenizer=detokenizer,
            emitted=continuation.emitted_token_ids if continuation else (),
            emitted_text_length=continuation.emitted_text_length if continuation else 0,
            logprobs=assign.sampling.logprobs is not None,
            about=about_assigned(assign),
            assign=assign,
            received_at=asyncio.get_running_loop().time(),
        )

    @property
    def prefills(self) -> bool:
        """Whether it computes only the prompt, for another instance."""
        return self.assign.phase is Phase.PREFILLING

    # --- beginning ----------------------------------------------------------------------------------------------------

    def begin(self) -> Leg | None:
        """Return what the engine is to run; None if nothing: ``ending`` then says how the attempt ends."""
        try:
            return None if self._complete_already() else first_leg(self.assign, self.services.engine.facts)
        except InvalidRequestError as error:
            self.fail(error)
            return None

    def _complete_already(self) -> bool:
        """Feed the delivered tokens to the detokenizer.  Return True if they are the whole output, so that only its end
        was lost.
        """
        continuation = self.assign.continuation
        if continuation is None:
            return False
        emitted = continuation.emitted_token_ids
        complete = already_complete(self.assign, self.services.engine.facts, self.services.end_ids)
        undecoded = self._undecoded(complete.stop_token_id if complete else None)
        match = self._text.prime(emitted[: len(emitted) - undecoded], continuation.emitted_text_length)
        if match is not None:
            complete = Complete(finish_reason=FinishReason.STOP, stop_string=match.stop)
        if complete is None:
            return False
        self.output.undecoded = undecoded
        self.end(
            Ending(
                cause=EndCause.FINISHED,
                finish_reason=complete.finish_reason,
                stop_string=complete.stop_string,
                stop_token_id=complete.stop_token_id,
            )
        )
        return True

    # --- ending -------------------------------------------------------------------------------------------------------

    def end(self, ending: Ending) -> None:
        """Note how the attempt ends.  Without effect if it is ending already."""
        if self.ending is None:
            self.ending = ending

    def fail(self, error: EngineError | InvalidRequestError) -> None:
        """End with what the engine raised: INVALID for the caller's fault, else FAILED."""
        if isinstance(error, InvalidRequestError):
            self.end(Ending(cause=EndCause.INVALID, message=error.message, field_name=error.field_name))
        elif isinstance(error, EngineDeadError):
            self.end(Ending(cause=EndCause.FAILED, message=f"the engine died: {error}", engine_died=True))
            self.services.on_dead(error)
        else:
            self.end(Ending(cause=EndCause.FAILED, message=str(error)))

    def diverged(self, divergence: ReplayDiverged) -> bool:
        """End because a replay diverged; return True if the caller allows to go on from the delivered tokens."""
        continuation = self.assign.continuation
        if continuation is None or not continuation.best_effort:
            self.end(Ending(cause=EndCause.REPLAY_DIVERGED, message=str(divergence)))
            return False
        log.warning(
            "replay diverged; the caller allows best effort, so generation goes on from the delivered tokens: %s",
            divergence,
        )
        return True

    def conclude(self) -> None:
        """Report the end to the scheduler.  Call once, when the run is over, even if it failed or was cancelled."""
        ending = self.ending or Ending(cause=EndCause.FAILED, message="the executor failed to run the attempt")
        trailing = self._text.finish() if ending.cause is EndCause.FINISHED and not ending.stop_string else ""
        self.output.ended = Ended(
            attempt=self.assign.attempt,
            cause=ending.cause,
            total_tokens=len(self.output.token_ids),
            finish_reason=ending.finish_reason,
            stop_string=ending.stop_string,
            stop_token_id=ending.stop_token_id,
            trailing_text=trailing,
            cached_prompt_tokens=min(self._cached_prompt_tokens, self.assign.prompt_tokens),
            field_name=ending.field_name,
            message=ending.message[:LONGEST_MESSAGE] or (KV_RECOMPUTED if self.output.kv_recomputed else ""),
            kv_transfer_params=self._kv_transfer_params,
            kv_lease_ends_at=self._kv_lease_ends_at,
            kv_unclaimed=self.assign.kv_transfer_params is not None and not self.engine_has_it,
            kv_recomputed=self.output.kv_recomputed,
            engine_time_s=asyncio.get_running_loop().time() - self._started_at,
            engine_died=ending.engine_died,
            embedding=self._embedding if ending.cause is EndCause.FINISHED else b"",
        )
        self.services.outbox.ended(self.output)
        self._observed.ended(self.output.ended)

    # --- the engine's outputs -----------------------------------------------------------------------------------------

    @property
    def has_token(self) -> bool:
        """Whether a token of its own came."""
        return not self._first_token_due

    def take_tokens(self, token_ids: list[int]) -> bool:
        """Take new tokens of which there is nothing more to say.  Return True if they complete a stop string."""
        if self.assign.text.stop:
            match = self._text.feed(token_ids)
            if match is not None:
                self._stopped_by(match, token_ids, None)
                return True
            text = self._text.take()
        else:
            text = self._text.push(token_ids)
        if self._first_token_due:
            self._note_first_token()
        self.services.outbox.step(self.output, token_ids, text)
        return False

    def take(self, output: EngineOutput) -> bool:
        """Take one engine output.  Return True if it is the attempt's last one."""
        if output.cached_prompt_tokens is not None:
            self._cached_prompt_tokens = output.cached_prompt_tokens
            self._tell_of_prompt(output)
        if output.kv_pull_failed:
            self.output.use_pieces()
            log.warning(KV_RECOMPUTED)
        if output.embedding is not None:
            self._embedding = output.embedding
        if self.prefills:
            return output.finish_reason is not None and self._prefilled(output, output.finish_reason)
        token_ids = output.token_ids
        if token_ids:
            undecoded = self._undecoded(output.stop_token_id)
            match = self._text.feed(token_ids[:-1] if undecoded else token_ids)
            if match is not None:
                self._stopped_by(match, token_ids, output.logprobs)
                return True
            if undecoded:
                self.output.undecoded = undecoded
            self._put(token_ids, output.logprobs)
        return output.finish_reason is not None and self._finished(output, output.finish_reason)

    def _tell_of_prompt(self, output: EngineOutput) -> None:
        """Report what the engine tells of the prompt, unless an earlier attempt did, or there is nothing to tell."""
        wanted = self.assign.sampling.prompt_logprobs is not None
        if self.prefills or self.assign.continuation is not None or not (output.cached_prompt_tokens or wanted):
            return
        cached = min(output.cached_prompt_tokens or 0, self.assign.prompt_tokens)
        self.output.tell_of_prompt(
            PromptFacts(cached_tokens=cached, logprobs=output.prompt_logprobs if wanted else None)
        )

    def _stopped_by(
        self, match: StopMatch, token_ids: Sequence[int], logprobs: list[list[TokenLogprob]] | None
    ) -> None:
        """Put out the tokens up to a stop string, which ends the attempt."""
        self._put(token_ids[: match.consumed], logprobs and logprobs[: match.consumed])
        self.end(Ending(cause=EndCause.FINISHED, finish_reason=FinishReason.STOP, stop_string=match.stop))

    def _put(self, token_ids: Sequence[int], logprobs: list[list[TokenLogprob]] | None) -> None:
        output = self.output
        if self._first_token_due and token_ids:
            self._note_first_token()
        if logprobs is None:
            self.services.outbox.step(output, token_ids, self._text.take())
            return
        output.append(token_ids, self._text.take(), logprobs)
        self.services.outbox.tokens(output)

    def _note_first_token(self) -> None:
        self._first_token_due = False
        self.output.first_token_at = asyncio.get_running_loop().time()
        self._observed.first_token()

    def _undecoded(self, stop_token_id: int | None) -> int:
        """Return how many tokens at the end give no text: 1 for a stop token whose text is not wanted, else 0."""
        return 0 if stop_token_id is None or self.assign.text.include_stop_in_output else 1

    def _prefilled(self, output: EngineOutput, reason: FinishReason) -> bool:
        """Process the last output of a prefill leg: report its KV and drop its token."""
        lease_s = self.services.engine.facts.kv_lease_s
        if reason is FinishReason.ABORTED and self.stopping is not None:
            self.ending = self.stopping
        elif output.kv_transfer_params is None or lease_s is None:
            self.end(Ending(cause=EndCause.FAILED, message="the engine kept no KV of the prompt to be fetched"))
        else:
            self._kv_transfer_params = output.kv_transfer_params
            self._kv_lease_ends_at = asyncio.get_running_loop().time() + lease_s - output.kv_kept_s
            self.end(Ending(cause=EndCause.FINISHED, finish_reason=reason))
        return True

    def _finished(self, output: EngineOutput, reason: FinishReason) -> bool:
        if reason is FinishReason.ABORTED:
            self.end(Ending(cause=EndCause.FAILED, message="the engine aborted the request"))
        else:
            self.end(Ending(cause=EndCause.FINISHED, finish_reason=reason, stop_token_id=output.stop_token_id))
        return True
