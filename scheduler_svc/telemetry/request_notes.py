"""What is noted of a sampled request while it lives, so that its spans can be written once it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from opentelemetry.trace import SpanContext

from scheduler_svc.control.requests.submission import ChatPrompt, Prompt, Submission, TextPrompt, TokenPrompt
from scheduler_svc.control.watching.attainment import NOTHING_COUNTS, Attainment
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.request import Priority, RequestKey
from scheduler_svc.telemetry.decision_note import DecisionNote
from scheduler_svc.telemetry.request_content import Message, messages


@dataclass(slots=True, kw_only=True)
class WaitNote:
    since: float
    resumed: bool
    until: float | None = None
    left_behind: int = 0  # requests that still waited when it went


@dataclass(slots=True, kw_only=True)
class AttemptNote:
    context: SpanContext
    number: int
    instance_id: str
    phase: Phase
    from_token: int
    replay: bool
    sent_at: float
    first_token_at: float | None = None
    ended_at: float | None = None
    end: str = ""  # the executor's cause, the failover's, or the request's state where that ended it
    failure: str | None = None  # in words
    retries: AttemptNote | None = None  # the failed attempt that this one makes up for

    def close(self, at: float, end: str, failure: str | None = None) -> None:
        """The first end counts."""
        if self.ended_at is None:
            self.ended_at, self.end, self.failure = at, end, failure

    def fail(self, at: float, end: str, failure: str) -> None:
        """What its end, reported or not, means for the request."""
        self.ended_at = self.ended_at if self.ended_at is not None else at
        self.end, self.failure = end, failure

    @property
    def handed_over(self) -> bool:
        """A prefill leg that did its part."""
        return self.phase is Phase.PREFILLING and self.ended_at is not None and self.failure is None


@dataclass(slots=True, kw_only=True)
class RequestNotes:
    """Times are seconds on the control clock; ``zero_ns`` is where that clock's zero lies, in ns since 1970."""

    context: SpanContext
    parent: SpanContext | None  # the caller's span
    key: RequestKey
    model: str  # as asked for
    priority: Priority
    prompt_kind: str  # text, chat, tokens; empty where it was at fault
    content: list[Message] | None = None  # of its prompt, only where content is switched on
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
        """The latest."""
        return self.attempts[-1] if self.attempts else None


PROMPT_KINDS: dict[type[Prompt], str] = {TextPrompt: "text", ChatPrompt: "chat", TokenPrompt: "tokens"}


def notes_on(
    submission: Submission, context: SpanContext, parent: SpanContext | None, now: float, *, content: bool
) -> RequestNotes:
    """Of a request that arrives now.  Without ``content`` they hold nothing of its prompt."""
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
