"""What crosses the link to the scheduler, as plain values.  ``transport.conversion`` turns them into protos and back.

Durations are seconds and count from the moment a message was received.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from executor_svc.runtime.engine_port import (
    EngineFacts,
    EngineLoad,
    EngineState,
    FinishReason,
    Iteration,
    JsonValue,
    Sampling,
    TokenLogprob,
)


class Role(Enum):
    """What the instance is meant for."""

    GENERAL = "general"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    HYBRID = "hybrid"
    EMBEDDING = "embedding"


class Phase(Enum):
    """Which part of a request an assignment is."""

    HYBRID = "hybrid"  # all of it
    PREFILLING = "prefilling"  # only the prompt, whose KV another instance fetches
    DECODING = "decoding"  # all tokens, from KV that another instance computed


@dataclass(frozen=True, slots=True, order=True)
class Attempt:
    """One try at one leg of a request.  Fences outputs."""

    epoch: int  # one life of the scheduler
    number: int  # unique within the epoch

    def __str__(self) -> str:
        return f"{self.epoch}/{self.number}"


# --- control, upwards -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Who the instance is; the same in every registration of one process."""

    instance_id: str
    engine_start_id: str
    role: Role
    model: str
    host: str = ""
    rack: str = ""
    zone: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    price_per_hour: float = 0.0  # of the whole instance
    software_version: str = ""
    address: str = ""  # host:port where its own services listen


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldAttempt:
    """An attempt of an earlier session that is still here."""

    attempt: Attempt
    tokens: int  # output positions filled so far, those of earlier attempts included
    ended: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Register:
    identity: Identity
    held: tuple[HeldAttempt, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStatus:
    state: EngineState
    progress: float | None = None  # [0, 1] where known
    message: str = ""
    facts: EngineFacts | None = None  # with READY
    tokenizer_hash: str = ""  # with READY; SHA-256, hex


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerChunk:
    tokenizer_hash: str
    data: bytes
    last: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat:
    number: int
    last_assign: int  # number of the last Assign that is in these figures
    load: EngineLoad | None  # None until the engine is up
    prompt_tokens_per_s: float
    generation_tokens_per_s: float
    iterations: Sequence[Iteration]  # a sample of those since the last heartbeat
    event_loop_lag_s: float  # longest since the last heartbeat


@dataclass(frozen=True, kw_only=True, slots=True)
class KvReleased:
    """Answers ReleaseKv."""

    number: int
    released: bool  # else the blocks stay until their lease ends
    message: str = ""  # why not


@dataclass(frozen=True, kw_only=True, slots=True)
class DrainRequested:
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Drained:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Goodbye:
    reason: str


ControlUp = EngineStatus | TokenizerChunk | Heartbeat | KvReleased | DrainRequested | Drained | Goodbye


# --- control, downwards ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Welcome:
    session_id: str
    epoch: int
    lease_s: float
    heartbeat_interval_s: float
    keep: frozenset[Attempt] = frozenset()  # of the held ones; every other one is aborted
    role: Role = Role.GENERAL  # in force


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """How a request goes on from tokens an earlier attempt delivered."""

    emitted_token_ids: Sequence[int]
    emitted_text_length: int  # code points
    replay: bool  # generate anew from the prompt, check, skip
    best_effort: bool = False  # on a mismatch go on as if resumed


@dataclass(frozen=True, kw_only=True, slots=True)
class TextOptions:
    """How tokens become text, and which text ends generation."""

    stop: tuple[str, ...] = ()  # none empty
    include_stop_in_output: bool = False
    skip_special_tokens: bool = True
    min_tokens: int = 0  # output tokens before a stop string counts


@dataclass(frozen=True, kw_only=True, slots=True)
class Assign:
    number: int  # counts Assigns of the scheduler to this instance
    attempt: Attempt
    request_id: str
    prompt_token_ids: Sequence[int]
    sampling: Sampling  # complete; stop strings are in ``text``
    text: TextOptions = TextOptions()
    phase: Phase = Phase.HYBRID
    engine_priority: int = 0  # lower = sooner
    remaining_s: float | None = None  # until the caller's deadline
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    adapter: str | None = None
    continuation: Continuation | None = None
    kv_transfer_params: Mapping[str, JsonValue] | None = None  # as the prefill leg's end gave them; with DECODING
    kv_lease_s: float | None = None  # what is left of the KV lease
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class InvalidAssign:
    """An Assign whose fields make no sense: answered INVALID, never started."""

    number: int
    attempt: Attempt
    field_name: str
    message: str
    request_id: str = ""
    trace_headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancel:
    attempt: Attempt
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Drain:
    resume: bool  # takes a drain back


@dataclass(frozen=True, kw_only=True, slots=True)
class HeartbeatAck:
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerWanted:
    tokenizer_hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Resume:
    """Send an attempt's output again from a position."""

    attempt: Attempt
    from_index: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseKv:
    """Nobody is going to fetch this: have the engine that keeps it told."""

    number: int
    kv_transfer_params: Mapping[str, JsonValue]


Command = Assign | InvalidAssign | Cancel | Drain | HeartbeatAck | TokenizerWanted | Resume | ReleaseKv


# --- outputs, upwards -----------------------------------------------------------------------------------------------


class RejectReason(Enum):
    STALE_EPOCH = "stale_epoch"
    DRAINING = "draining"
    NOT_READY = "not_ready"
    KV_LEASE_EXPIRED = "kv_lease_expired"
    FULL = "full"


class EndCause(Enum):
    FINISHED = "finished"
    CANCELLED = "cancelled"  # the scheduler said so, or this executor gives it back
    INVALID = "invalid"  # the caller's fault, noticed by the engine
    FAILED = "failed"  # the engine's fault
    DEADLINE = "deadline"
    REPLAY_DIVERGED = "replay_diverged"


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    attempt_number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    attempt_number: int
    reason: RejectReason
    message: str


@dataclass(slots=True)
class Piece:
    """New tokens of one attempt.  Made once per engine step; grows only while the link is behind."""

    attempt_number: int
    first_index: int  # output position of token_ids[0], over all attempts of the request
    token_ids: Sequence[int]
    text: str  # the text these tokens made certain
    logprobs: list[list[TokenLogprob]] | None = None  # one list per token, chosen first
    kv_recomputed: bool = False  # of a decode leg: the prompt's KV could not be fetched and was computed here


@dataclass(slots=True)
class Frame:
    """What one engine step gave all attempts."""

    pieces: list[Piece]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    attempt_number: int
    cause: EndCause
    total_tokens: int  # output positions over all attempts
    finish_reason: FinishReason | None = None  # with FINISHED
    stop_string: str = ""
    stop_token_id: int | None = None
    trailing_text: str = ""  # was held back until the end
    cached_prompt_tokens: int = 0
    field_name: str = ""  # with INVALID
    message: str = ""  # with INVALID, FAILED, REPLAY_DIVERGED; with FINISHED what else is to be said
    kv_transfer_params: Mapping[str, JsonValue] | None = None  # of a prefill leg
    kv_lease_ends_at: float | None = None  # on the event loop's clock; what is left is what goes on the wire
    kv_unclaimed: bool = False  # of a decode leg: the engine never took the handoff on and tells nobody
    kv_recomputed: bool = False  # of a decode leg: the prompt's KV could not be fetched and was computed here
    engine_time_s: float = 0.0  # handed to the engine until the end


OutputUp = Accepted | Rejected | Frame | Ended


@dataclass(frozen=True, kw_only=True, slots=True)
class Ack:
    attempt_number: int
    tokens: int  # output positions below this are safe
    ended: bool  # the end is safe too: forget the attempt
