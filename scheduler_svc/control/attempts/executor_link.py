"""The port to one executor: the commands that the scheduler sends.  ``transport`` implements it over two streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.domain.adapters.registered_adapter import AdapterSource
from scheduler_svc.domain.continuation import ContinuationMode
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.request import Request, Sampling
from scheduler_svc.domain.role_change import RoleChange


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """The output that earlier attempts delivered, and how a new attempt goes on from there."""

    emitted_token_ids: Sequence[int]
    emitted_text_length: int  # Unicode code points
    mode: ContinuationMode
    best_effort: bool  # go on even where a replay gives other tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class KvHandoff:
    """KV blocks that a prefill instance keeps for a decode leg."""

    params: bytes  # JSON of the engines' connector; opaque here
    lease_s: float  # how long the blocks are still kept


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignOrder:
    """The order to run one attempt."""

    number: int  # counts the session's Assigns, from 1
    epoch: int  # of the scheduler
    attempt_number: int
    phase: Phase
    request: Request
    sampling: Sampling  # the request's, except for a prefill leg
    engine_priority: int  # lower is sooner
    remaining_s: float | None  # until the caller's deadline
    reasons: Sequence[str] = ()  # of the decision, in words
    trace_headers: Mapping[str, str] = field(default_factory=dict)  # W3C: the span that the executor's work belongs to
    continuation: Continuation | None = None
    handoff: KvHandoff | None = None  # decode legs: what to fetch
    live: LiveRequest | None = None  # what the next scheduler needs to know of; None: nobody goes on with a warm-up
    sent_at: float = 0.0  # seconds on the control clock
    policy: str = ""  # that placed it


class ExecutorLink(Protocol):
    """Sends to one executor.  Every method returns at once.

    A link whose executor does not keep up closes itself, which looks like a broken stream.
    """

    def assign(self, order: AssignOrder) -> None:
        """Have the executor run an attempt."""
        ...

    def cancel(self, attempt_number: int, reason: str) -> None:
        """Have the executor stop an attempt; it confirms with the attempt's end."""
        ...

    def drain(self, *, resume: bool) -> None:
        """Have the executor take nothing new, or take work again."""
        ...

    def resend(self, attempt_number: int, from_index: int) -> None:
        """Ask for an attempt's output again, from a position."""
        ...

    def release_kv(self, number: int, params: bytes) -> None:
        """Have the executor's engine tell the prefill engine to free these blocks.

        ``number`` comes back with the answer; ``params`` are those of the handoff.
        """
        ...

    def acknowledge(self, attempt_number: int, tokens: int, *, ended: bool) -> None:
        """Confirm that an attempt's first ``tokens`` output tokens arrived, and its end if ``ended``."""
        ...

    def fetch_assign(self, epoch: int, number: int) -> None:
        """Ask for the Assign of an attempt that the executor holds and that another scheduler began."""
        ...

    def resend_named(self, epoch: int, number: int, from_index: int) -> None:
        """Ask for the end of an attempt again whose number here is forgotten, and for its output from a position on."""
        ...

    def cancel_named(self, epoch: int, number: int, reason: str) -> None:
        """Have the executor stop an attempt that another scheduler began and that is not adopted."""
        ...

    def want_tokenizer(self, tokenizer_hash: str) -> None:
        """Ask the executor for the files of its tokenizer."""
        ...

    def want_adapters(self, number: int, sources: Sequence[AdapterSource]) -> None:
        """Have the executor's engine hold these adapters, and no others beside those from its start.

        ``number`` counts these orders in the session; reports name the latest one that they follow.
        """
        ...

    def want_sleep(self, number: int, *, asleep: bool) -> None:
        """Have the executor's engine sleep or be awake.  ``number`` counts these orders in the session."""
        ...

    def keep_role(self, change: RoleChange | None, age_s: float) -> None:
        """Have the executor keep a role that came by itself, for the next scheduler.

        ``change``: ``age_s`` seconds ago; None: its role is the configured one, or an operator's.
        """
        ...

    def acknowledge_heartbeat(self, number: int) -> None:
        """Tell the executor that its heartbeat arrived."""
        ...

    def close(self, reason: str) -> None:
        """End the session; messages queued before are still sent."""
        ...
