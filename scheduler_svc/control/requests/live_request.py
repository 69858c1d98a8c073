"""An accepted request, from acceptance to its one end and, in the record, after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from sage_common.clock import Timer
from scheduler_svc.control.requests.observer import UNOBSERVED, RequestObserver
from scheduler_svc.control.requests.output_log import OutputLog
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.errors import InvalidTransition, SchedulerError
from scheduler_svc.domain.request import Request, RequestKey, RequestState

if TYPE_CHECKING:
    from scheduler_svc.control.attempts.attempt import Attempt

TRANSITIONS: dict[RequestState, frozenset[RequestState]] = {
    RequestState.QUEUED: frozenset(
        {RequestState.RUNNING, RequestState.FAILED, RequestState.CANCELLED, RequestState.EXPIRED}
    ),
    RequestState.RUNNING: frozenset(
        {
            RequestState.QUEUED,  # its instance failed: it waits for another
            RequestState.FINISHED,
            RequestState.FAILED,
            RequestState.CANCELLED,
            RequestState.EXPIRED,
        }
    ),
    RequestState.FINISHED: frozenset(),
    RequestState.FAILED: frozenset(),
    RequestState.CANCELLED: frozenset(),
    RequestState.EXPIRED: frozenset(),
}
"""What may follow what.  Nothing follows an end, so a request ends once and its first cause wins."""

HISTORY_LIMIT = 128
"""Entries kept per request; later ones are dropped, except the end."""

LAST_TOKEN = "last_token"
"""Noted once its attempt is known to have failed, so later than it was."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryEntry:
    at: float  # seconds on the scheduler's clock
    event: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """A decision, and the output position its attempt starts at."""

    decision: Decision
    from_token: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SloOutcome:
    target: str  # "ttft" | "tpot" | "deadline"
    wanted_s: float
    measured_s: float
    met: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """How a request ended by itself."""

    finish_reason: str  # "stop" | "length"
    stop_string: str
    stop_token_id: int | None
    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int
    attempts: int
    queue_s: float
    ttft_s: float | None  # None when there was no token
    prefill_s: float | None
    transfer_s: float | None  # split requests: prefill's end to the first token
    decode_s: float | None
    total_s: float
    cost: float
    slo: tuple[SloOutcome, ...]


Outcome = Finished | SchedulerError


class Reader(Protocol):
    """One client's view of the output."""

    position: int  # of the next output token it takes

    def wake(self) -> None:
        """There is something new."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class LiveRequest:
    request: Request
    digest: bytes  # of the content: the same id with another digest is a conflict
    detached: bool
    deadline_asked: bool = True  # by the caller; else it is only the bound that nothing waits for ever
    warnings: tuple[str, ...] = ()
    state: RequestState = RequestState.QUEUED
    output: OutputLog = field(init=False)
    placements: list[Placement] = field(default_factory=list)
    history: list[HistoryEntry] = field(default_factory=list)
    outcome: Outcome | None = None
    current: Attempt | None = None  # the attempt whose output counts
    failed_on: frozenset[str] = frozenset()  # instances its attempts failed on
    deadline_timer: Timer | None = None
    first_assigned_at: float | None = None
    prefill_ended_at: float | None = None  # of a split request's prefill leg
    first_token_at: float | None = None
    last_token_at: float | None = None
    delivering: bool = False  # the attempt under way has given tokens
    cost: float = 0.0  # of ended attempts
    observed: RequestObserver = UNOBSERVED
    readers: list[Reader] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.output = OutputLog(limit=self.request.sampling.max_tokens)

    @property
    def key(self) -> RequestKey:
        return self.request.key

    @property
    def attempts(self) -> int:
        return len(self.placements)

    def transition(self, state: RequestState) -> None:
        """Raises InvalidTransition where ``TRANSITIONS`` does not allow it."""
        if state not in TRANSITIONS[self.state]:
            raise InvalidTransition(f"request {self.key}", self.state.value, state.value)
        self.state = state

    def note(self, now: float, event: str, detail: str = "") -> None:
        if len(self.history) < HISTORY_LIMIT or self.state.ended:
            self.history.append(HistoryEntry(at=now, event=event, detail=detail))

    def note_first_token(self, now: float, instance_id: str) -> None:
        """Of an attempt."""
        self.delivering = True
        if self.first_token_at is None:
            self.first_token_at = now
            self.note(now, "first_token", f"from {instance_id}")
        else:
            self.note(now, "resumed", f"from {instance_id}, after {self.placements[-1].from_token} tokens")

    def note_setback(self, now: float, why: str) -> None:
        """An attempt failed, and it waits again."""
        if self.delivering and self.last_token_at is not None:
            self.note(self.last_token_at, LAST_TOKEN, f"{len(self.output)} so far")
        self.delivering = False
        self.note(now, "requeued", why)

    @property
    def about(self) -> dict[str, str]:
        """For ``extra`` of log lines: which request, and which trace where there is one."""
        traceparent = self.observed.traceparent or self.request.trace_headers.get("traceparent", "")
        return {"request": str(self.key), "traceparent": traceparent}

    @property
    def unread(self) -> int:
        """Output tokens that its readers have not taken yet, over all of them."""
        return sum(max(0, len(self.output) - reader.position) for reader in self.readers)

    def changed(self) -> None:
        """Tell every reader that there is something new."""
        for reader in self.readers:
            reader.wake()

    def measure_slo(self, now: float) -> Sequence[SloOutcome]:
        """Each target the caller set, against what happened up to ``now``."""
        request, found = self.request, []
        ttft = None if self.first_token_at is None else self.first_token_at - request.arrived_at
        if request.ttft_target_s is not None:
            found.append(_slo("ttft", request.ttft_target_s, ttft if ttft is not None else now - request.arrived_at))
        if request.tpot_target_s is not None and self.first_token_at is not None and len(self.output) > 1:
            last = self.last_token_at if self.last_token_at is not None else now
            found.append(_slo("tpot", request.tpot_target_s, (last - self.first_token_at) / (len(self.output) - 1)))
        if request.deadline_at is not None and self.deadline_asked:
            found.append(_slo("deadline", request.deadline_at - request.arrived_at, now - request.arrived_at))
        return found

    def forget_prompt(self) -> None:
        """Give the prompt's memory back once nothing can need it: its length stays, as a range of that length."""
        self.request = replace(self.request, prompt_token_ids=range(self.request.prompt_tokens))


def _slo(target: str, wanted_s: float, measured_s: float) -> SloOutcome:
    return SloOutcome(target=target, wanted_s=wanted_s, measured_s=measured_s, met=measured_s <= wanted_s)
