"""Admission: turns a submission into an accepted request in its model's queue, or refuses it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage_common.clock import Clock
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.model_directory import ModelDirectory
from scheduler_svc.control.requests.observer import NULL_OBSERVER, Observer, RequestObserver
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.requests.submission import ChatPrompt, Submission, TextPrompt, TokenPrompt
from scheduler_svc.control.requests.subscription import Subscription
from scheduler_svc.control.requests.tokenizers import PromptError, Tokenizers
from scheduler_svc.control.timing.loop_lag import LoopLag
from scheduler_svc.control.timing.time_limit import TimeLimit
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain import admission
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.errors import (
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    QueueFull,
    RequestCancelled,
    RequestConflict,
    ShuttingDown,
)
from scheduler_svc.domain.request import Request, RequestKey, RequestState, Sampling
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

CLIENT_GONE = "the client went away"
"""The reason for cancelling a request that no client reads any more."""

PROMPT_FIELDS = ("spec.prompt", "spec.text", "spec.tokens", "spec.chat")
"""Fields that a violation of the prompt names.  After one of them the prompt's length and ids are not checked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IntakeSettings:
    """Limits and defaults of admission."""

    arriving_limit: int = 4_096  # requests being validated and tokenized at the same time
    default_deadline_s: float = 3_600.0  # for requests without one, so that none waits for ever
    sampling_defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by model


class _Arrival:
    """A submission that is being validated and tokenized."""

    __slots__ = ("digest", "done")

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self.done = asyncio.Event()  # set when it is accepted or refused


