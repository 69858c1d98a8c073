"""An accepted request, from acceptance to its end, and after that in the record of ended requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from sage_common.clock import Timer
from scheduler_svc.control.requests.choices import Choices
from scheduler_svc.control.requests.earlier_attempt import RESTORED_ATTEMPT, AdoptedAttempt, RestoredOutput
from scheduler_svc.control.requests.observer import UNOBSERVED, RequestObserver
from scheduler_svc.control.requests.outcome import Outcome, SloOutcome
from scheduler_svc.control.requests.output_log import OutputLog
from scheduler_svc.control.requests.placement import Placement
from scheduler_svc.control.requests.prompt_facts import PromptFacts
from scheduler_svc.control.requests.published_output import PublishedOutput
from scheduler_svc.control.requests.setbacks import Setbacks
from scheduler_svc.domain.continuation import ContinuationMode, in_words
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.engine_facts import ModelIdentity
from scheduler_svc.domain.errors import InvalidTransition
from scheduler_svc.domain.request import Request, RequestKey, RequestState, Sampling

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
"""The states that may follow each state.  Nothing follows an end, so a request ends once and its first cause wins."""

HISTORY_LIMIT = 128
"""Entries kept per request; later ones are dropped, except the end."""

LAST_TOKEN = "last_token"
"""The event of an attempt's last token; it is noted once the attempt is known to have failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryEntry:
    """One event in a request's life."""

    at: float  # seconds on the scheduler's clock
    event: str
    detail: str


