"""The port to one executor's session, and what crosses it downwards.  ``transport`` implements it over two streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.request import Request, Sampling


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """How a request goes on from tokens an earlier attempt delivered."""

    emitted_token_ids: Sequence[int]
    emitted_text_length: int  # Unicode code points
    replay: bool  # generate anew and check, instead of resuming from the tokens
    best_effort: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class KvHandoff:
    """KV blocks that wait at a prefill instance to be fetched."""

    params: bytes  # JSON of the engines' connector; opaque here
    lease_s: float  # how long they still wait


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignOrder:
    number: int  # counts the session's Assigns
    epoch: int
    attempt_number: int
    phase: Phase
    request: Request
    sampling: Sampling  # the request's, but for a prefill leg
    engine_priority: int
    remaining_s: float | None  # until the caller's deadline
    reasons: Sequence[str] = ()
    trace_headers: Mapping[str, str] = field(default_factory=dict)  # W3C: what the executor's work is part of
    continuation: Continuation | None = None
    handoff: KvHandoff | None = None  # decode legs: what to fetch


class ExecutorLink(Protocol):
    """Every method returns at once; a link whose executor does not keep up closes itself, as a broken stream."""

    def assign(self, order: AssignOrder) -> None: ...

    def cancel(self, attempt_number: int, reason: str) -> None: ...

    def drain(self, *, resume: bool) -> None: ...

    def resend(self, attempt_number: int, from_index: int) -> None:
        """Ask for an attempt's output again, from a position."""
        ...

    def release_kv(self, number: int, params: bytes) -> None:
        """Have its engine tell the prefill side that nobody fetches these blocks."""
        ...

    def acknowledge(self, attempt_number: int, tokens: int, *, ended: bool) -> None: ...

    def want_tokenizer(self, tokenizer_hash: str) -> None: ...

    def acknowledge_heartbeat(self, number: int) -> None: ...

    def close(self, reason: str) -> None: ...
