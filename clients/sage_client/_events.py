"""The events of a request's stream and the values in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sage_client._enums import FinishReason, InstanceRole, Phase
from sage_client._plain import Plain


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try at one leg of a request on one instance."""

    epoch: int  # identifies one run of the scheduler process
    number: int  # unique within the epoch


@dataclass(frozen=True, kw_only=True, slots=True)
class Parallelism:
    """How an engine is spread over devices."""

    tensor_parallel_size: int  # GPUs that share every layer
    pipeline_parallel_size: int  # stages of layers
    data_parallel_size: int  # replicas inside the engine
    gpu_count: int  # devices in all; 0 on a CPU


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The times and cost predicted for a decision."""

    start_s: float  # seconds from the decision to the start of prefill
    first_token_s: float  # seconds from the decision to the first token
    finish_s: float  # seconds from the decision to the last token
    output_tokens: int
    cost: float  # in the currency of the instances' prices


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One instance that a decision considered."""

    instance_id: str
    chosen: bool
    filtered_by: str  # name of the filter that excluded the instance; empty if none did
    filter_reason: str  # why it was excluded, in words
    scores: Mapping[str, float] = field(default_factory=dict)  # by scorer; lower is better, the unit is in its name
    cached_tokens: int = 0  # prompt tokens that its prefix cache was believed to hold


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision(Plain):
    """The placement of a request on an instance, with its reasons."""

    request_id: str
    tenant: str
    policy: str  # the policy that decided
    phase: Phase  # the leg that was placed
    phase_reason: str  # why the request was split or not
    instance_id: str  # the chosen instance; of a split request the decode instance
    prefill_instance_id: str  # the prefill instance of a split request; else empty
    instance_role: InstanceRole
    parallelism: Parallelism
    prediction: Prediction
    reasons: tuple[str, ...]  # in words, most important first
    candidates: tuple[Candidate, ...]  # only in an Explanation; else empty
    attempt: Attempt
    waited_s: float  # seconds from acceptance to this decision
    queue_length: int  # requests of the model left waiting
    reserved_tokens: int  # KV tokens reserved on the instance
    candidates_considered: int  # number of instances considered
    cached_tokens: int = 0  # prompt tokens that the instance's prefix cache was believed to hold
    prefill_cached_tokens: int = 0  # the same of the prefill instance of a split request


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLogprob:
    """One token's log probability."""

    token_id: int
    logprob: float  # natural logarithm
    rank: int | None  # 1 is the most likely


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Numbers of tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int  # prompt tokens served from a prefix cache


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Durations of a request's phases in seconds; ``None`` where one does not apply."""

    queue_s: float | None  # acceptance to first placement
    time_to_first_token_s: float | None  # acceptance to the first Tokens event
    prefill_s: float | None  # placement to first token, or the prefill leg of a split request
    transfer_s: float | None  # KV handoff of a split request
    decode_s: float | None  # first token to last
    total_s: float | None  # acceptance to the end


@dataclass(frozen=True, kw_only=True, slots=True)
class SloResult:
    """One latency target and whether it was met."""

    target: str  # "ttft", "tpot", "deadline"
    wanted_s: float  # seconds
    measured_s: float  # seconds
    met: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted(Plain):
    """The scheduler accepted the request.  The first event of every stream; it comes once."""

    request_id: str
    model: str
    prompt_tokens: int
    attached: bool  # the id was known; this stream attached to the existing request
    expected_wait_s: float | None  # predicted seconds in the queue
    warnings: tuple[str, ...]  # options that were accepted and have no effect


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheduled(Plain):
    """The request was placed on an instance.  It comes once per placement."""

    decision: Decision
    resumed_from_token: int  # output position at which this attempt continues; 0 for the first attempt
    choice: int = 0  # index of the output that was placed


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRead(Plain):
    """What the engine told of the prompt, where there is something to tell.  It comes before the first tokens."""

    choice: int
    cached_tokens: int  # served from a prefix cache
    logprobs: tuple[tuple[TokenLogprob, ...], ...]  # one per prompt token if requested, of choice 0; the first is empty


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens(Plain):
    """New output tokens; each token comes once and in order."""

    attempt: Attempt  # the attempt that generated the tokens
    choice: int
    first_index: int  # output position of token_ids[0]
    token_ids: tuple[int, ...]
    text_offset: int  # position of ``text`` in the whole output text, in Unicode code points
    text: str  # may lag behind the tokens: an incomplete character, a possible stop string
    logprobs: tuple[tuple[TokenLogprob, ...], ...]  # one per token if requested: the chosen token first


_set_attempt, _set_choice, _set_first_index, _set_token_ids, _set_text_offset, _set_text, _set_logprobs = (
    vars(Tokens)[name].__set__ for name in Tokens.__slots__
)


def new_tokens(
    attempt: Attempt,
    choice: int,
    first_index: int,
    token_ids: tuple[int, ...],
    text_offset: int,
    text: str,
    logprobs: tuple[tuple[TokenLogprob, ...], ...],
) -> Tokens:
    """Make a Tokens event, of which there is one per piece of output, at a third of the constructor's cost."""
    event = object.__new__(Tokens)
    _set_attempt(event, attempt)
    _set_choice(event, choice)
    _set_first_index(event, first_index)
    _set_token_ids(event, token_ids)
    _set_text_offset(event, text_offset)
    _set_text(event, text)
    _set_logprobs(event, logprobs)
    return event


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished(Plain):
    """The request finished.  The last event of a stream; failures are raised instead.

    Of several choices: reason and stop are those of choice 0, figures are those of all.
    """

    finish_reason: FinishReason
    stop_string: str | None  # the stop string that matched
    stop_token_id: int | None  # the stop token that matched
    usage: Usage
    timings: Timings
    attempts: int  # number of placements
    cost: float  # in the currency of the instances' prices
    slo: tuple[SloResult, ...]  # one per target of the request


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceFinished(Plain):
    """One choice of several finished; the others go on.  It comes after the choice's tokens."""

    choice: int
    finished: Finished  # of this choice alone


Event = Accepted | Scheduled | PromptRead | Tokens | ChoiceFinished | Finished
"""One event of a request's stream."""