class Reader(Protocol):
    """One client's position in the output."""

    @property
    def position(self) -> int:
        """The position of the next output token that it takes."""
        ...

    def wake(self) -> None:
        """Tell the client that there is something new."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class LiveRequest:
    """One request with everything that is recorded about it.  Times are seconds on the control clock."""

    request: Request
    digest: bytes  # of the content: the same id with another digest is a conflict
    detached: bool
    warnings: tuple[str, ...] = ()
    state: RequestState = RequestState.QUEUED
    output: OutputLog = field(init=False)
    published: OutputLog | PublishedOutput = field(init=False)  # what readers may have of ``output``
    placements: list[Placement] = field(default_factory=list)
    history: list[HistoryEntry] = field(default_factory=list)
    outcome: Outcome | None = None
    identity: ModelIdentity | None = None  # of the model that gave the first token
    setbacks: Setbacks = field(default_factory=Setbacks)
    expected_wait_s: float | None = None  # told its client with the acceptance; None: nothing was told yet
    deadline_timer: Timer | None = None
    first_assigned_at: float | None = None
    prefill_ended_at: float | None = None  # of a split request: when its prefill leg ended
    first_token_at: float | None = None
    last_token_at: float | None = None
    ended_at: float | None = None  # None: it has not ended, or did so under an earlier scheduler
    delivering: bool = False  # the current attempt has delivered tokens
    continuation: ContinuationMode | None = None  # how the current attempt goes on; None if nothing was delivered
    cost: float = 0.0  # of ended and lost attempts
    observed: RequestObserver = UNOBSERVED
    readers: dict[Reader, None] = field(default_factory=dict)  # in the order in which they came
    was_read: bool = False  # some client has begun to read it
    attempts_before: int = 0  # attempts that an earlier scheduler started
    adopted: AdoptedAttempt | None = None  # the attempt that this scheduler adopted, of a request of an earlier one
    restored: RestoredOutput | None = None  # output that came from the journal
    journaled: bool = False  # the journal has it: readers get only what is written down
    end_is_published: bool = False  # of a journaled request: its end is written down
    prompt: PromptFacts | None = None  # None: the engine told nothing of it
    choices: Choices[LiveRequest] | None = None  # of several choices: all of them, this one included

    def __post_init__(self) -> None:
        self.output = self.published = OutputLog(limit=self.request.sampling.max_tokens)

    @property
    def key(self) -> RequestKey:
        """The request's tenant and id."""
        return self.request.key

    @property
    def published_outcome(self) -> Outcome | None:
        """The outcome, once readers may have it: if the journal has the request, when its end is written down."""
        return None if self.journaled and not self.end_is_published else self.outcome

    @property
    def members(self) -> tuple[LiveRequest, ...]:
        """All choices of the request, this one included; of most requests that is all."""
        return (self,) if self.choices is None else self.choices.members

    @property
    def lead(self) -> LiveRequest:
        """Choice 0, by which a request of several choices is found."""
        return self if self.choices is None else self.choices.members[0]

    @property
    def all_ended(self) -> bool:
        """Whether the request has ended, with all its choices."""
        return self.state.ended if self.choices is None else self.choices.over

    @property
    def whole_state(self) -> RequestState:
        """The state of the request with all its choices."""
        return self.state if self.choices is None else self.choices.state

    @property
    def whole_outcome(self) -> Outcome | None:
        """How the request ended with all its choices; None before."""
        return self.outcome if self.choices is None else self.choices.outcome

    @property
    def whole_published_outcome(self) -> Outcome | None:
        """How the request ended with all its choices, once readers may have it."""
        return self.published_outcome if self.choices is None else self.choices.published_outcome

    def keep_in_journal(self) -> PublishedOutput:
        """Let readers have only what is published from here on; return where that is done."""
        published = PublishedOutput(self.output)
        self.published, self.journaled = published, True
        return published

    @property
    def attempts(self) -> int:
        """How many attempts were started, the legs of a split request counted as one."""
        return self.attempts_before + len(self.placements)

    @property
    def adopted_until(self) -> int | None:
        """Output positions that are known of the adopted attempt and those before it; None while it may send more."""
        if len(self.placements) > 1:
            return self.placements[1].from_token
        return len(self.output) if self.state is RequestState.QUEUED else None

    def name_of(self, attempt_number: int, epoch: int) -> tuple[int, int]:
        """Return epoch and number by which executors and clients know an attempt.  ``epoch``: this scheduler's."""
        adopted, restored = self.adopted, self.restored
        if attempt_number == RESTORED_ATTEMPT and restored is not None:
            return restored.name
        if adopted is not None and attempt_number == adopted.number_here:
            return adopted.name
        return epoch, attempt_number

    def transition(self, state: RequestState) -> None:
        """Change the state.  Raises InvalidTransition where ``TRANSITIONS`` does not allow it."""
        if state not in TRANSITIONS[self.state]:
            raise InvalidTransition(f"request {self.key}", self.state.value, state.value)
        self.state = state

    def note(self, now: float, event: str, detail: str = "") -> None:
        """Add to the history; past ``HISTORY_LIMIT`` entries only the end is added."""
        if len(self.history) < HISTORY_LIMIT or self.state.ended:
            self.history.append(HistoryEntry(at=now, event=event, detail=detail))

    def placed(self, decision: Decision, now: float) -> None:
        """Record that a decision was sent to its executors."""
        self.placements.append(Placement(decision=decision, from_token=len(self.output)))
        self.transition(RequestState.RUNNING)
        if self.first_assigned_at is None:
            self.first_assigned_at = now
        self.note(now, "placed", _where(decision))
        if self.continuation is not None:
            self.note(now, "continues", in_words(self.continuation, len(self.output), decision.instance_id))
        self.changed()

    def note_first_token(self, now: float, instance_id: str) -> None:
        """Record the first token of the current attempt."""
        self.delivering = True
        if self.first_token_at is None:
            self.first_token_at = now
            self.note(now, "first_token", f"from {instance_id}")
        else:
            self.note(now, "resumed", f"from {instance_id}, after {self.placements[-1].from_token} tokens")

    def note_requeued(self, now: float, why: str) -> None:
        """Record that the current attempt failed, and that the request waits again."""
        if self.delivering and self.last_token_at is not None:
            self.note(self.last_token_at, LAST_TOKEN, f"{len(self.output)} so far")
        self.delivering = False
        self.note(now, "requeued", why)

    @property
    def about(self) -> dict[str, str]:
        """The fields ``request`` and ``traceparent`` for a log line's ``extra``."""
        traceparent = self.observed.traceparent or self.request.trace_headers.get("traceparent", "")
        return {"request": str(self.key), "traceparent": traceparent}

    @property
    def unread(self) -> int:
        """The output tokens that readers have not taken yet, summed over all readers."""
        return sum(max(0, len(self.published) - reader.position) for reader in self.readers)

    def changed(self) -> None:
        """Tell every reader that there is something new."""
        for reader in self.readers:
            reader.wake()

    def measure_slo(self, now: float) -> Sequence[SloOutcome]:
        """Compare each target that the caller stated with what happened up to ``now``."""
        request, found = self.request, []
        ttft = None if self.first_token_at is None else self.first_token_at - request.arrived_at
        if request.ttft_target_s is not None:
            found.append(_slo("ttft", request.ttft_target_s, ttft if ttft is not None else now - request.arrived_at))
        if request.tpot_target_s is not None and self.first_token_at is not None and len(self.output) > 1:
            last = self.last_token_at if self.last_token_at is not None else now
            found.append(_slo("tpot", request.tpot_target_s, (last - self.first_token_at) / (len(self.output) - 1)))
        if request.target_at is not None:
            found.append(_slo("deadline", request.target_at - request.arrived_at, now - request.arrived_at))
        return found

    def forget_input(self) -> None:
        """Free what may be large once nothing needs it: the prompt, of which the length stays, and sampling's lists."""
        request = self.request
        self.request = replace(
            request,
            prompt_token_ids=range(len(request.prompt_token_ids)),
            media=(),
            prefix_hashes=(),
            prefix_block_tokens=0,
            sampling=_without_lists(request.sampling),
        )


def join_choices(members: Sequence[LiveRequest]) -> None:
    """Make the live requests of several choices one request.  ``members``: by index of the choice."""
    choices = Choices(members)
    for each in members:
        each.choices = choices


def _without_lists(sampling: Sampling) -> Sampling:
    """Return sampling without what may be large; most requests have nothing of it."""
    if not (
        sampling.stop
        or sampling.bad_words
        or sampling.stop_token_ids
        or sampling.allowed_token_ids
        or sampling.logit_bias
        or sampling.structured_output
        or sampling.engine_options
    ):
        return sampling
    return replace(
        sampling,
        stop=(),
        bad_words=(),
        stop_token_ids=(),
        allowed_token_ids=(),
        logit_bias={},
        structured_output=None,
        engine_options={},
    )


def _slo(target: str, wanted_s: float, measured_s: float) -> SloOutcome:
    return SloOutcome(target=target, wanted_s=wanted_s, measured_s=measured_s, met=measured_s <= wanted_s)


def _where(decision: Decision) -> str:
    where = f"on {decision.instance_id}"
    if decision.prefill is not None:
        where = f"prefill on {decision.prefill.instance_id}, decode {where}"
    return f"{where}: {decision.reasons[0] if decision.reasons else ''}"