class Intake:
    """Admits requests, attaches clients to requests that were admitted before, and cancels requests."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        requests: RequestTable,
        tokenizers: Tokenizers,
        models: ModelDirectory,
        loop_lag: LoopLag,
        wakeup: Wakeup,
        settings: IntakeSettings,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._requests = requests
        self._tokenizers = tokenizers
        self._models = models
        self._loop_lag = loop_lag
        self._wakeup = wakeup
        self._settings = settings
        self._observer = observer
        self._arriving: dict[RequestKey, _Arrival] = {}
        self._closed = False

    async def submit(self, submission: Submission) -> Subscription:
        """Accept a request, or attach to the one that has its id and content.

        Raises InvalidRequest, UnknownModel, RequestConflict, QueueFull, NoInstance, DeadlineExceeded, ShuttingDown.
        """
        arrived_at = self._clock.now()
        observed = self._observer.arrived(submission, arrived_at)
        try:
            return await self._enter(submission, arrived_at, observed)
        except BaseException as error:
            observed.refused(error, self._clock.now())
            raise

    async def _enter(self, submission: Submission, arrived_at: float, observed: RequestObserver) -> Subscription:
        key = submission.key
        while (twin := self._arriving.get(key)) is not None:
            if twin.digest != submission.digest:
                raise RequestConflict(key.request_id)
            await twin.done.wait()  # bounded: the deadline is part of the content
        known = self._requests.find(key)
        if known is not None:
            return self._attach(known, submission)
        if self._closed:
            raise ShuttingDown
        if len(self._arriving) >= self._settings.arriving_limit:
            raise QueueFull(submission.model, self._settings.arriving_limit, 1.0)
        here = self._arriving[key] = _Arrival(submission.digest)
        try:
            request, warnings = await self._request(submission, arrived_at)
            live = self._accept(request, submission, warnings, observed)
        finally:
            del self._arriving[key]
            here.done.set()
        return Subscription(live, self._loop_lag, after_token=submission.after_token, attached=False)

    async def first_pass(self, subscription: Subscription) -> None:
        """Wait until the scheduling pass after a request's acceptance is over, whether it placed the request or not.

        If it did, the Assign is written to the executor before the caller goes on (``Wakeup.answered``).
        """
        if not subscription.attached and subscription.live.state is RequestState.QUEUED:
            await self._wakeup.answered()

    def leave(self, subscription: Subscription) -> None:
        """Note that a client's stream is over; cancel the request if no client reads it and it is not detached."""
        subscription.close()
        live = subscription.live
        if not live.readers and not live.detached and not live.state.ended:
            self._requests.end(live, RequestCancelled(CLIENT_GONE))

    def cancel(self, key: RequestKey, reason: str) -> tuple[bool, LiveRequest]:
        """Cancel a request; the flag is False if it had ended.  Raises RequestNotFound."""
        live = self._requests.get(key)
        return self._requests.end(live, RequestCancelled(reason)), live

    def expected_wait_s(self, live: LiveRequest) -> float:
        """Predict how long a new request for the same model would wait, in seconds."""
        return self._scheduler.expected_wait(live.request.model, self._clock.now())

    def close(self) -> None:
        """Refuse new requests from here on."""
        self._closed = True

    # --- steps ------------------------------------------------------------------------------------

    def _attach(self, live: LiveRequest, submission: Submission) -> Subscription:
        if live.digest != submission.digest:
            raise RequestConflict(submission.key.request_id)
        return Subscription(live, self._loop_lag, after_token=submission.after_token, attached=True)

    async def _request(self, submission: Submission, arrived_at: float) -> tuple[Request, tuple[str, ...]]:
        deadline_s = submission.deadline_s if submission.deadline_s is not None else self._settings.default_deadline_s
        violations = list(submission.violations)
        if deadline_s <= 0 and not violations:
            raise DeadlineExceeded("before it arrived")
        model, facts = await self._models.resolve(
            submission.model,
            wait=submission.wait_for_instance and not violations,
            until=arrived_at + deadline_s,
        )
        sampling = {**self._settings.sampling_defaults.get(model, {}), **submission.sampling}
        token_ids = await self._token_ids(submission, facts, violations, arrived_at + max(deadline_s, 0.0))
        sampling.setdefault("max_tokens", max(1, facts.max_model_len - len(token_ids)))
        request = Request(
            key=submission.key,
            model=model,
            prompt_token_ids=token_ids,
            sampling=Sampling(**sampling),
            priority=submission.priority,
            arrived_at=arrived_at,
            deadline_at=arrived_at + deadline_s,
            deadline_stated=submission.deadline_s is not None,
            ttft_target_s=submission.ttft_target_s,
            tpot_target_s=submission.tpot_target_s,
            cost_budget=submission.cost_budget,
            session=submission.session,
            preferred_instance=submission.preferred_instance,
            adapter=submission.adapter,
            wait_for_instance=submission.wait_for_instance,
            resume_mode=submission.resume_mode,
            tags=submission.tags,
            trace_headers=submission.trace_headers,
        )
        prompt_is_at_fault = any(v.field.startswith(PROMPT_FIELDS) or v.field == "spec" for v in violations)
        prompt_known = submission.prompt is not None and not prompt_is_at_fault
        violations += admission.check(request, facts, prompt_known=prompt_known)
        if violations:
            raise InvalidRequest(_first_per_field(violations))
        return request, admission.warnings(request, facts)

    async def _token_ids(
        self, submission: Submission, facts: EngineFacts, violations: list[FieldViolation], until: float
    ) -> Sequence[int]:
        """Return the prompt's token ids; none if the prompt is at fault, and then ``violations`` say why.

        Raises DeadlineExceeded at ``until``: a chat template is a program of the model's author and may never end.
        """
        prompt, known = submission.prompt, facts.tokenizer_hash
        if isinstance(prompt, TokenPrompt):
            return prompt.token_ids
        try:
            async with TimeLimit(self._clock, until, "while its prompt was tokenized"):
                if isinstance(prompt, TextPrompt):
                    return await self._tokenizers.encode(known, prompt.text, special_tokens=prompt.special_tokens)
                if isinstance(prompt, ChatPrompt):
                    return await self._tokenizers.encode_chat(known, prompt.conversation)
        except PromptError as error:
            field_name = "spec.chat" if isinstance(prompt, ChatPrompt) else "spec.text"
            violations.append(FieldViolation(field=field_name, description=str(error)))
        return ()

    def _accept(
        self, request: Request, submission: Submission, warnings: tuple[str, ...], observed: RequestObserver
    ) -> LiveRequest:
        now = self._clock.now()
        ahead = self._scheduler.admit(request, now)
        live = LiveRequest(
            request=request,
            digest=submission.digest,
            detached=submission.detached,
            warnings=warnings,
            observed=observed,
        )
        self._requests.admit(live)
        live.note(request.arrived_at, "accepted", f"{request.prompt_tokens} prompt tokens for {request.model}")
        if ahead:
            live.note(now, "queued", ahead)
        observed.accepted(live, now)
        self._wakeup.notify()
        return live


def _first_per_field(violations: list[FieldViolation]) -> list[FieldViolation]:
    """Keep one violation per field: the first, which is the most basic."""
    found: dict[str, FieldViolation] = {}
    for violation in violations:
        found.setdefault(violation.field, violation)
    return list(found.values())
