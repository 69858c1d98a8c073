"""An attempt that generates a request's output: what its events do to the request."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from scheduler_svc.control.attempts.attempt_listener import Loss
from scheduler_svc.control.attempts.executor_link import KvHandoff
from scheduler_svc.control.attempts.leg_attempt import LegAttempt
from scheduler_svc.control.attempts.request_runner import RequestRunner
from scheduler_svc.control.attempts.summary import summary
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.control.requests.output_log import OutputGap
from scheduler_svc.control.requests.prompt_facts import PromptFacts
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.decision import Decision, Phase
from scheduler_svc.domain.engine_facts import DIMENSIONS_LIMIT
from scheduler_svc.domain.errors import DeadlineExceeded, FieldViolation, GenerationFailed, InvalidRequest
from scheduler_svc.domain.media import field_of_media
from scheduler_svc.domain.request import Embedding
from scheduler_svc.domain.scheduler import PROGRESS_TOKENS

log = logging.getLogger(__name__)

FLOAT_BYTES = 4


class RequestAttempt(LegAttempt):
    """Implements AttemptListener for an attempt that runs a whole request.

    ``DecodeLeg`` extends it with the KV that a decode leg fetches.
    """

    def __init__(self, runner: RequestRunner, live: LiveRequest, decision: Decision) -> None:
        super().__init__(runner, live, decision)
        self._number = decision.attempt_number
        self._has_token = False
        # Output tokens that the reservation covers, those of earlier attempts included.
        self._reserved_tokens = len(live.output) + decision.prediction.output_tokens

    def send(self, *, phase: Phase = Phase.HYBRID, fetch: KvHandoff | None = None) -> bool:
        """Send the attempt to its executor; False if the executor has no session."""
        return self._send(self, phase, fetch)

    # --- AttemptListener --------------------------------------------------------------------------

    def tokens(
        self,
        first_index: int,
        token_ids: Sequence[int],
        text: str,
        logprobs: Sequence[bytes] | None,
        kv_recomputed: bool,
    ) -> None:
        """Append new output to the request and wake its readers.

        Output that does not fit what is there ends the attempt, and the request goes on elsewhere.
        """
        try:
            fresh = self.live.output.append(self._number, first_index, token_ids, text, logprobs)
        except OutputGap as gap:
            self._distrust(str(gap))
            return
        if fresh:
            self._arrived(self._runner.clock.now(), kv_recomputed)

    def token(self, first_index: int, token_id: int, text: str, now: float) -> None:
        """Append one new token, as ``tokens`` does."""
        try:
            fresh = self.live.output.append_token(self._number, first_index, token_id, text)
        except OutputGap as gap:
            self._distrust(str(gap))
            return
        if fresh:
            self._arrived(now, kv_recomputed=False)

    def prompt(self, facts: PromptFacts) -> None:
        """Note what the engine tells of the prompt, of the attempt that gives the first token."""
        live = self.live
        if self._begins_at:
            return
        wanted = live.request.prompt_tokens if live.request.sampling.prompt_logprobs is not None else 0
        if len(facts.logprobs) != wanted:
            self._distrust(f"it sent log probabilities of {len(facts.logprobs)} prompt tokens; {wanted} are wanted")
            return
        live.prompt = facts

    def _arrived(self, now: float, kv_recomputed: bool) -> None:
        """Note that new output is there, and wake its readers."""
        live = self.live
        if not self._has_token:
            self._has_token = True
            self._first_token(now, kv_recomputed)
        if len(live.output.token_ids) > self._reserved_tokens:
            self._outgrow()
        live.last_token_at = now
        if live.setbacks.alone:
            self._runner.outlived(live, self._number, self.fresh_tokens)
        for reader in live.readers:
            reader.wake()

    def rejected(self, reason: str, message: str, *, counted: bool) -> None:
        """Requeue the request away from this instance."""
        instance_id = self.decision.instance_id
        if counted:
            self._runner.note_rejection(instance_id, reason)
        self._over()
        if counted:
            why = f"{instance_id} rejected it: {reason} {message}".rstrip()
            self._runner.requeue(self.live, why, FailoverCause.REJECTED, excluded=instance_id)

    def ended(self, end: AttemptEnd, *, counted: bool) -> LiveRequest | None:
        """Free the attempt's capacity, learn from its length, and draw the conclusion for the request.

        Returns the request if it ended with the attempt.
        """
        self._reported(end)
        self._over(output_tokens=end.total_tokens or None, finished=end.cause is EndCause.FINISHED)
        if not counted:
            return None
        self._conclude(end)
        return self.live if self.live.state.ended else None

    def lost(self, loss: Loss) -> None:
        """Requeue the request."""
        self._charge_lost()
        if loss.capacity_is_free:
            self._over()
        else:
            self._runner.current.over(self.live, self)
        if loss.counted:
            excluded = self.decision.instance_id if loss.blames_instance else ""
            self._runner.requeue(self.live, loss.why, loss.cause, excluded=excluded, death=self.death(loss))

    # --- inside -----------------------------------------------------------------------------------

    def _over(self, *, output_tokens: int | None = None, finished: bool = False) -> None:
        tokens = output_tokens if output_tokens is not None else len(self.live.output) or None
        self._runner.release(self.decision.attempt_number, output_tokens=tokens, finished=finished)
        self._runner.current.over(self.live, self)

    def _first_token(self, now: float, kv_recomputed: bool) -> None:
        """Record the attempt's first token: its prefill is over, which frees capacity for waiting requests."""
        live, scheduler = self.live, self._runner.scheduler
        scheduler.first_token(self.decision.attempt_number, now)
        instance = scheduler.find_instance(self.decision.instance_id)
        if live.identity is None and instance is not None and instance.facts is not None:
            live.identity = instance.facts.identity_for(live.request.adapter)
        live.observed.first_token(live, now)
        self._fetched(now, kv_recomputed=kv_recomputed)
        live.note_first_token(now, self.decision.instance_id)
        self._runner.capacity_changed()

    def _outgrow(self) -> None:
        """Have the reservation follow an output that is longer than predicted, every ``PROGRESS_TOKENS`` tokens."""
        tokens = len(self.live.output)
        self._runner.scheduler.progress(self.decision.attempt_number, tokens)
        self._reserved_tokens = tokens + PROGRESS_TOKENS

    def _fetched(self, now: float, *, kv_recomputed: bool) -> None:
        """Do nothing: only a decode leg fetches KV."""

    def _distrust(self, why: str) -> None:
        """End an attempt whose output does not fit, and requeue its request."""
        live, instance_id = self.live, self.decision.instance_id
        number = self.decision.attempt_number
        log.error("attempt %d of %s on %s: %s", number, live.key, instance_id, why, extra=live.about)
        self.stop(why)
        self._runner.requeue(live, why, FailoverCause.MISMATCH, excluded=instance_id)

    def _conclude(self, end: AttemptEnd) -> None:
        """End the request, or requeue it, by how its attempt ended."""
        live, runner, instance_id = self.live, self._runner, self.decision.instance_id
        match end.cause:
            case EndCause.FINISHED:
                self._finish(end)
            case EndCause.INVALID:
                field = field_of_media(end.field, live.request.media)
                runner.requests.end(live, InvalidRequest([FieldViolation(field=field, description=end.message)]))
            case EndCause.DEADLINE:
                runner.requests.end(live, DeadlineExceeded(f"after {len(live.output)} output tokens"))
            case EndCause.REPLAY_DIVERGED:
                message = f"could not be continued after its instance failed: {end.message}"
                runner.requests.end(live, GenerationFailed(message, attempts=live.attempts))
            case EndCause.CANCELLED:
                # An attempt that the scheduler cancels is fenced, so it was its executor that is shutting down.
                why = f"{instance_id} gave it back: {end.message}"
                runner.requeue(live, why, FailoverCause.RETURNED, excluded=instance_id)
            case EndCause.FAILED:
                why = f"{instance_id} failed it: {end.message}"
                runner.requeue(live, why, FailoverCause.FAILED, excluded=instance_id, death=self.death(end))
                if not end.kv_unclaimed and not end.engine_died:  # else the pair failed, or the engine is gone
                    runner.events.attempt_failed(instance_id, end.message, live.key)

    def _finish(self, end: AttemptEnd) -> None:
        live, runner, instance_id = self.live, self._runner, self.decision.instance_id
        if end.total_tokens != len(live.output):
            why = f"{instance_id} counts {end.total_tokens} output tokens, {len(live.output)} arrived"
            runner.requeue(live, why, FailoverCause.MISMATCH, excluded=instance_id)
            return
        unusable = _unusable(end.embedding, live.request.embedding)
        if unusable:
            runner.requeue(live, f"{instance_id} {unusable}", FailoverCause.MISMATCH, excluded=instance_id)
            return
        runner.events.attempt_succeeded(instance_id)
        live.output.close(end.trailing_text)
        runner.requests.end(live, summary(live, end, runner.clock.now()))


def _unusable(vector: bytes, wanted: Embedding | None) -> str:
    """Say why a finished attempt did not give what its request asks for; empty if it did."""
    if wanted is None:
        return "sent a vector of a request that generates" if vector else ""
    size, rest = divmod(len(vector), FLOAT_BYTES)
    if rest or not size or size > DIMENSIONS_LIMIT:
        return f"sent a vector of {len(vector)} bytes"
    if wanted.dimensions is not None and size != wanted.dimensions:
        return f"sent a vector of {size} numbers; the request asks for {wanted.dimensions}"
    return ""
