"""Messages that the executor sends on the output stream, and the acknowledgements that it receives there."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from executor_svc.runtime.engine_port import FinishReason, JsonValue, TokenLogprob
from executor_svc.runtime.messages.attempt_id import AttemptId


class RejectReason(Enum):
    """Why an attempt was not started; another instance may take it."""

    STALE_EPOCH = "stale_epoch"
    DRAINING = "draining"
    NOT_READY = "not_ready"
    KV_LEASE_EXPIRED = "kv_lease_expired"
    FULL = "full"


class EndCause(Enum):
    """Why an attempt ended."""

    FINISHED = "finished"
    CANCELLED = "cancelled"  # by the scheduler, or because this executor leaves or does not hold the attempt
    INVALID = "invalid"  # the caller's fault, noticed by the engine
    FAILED = "failed"  # the engine's fault
    DEADLINE = "deadline"
    REPLAY_DIVERGED = "replay_diverged"


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """Says that an attempt was started."""

    attempt: AttemptId


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """Says that an attempt was not started."""

    attempt: AttemptId
    reason: RejectReason
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptFacts:
    """What an engine tells of a prompt with the first token."""

    cached_tokens: int  # served from the prefix cache
    logprobs: list[list[TokenLogprob] | None] | None = None  # one list per prompt token, None for the first


@dataclass(slots=True)
class Piece:
    """New tokens of one attempt that do not fit into the columns of a frame, or what is known of its prompt."""

    attempt: AttemptId
    first_index: int  # output position of token_ids[0], over all attempts of the request
    token_ids: Sequence[int]
    text: str  # text that became certain with these tokens
    logprobs: list[list[TokenLogprob]] | None = None  # one list per token, chosen token first
    kv_recomputed: bool = False  # decode leg: the prompt's KV could not be fetched and was computed here
    prompt: PromptFacts | None = None  # then there are no tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """The end of one attempt; nothing follows it."""

    attempt: AttemptId
    cause: EndCause
    total_tokens: int  # output positions over all attempts
    finish_reason: FinishReason | None = None  # with FINISHED
    stop_string: str = ""
    stop_token_id: int | None = None
    trailing_text: str = ""  # text that was held back until the end
    cached_prompt_tokens: int = 0
    field_name: str = ""  # with INVALID: contract path of the field at fault
    message: str = ""  # with INVALID, FAILED, REPLAY_DIVERGED; with FINISHED a remark, e.g. that KV was recomputed
    kv_transfer_params: Mapping[str, JsonValue] | None = None  # prefill leg: how to fetch its KV
    kv_lease_ends_at: float | None = None  # on the event loop's clock; the wire carries the seconds that are left
    kv_unclaimed: bool = False  # decode leg: the engine never got the request, so it does not release the KV
    kv_recomputed: bool = False  # decode leg: the prompt's KV could not be fetched and was computed here
    engine_time_s: float = 0.0  # seconds from the start of the attempt to its end
    engine_died: bool = False  # with FAILED: the engine died while it ran the attempt
    embedding: bytes = field(default=b"", repr=False)  # with FINISHED: the vector, little-endian 32-bit floats


@dataclass(slots=True, kw_only=True)
class StepFrame:
    """What happened to attempts since the frame before: in one engine step, or in several while the link is behind.

    An attempt's acceptance comes before its tokens, and its end after them.  Entry i of ``numbers``, ``first_indexes``,
    ``counts`` and ``texts`` is one attempt's output, which takes the next ``counts[i]`` of ``token_ids``.
    """

    epoch: int  # of the attempts in the columns
    accepted: list[Accepted] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # of attempts
    first_indexes: list[int] = field(default_factory=list)  # output positions, over all attempts of the request
    counts: list[int] = field(default_factory=list)
    token_ids: array[int] = field(default_factory=lambda: array("I"))
    texts: list[str] = field(default_factory=list)  # text that became certain with an entry's tokens
    pieces: list[Piece] = field(default_factory=list)  # output with log probabilities, and what else has no column
    ended: list[Ended] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether nothing happened."""
        return not (self.accepted or self.rejected or self.numbers or self.pieces or self.ended)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ack:
    """Says how much of an attempt's output the scheduler has."""

    attempt: AttemptId
    tokens: int  # the scheduler has all output positions below this
    ended: bool  # the scheduler has the end too: the attempt can be forgotten
