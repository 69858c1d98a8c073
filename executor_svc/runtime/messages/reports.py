"""Messages that the executor sends on the control stream after the registration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from executor_svc.runtime.engine_port import AdapterSource, EngineFacts, EngineLoad, EngineState, Iteration
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.commands import Assign


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStatus:
    """The engine's state and progress, and its facts once it is READY."""

    state: EngineState
    progress: float | None = None  # [0, 1] where known
    message: str = ""
    facts: EngineFacts | None = None  # with READY
    tokenizer_hash: str = ""  # with READY; SHA-256, hex


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerChunk:
    """A part of the model's tokenizer files, at most 1 MiB; answers TokenizerWanted."""

    tokenizer_hash: str
    data: bytes
    last: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat:
    """The engine's load at one moment, and the lag of the executor's event loop."""

    number: int
    last_assign: int  # number of the last Assign that the figures include
    load: EngineLoad | None  # None until the engine is up
    prompt_tokens_per_s: float
    generation_tokens_per_s: float
    iterations: Sequence[Iteration]  # a sample of those since the last heartbeat
    event_loop_lag_s: float  # longest lag since the last heartbeat


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixCacheReport:
    """What changed in the engine's prefix cache, as hashes of prefixes.

    In this order: ``reset``, ``removed``, ``stored``.
    """

    number: int  # counts the reports of the session
    block_tokens: int  # prefixes are hashed at multiples of this many tokens
    reset: bool  # what was reported before does not count any more
    removed: Sequence[int]  # prefixes whose last block was evicted
    stored: Sequence[int]  # prefixes that the cache holds


@dataclass(frozen=True, kw_only=True, slots=True)
class KvReleased:
    """Answers ReleaseKv."""

    number: int
    released: bool  # False: the KV stays until its lease ends
    message: str = ""  # why the KV was not released


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldAssign:
    """Answers FetchAssign."""

    attempt: AttemptId
    assign: Assign | None  # None: this executor does not hold the attempt any more
    held_for_s: float = 0.0  # since the Assign came
    tokens: int = 0  # output positions filled, over all attempts of the request
    ended: bool = False
    first_token_for_s: float | None = None  # since its first own token; None: it has none


@dataclass(frozen=True, kw_only=True, slots=True)
class DrainRequested:
    """Asks the scheduler to send no new attempts: this executor wants to leave."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Drained:
    """Reports during a drain that no attempt runs or is held any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Goodbye:
    """Ends the session for good; the last message of the control stream."""

    reason: str


class AdapterState(Enum):
    """State of an adapter in the engine."""

    WAITING = "waiting"  # for a slot that another adapter still has
    LOADING = "loading"
    LOADED = "loaded"
    FAILED = "failed"
    UNLOADING = "unloading"  # attempts still use it


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterReport:
    """One adapter that was wanted or is still held."""

    source: AdapterSource
    state: AdapterState
    reason: str = ""  # in words; with FAILED always
    weights: str = ""  # with LOADED: fingerprint
    rank: int = 0  # with LOADED


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterStates:
    """The state of every adapter that was wanted or is still held, sorted by name."""

    number: int  # of the latest AdaptersWanted of the session that was taken into account; 0: none
    adapters: Sequence[AdapterReport]


class SleepState(Enum):
    """Whether the engine sleeps."""

    NOT_STARTED = "not started"  # it waits for a place on its device
    STARTING = "starting"  # it has a place on its device
    AWAKE = "awake"  # it takes attempts
    FALLING_ASLEEP = "falling asleep"
    ASLEEP = "asleep"  # others have the device's memory
    WAKING = "waking"


@dataclass(frozen=True, kw_only=True, slots=True)
class SleepReport:
    """Whether the engine sleeps, and what changes of that took."""

    state: SleepState
    number: int  # of the latest SleepWanted of the session that was taken into account; 0: none
    reason: str = ""  # why it is not as wanted yet, in words
    sleep_s: float | None = None  # that falling asleep took the last time; None: it never did
    wake_s: float | None = None  # that waking up took the last time; None: it never did


ControlUp = (
    EngineStatus
    | TokenizerChunk
    | Heartbeat
    | PrefixCacheReport
    | AdapterStates
    | SleepReport
    | KvReleased
    | HeldAssign
    | DrainRequested
    | Drained
    | Goodbye
)
