"""What a stream yields: the events of one request's life, and the values they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sage_client._enums import FinishReason, InstanceRole, Phase


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try at one leg of a request on one instance."""

    epoch: int  # one life of the scheduler
    number: int  # unique within the epoch


@dataclass(frozen=True, kw_only=True, slots=True)
class Parallelism:
    """How one engine is spread over devices."""

    tensor_parallel_size: int  # GPUs that share every layer
    pipeline_parallel_size: int  # stages of layers
    data_parallel_size: int  # replicas inside the engine
    gpu_count: int  # devices in all; 0 on a CPU


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What was predicted when a decision was made."""

    start_s: float  # seconds from the decision to the start of prefill
    first_token_s: float  # seconds from the decision to the first token
    finish_s: float  # seconds from the decision to the last token
    output_tokens: int
    cost: float  # in the currency of the instance's price


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One instance that was looked at."""

    instance_id: str
    chosen: bool
    filtered_by: str  # name of the filter that took it out; empty if none did
    filter_reason: str  # in words
    scores: Mapping[str, float] = field(default_factory=dict)  # by scorer; lower is better, unit in its name


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """A placement, with its reasons."""

    request_id: str
    tenant: str
    policy: str  # that decided
    phase: Phase  # of the leg placed
    phase_reason: str  # why split or whole
    instance_id: str  # where
    prefill_instance_id: str  # split requests only; else empty
    instance_role: InstanceRole
    parallelism: Parallelism
    prediction: Prediction
    reasons: tuple[str, ...]  # in words, most important first
    candidates: tuple[Candidate, ...]  # only in an Explanation
    attempt: Attempt
    waited_s: float  # seconds from acceptance to this decision
    queue_length: int  # requests of the model left waiting
    reserved_tokens: int  # KV room taken on the instance, in tokens
    candidates_considered: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLogprob:
    """One token's log probability."""

    token_id: int
    logprob: float  # natural logarithm
    rank: int | None  # 1 is the most likely


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens a request used."""

    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int  # of the prompt, served from a prefix cache


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Where a request's time went.  Seconds; ``None`` where it does not apply."""

    queue_s: float | None  # acceptance to first assignment
    time_to_first_token_s: float | None  # acceptance to the first Tokens event
    prefill_s: float | None  # assignment to first token, or the prefill leg
    transfer_s: float | None  # KV handoff of a split request
    decode_s: float | None  # first token to last
    total_s: float | None  # acceptance to the end


@dataclass(frozen=True, kw_only=True, slots=True)
class SloResult:
    """One target and whether it was met."""

    target: str  # "ttft", "tpot", "deadline"
    wanted_s: float  # seconds
    measured_s: float  # seconds
    met: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The request is in, and will end exactly once.  First on every stream, once."""

    request_id: str
    model: str
    prompt_tokens: int
    attached: bool  # the id was known: this stream joined it
    expected_wait_s: float | None  # predicted seconds in the queue
    warnings: tuple[str, ...]  # options that are accepted and have no effect here


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheduled:
    """The request was placed.  Once per placement."""

    decision: Decision
    resumed_from_token: int  # output position at which a continuation starts; 0 for a first try


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """Output tokens, each once and in order."""

    attempt: Attempt  # that generated them
    choice: int
    first_index: int  # output position of token_ids[0]
    token_ids: tuple[int, ...]
    text_offset: int  # where text begins in the whole output text, in Unicode code points
    text: str  # may lag behind the tokens: bytes of a character, a possible stop string
    logprobs: tuple[tuple[TokenLogprob, ...], ...]  # one per token when asked for: the chosen token first


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The request ended by itself.  Last; failures are raised instead."""

    finish_reason: FinishReason
    stop_string: str | None  # the stop string that matched
    stop_token_id: int | None  # the token that ended it
    usage: Usage
    timings: Timings
    attempts: int  # placements it took
    cost: float  # by the price of the instances used
    slo: tuple[SloResult, ...]


Event = Accepted | Scheduled | Tokens | Finished
"""One event in a request's life."""
