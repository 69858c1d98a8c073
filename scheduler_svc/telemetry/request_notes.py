"""The notes kept of a sampled request while it lives, from which its spans are written after its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from opentelemetry.trace import SpanContext

from sage_telemetry.trace_context import child_of
from scheduler_svc.control.requests.observed_request import ObservedRequest
from scheduler_svc.control.requests.submission import ChatPrompt, Prompt, Submission, TextPrompt, TokenPrompt
from scheduler_svc.control.watching.attainment import NOTHING_COUNTS, Attainment
from scheduler_svc.domain.decision import Decision, Phase
from scheduler_svc.domain.request import Priority, RequestKey
from scheduler_svc.telemetry.decision_note import DecisionNote, note_on
from scheduler_svc.telemetry.request_content import Message, messages


@dataclass(slots=True, kw_only=True)
class WaitNote:
    """One stay in the queue.  Times are seconds on the control clock."""

    since: float
    resumed: bool  # after a failed attempt
    until: float | None = None  # None: until the request's end
    left_behind: int = 0  # requests of its model that still waited when it was placed


@dataclass(slots=True, kw_only=True)
class AttemptNote:
    """One attempt of the request.  Times are seconds on the control clock."""

    context: SpanContext
    number: int
    instance_id: str
    phase: Phase
    from_token: int
    continuation: str | None  # how it goes on after delivered tokens; None if there are none
    sent_at: float
    first_token_at: float | None = None
    ended_at: float | None = None
    end: str = ""  # the executor's cause, the cause of the failover, or the state in which the request ended
    failure: str | None = None  # in words
    retries: AttemptNote | None = None  # the failed attempt that this one continues

    def close(self, at: float, end: str, failure: str | None = None) -> None:
        """Note how the attempt ended, unless an end is noted already."""
        if self.ended_at is None:
            self.ended_at, self.end, self.failure = at, end, failure

    def fail(self, at: float, end: str, failure: str) -> None:
        """Note that the attempt failed its request; the time of an end noted before stays."""
        self.ended_at = self.ended_at if self.ended_at is not None else at
        self.end, self.failure = end, failure

    @property
    def handed_over(self) -> bool:
        """Whether this is a prefill leg that finished, so that decode could fetch its KV."""
        return self.phase is Phase.PREFILLING and self.ended_at is not None and self.failure is None


@dataclass(slots=True, kw_only=True)
class RequestNotes:
    """The notes of one request.

    Times are seconds on the control clock; ``zero_ns`` is the zero of that clock in nanoseconds since 1970.
    """

    context: SpanContext
    parent: SpanContext | None  # the caller's span
    key: RequestKey
    model: str  # as the caller named it
    priority: Priority
    prompt_kind: str  # text, chat, tokens; empty if the prompt was at fault
    content: list[Message] | None = None  # of the prompt; only with telemetry.content
    session: str = ""
    targets: Mapping[str, float | None]  # ttft, tpot, deadline, as stated; seconds
    arrived_at: float
    accepted_at: float | None = None
    waits: list[WaitNote] = field(default_factory=list)
    decisions: list[DecisionNote] = field(default_factory=list)
    attempts: list[AttemptNote] = field(default_factory=list)
    ended_at: float = 0.0
    zero_ns: int = 0
    attainment: Attainment = NOTHING_COUNTS

    @property
    def attempt(self) -> AttemptNote | None:
        """The latest attempt; None before the first."""
        return self.attempts[-1] if self.attempts else None


PROMPT_KINDS: dict[type[Prompt], str] = {TextPrompt: "text", ChatPrompt: "chat", TokenPrompt: "tokens"}


def notes_on(
    submission: Submission, context: SpanContext, parent: SpanContext | None, now: float, *, content: bool
) -> RequestNotes:
    """Begin the notes of a request that arrives now.  Without ``content`` they hold nothing of its prompt."""
    prompt = submission.prompt
    return RequestNotes(
        context=context,
        parent=parent,
        key=submission.key,
        model=submission.model,
        priority=submission.priority,
        prompt_kind=PROMPT_KINDS[type(prompt)] if prompt is not None else "",
        content=messages(prompt) if content and prompt is not None else None,
        session=submission.session,
        targets={
            "ttft": submission.ttft_target_s,
            "tpot": submission.tpot_target_s,
            "deadline": submission.deadline_s,
        },
        arrived_at=now,
    )


def notes_on_adopted(
    live: ObservedRequest, decision: Decision | None, context: SpanContext, parent: SpanContext | None, now: float
) -> RequestNotes:
    """Begin the notes of a request that an earlier scheduler accepted; they hold nothing of its prompt.

    ``decision``: where its attempt runs; None: it waits.
    """
    request = live.request
    deadline_s = None
    if request.deadline_stated and request.deadline_at is not None:
        deadline_s = request.deadline_at - request.arrived_at
    wait = WaitNote(since=request.arrived_at, resumed=False)
    notes = RequestNotes(
        context=context,
        parent=parent,
        key=live.key,
        model=request.model,
        priority=request.priority,
        prompt_kind=PROMPT_KINDS[TokenPrompt],
        session=request.session,
        targets={"ttft": request.ttft_target_s, "tpot": request.tpot_target_s, "deadline": deadline_s},
        arrived_at=request.arrived_at,
        accepted_at=request.arrived_at,
        waits=[wait],
    )
    if decision is not None:
        wait.until = live.first_assigned_at if live.first_assigned_at is not None else now
        notes.decisions.append(note_on(decision, took_s=0.0, batch=1))
        attempt = AttemptNote(
            context=child_of(context),
            number=decision.attempt_number,
            instance_id=decision.instance_id,
            phase=decision.phase,
            from_token=0,
            continuation=None,
            sent_at=wait.until,
            first_token_at=live.first_token_at,
        )
        notes.attempts.append(attempt)
    return notes
