"""Messages that the scheduler sends on the control stream after Welcome.

Durations are seconds from the moment of receipt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from executor_svc.runtime.engine_port import AdapterSource, EmbeddingOptions, EngineMedia, JsonValue, Sampling
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.registration import AutomaticRole


class Phase(Enum):
    """Which part of a request an attempt computes."""

    HYBRID = "hybrid"  # all of it
    PREFILLING = "prefilling"  # only the prompt, whose KV another instance fetches
    DECODING = "decoding"  # all tokens, from KV that another instance computed


class ContinuationMode(Enum):
    """How an attempt goes on after tokens that an earlier one delivered."""

    HISTORY = "history"  # the engine is given them as its own output
    RESUME = "resume"  # the engine is given prompt and output as its prompt
    REPLAY = "replay"  # the engine generates again from the prompt; the delivered tokens are checked and skipped


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """How a request goes on from tokens that an earlier attempt delivered."""

    emitted_token_ids: Sequence[int]
    emitted_text_length: int  # code points
    mode: ContinuationMode
    best_effort: bool = False  # if the replay differs, go on from the delivered tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class TextOptions:
    """How tokens become text, and which text ends generation."""

    stop: tuple[str, ...] = ()  # none empty
    include_stop_in_output: bool = False
    skip_special_tokens: bool = True
    min_tokens: int = 0  # a stop string counts only after this many output tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Assign:
    """Tells the executor to start one attempt."""

    number: int  # counts Assigns of the scheduler to this instance
    attempt: AttemptId
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
    reasons: tuple[str, ...] = ()  # why the scheduler chose this instance, for the log
    embedding: EmbeddingOptions | None = None  # make a vector of the prompt, and generate nothing
    media: Sequence[EngineMedia] = ()  # one for each placeholder of its kind in the prompt, in order
    media_tokens: int = 0  # most tokens that they take beside their placeholders
    adoption_proof: bytes = field(default=b"", repr=False)  # shows the next scheduler that its fleet sent this
    source: object = field(default=None, repr=False, compare=False)  # the message as it came, for the next scheduler

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt; with images or audio, the most that it can have."""
        return len(self.prompt_token_ids) + self.media_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class InvalidAssign:
    """An Assign whose fields make no sense.  Its attempt ends as INVALID and is never started."""

    number: int
    attempt: AttemptId
    field_name: str
    message: str
    request_id: str = ""
    trace_headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancel:
    """Tells the executor to end an attempt now."""

    attempt: AttemptId
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Drain:
    """Tells the executor to accept no new attempts, or lifts that order."""

    resume: bool  # True lifts an earlier drain


@dataclass(frozen=True, kw_only=True, slots=True)
class HeartbeatAck:
    """Confirms a heartbeat, which has renewed the lease."""

    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerWanted:
    """Asks for the model's tokenizer files."""

    tokenizer_hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Resume:
    """Asks for an attempt's output again, from output position ``from_index`` on."""

    attempt: AttemptId
    from_index: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseKv:
    """Asks the executor to release a prompt's KV that another engine keeps, because nobody will fetch it."""

    number: int
    kv_transfer_params: Mapping[str, JsonValue]


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchAssign:
    """Asks for the Assign of a held attempt, which another scheduler sent and this one adopts."""

    attempt: AttemptId


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptersWanted:
    """Says which adapters the engine is to hold beside those from its start: all of them."""

    number: int  # counts these in the session
    sources: Sequence[AdapterSource]  # each name once


@dataclass(frozen=True, kw_only=True, slots=True)
class SleepWanted:
    """Says whether the engine is to sleep."""

    number: int  # counts these in the session
    asleep: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepRole:
    """Has the executor keep a role for the next scheduler."""

    role: AutomaticRole | None  # None: there is nothing to keep any more


Command = (
    Assign
    | InvalidAssign
    | Cancel
    | Drain
    | HeartbeatAck
    | TokenizerWanted
    | Resume
    | ReleaseKv
    | FetchAssign
    | AdaptersWanted
    | SleepWanted
    | KeepRole
)
