"""A request as the caller stated it, checked and complete.  Values only: ``control`` keeps its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NamedTuple

from scheduler_svc.domain.media import Media


class Priority(IntEnum):
    """Class of a request; lower is sooner."""

    CRITICAL = 1
    HIGH = 2
    NORMAL = 3
    LOW = 4
    BACKGROUND = 5


class RequestState(Enum):
    """Where a request stands."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to the request."""
        return self not in (RequestState.QUEUED, RequestState.RUNNING)


class ResumeMode(Enum):
    """What to do when a continuation differs from what was delivered."""

    STRICT = "strict"  # fail when a replay differs from what was delivered
    BEST_EFFORT = "best_effort"  # go on from the delivered tokens all the same


class RequestKey(NamedTuple):
    """A request's id, scoped to its tenant, and which of its choices it is about.

    It is a key of many tables, and a tuple is hashed and compared without running Python code.
    """

    tenant: str
    request_id: str
    choice: int = 0  # 0 as well for a request as a whole

    def __str__(self) -> str:
        named = f"{self.tenant}/{self.request_id}" if self.tenant else self.request_id
        return f"{named}#{self.choice}" if self.choice else named

    def told_to(self, tenant: str) -> str:
        """Return this key in words for what ``tenant`` is told; ids of other tenants' requests are not."""
        return str(self) if self.tenant == tenant else "a request of another tenant"


@dataclass(frozen=True, kw_only=True, slots=True)
class StructuredOutput:
    """The constraint that output has to meet."""

    kind: str  # json_schema | json_object | regex | choice | grammar | structural_tag
    value: str  # schema, pattern, grammar, tag; for choice a JSON array of strings; for json_object empty
    reasoning_ended: bool | None = None  # whether the prompt ends after the reasoning; None: the engine finds out
    reasoning_arguments: str = ""  # of the engine's reasoning parser, a JSON object; empty: none


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How tokens are chosen; every default is applied."""

    temperature: float = 1.0  # 0 = greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 = all
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_in_output: bool = False
    min_tokens: int = 0
    max_tokens: int = 16  # output tokens
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_token_ids: tuple[int, ...] = ()
    bad_words: tuple[str, ...] = ()
    structured_output: StructuredOutput | None = None
    skip_special_tokens: bool = True
    cache_salt: str | None = None  # the prompt's KV is shared only with prompts of the same salt
    engine_options: Mapping[str, str] = field(default_factory=dict)  # the engine's own names to JSON values

    @property
    def resumable(self) -> bool:
        """Whether the engine's state after k tokens can be rebuilt from the tokens alone (docs/architecture.md).

        If not, a continuation at an engine that keeps no output history generates again from the prompt, and compares
        its tokens with those delivered.
        """
        return (
            (self.seed is None or self.temperature == 0)
            and self.presence_penalty == 0
            and self.frequency_penalty == 0
            and not self.bad_words
            and self.structured_output is None
            and not self.engine_options
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedding:
    """How a prompt becomes a vector."""

    dimensions: int | None = None  # length of the vector; None: the model's own
    normalize: bool = False  # scale it to length 1; False: as the model is configured
    raw: bool = False  # leave out the model's last step, such as scaling to length 1 or the sigmoid of a score


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A checked request.  Times are seconds on the scheduler's monotonic clock."""

    key: RequestKey
    model: str
    prompt_token_ids: Sequence[int]
    tokenizer_hash: str = ""  # of the tokenizer that made the prompt's ids; empty if the caller sent ids
    largest_token_id: int = 0  # of the prompt and of the ids that sampling names
    sampling: Sampling
    priority: Priority = Priority.NORMAL
    arrived_at: float  # kept over resumes
    deadline_at: float | None = None  # the request expires then
    deadline_stated: bool = True  # True: by the caller, so it is a target; False: a default that only bounds waiting
    ttft_target_s: float | None = None  # arrival to first token
    tpot_target_s: float | None = None  # per output token after the first
    cost_budget: float | None = None  # currency of the instances' price
    session: str = ""
    preferred_instance: str = ""
    adapter: str = ""
    wait_for_instance: bool = False  # wait in the queue if no instance serves the model now
    resume_mode: ResumeMode = ResumeMode.STRICT
    tags: Mapping[str, str] = field(default_factory=dict)
    trace_headers: Mapping[str, str] = field(default_factory=dict)  # W3C traceparent, tracestate
    prefix_hashes: tuple[int, ...] = ()  # 64-bit hash of each whole block of the prompt, each over its whole prefix
    prefix_block_tokens: int = 0  # tokens per block of ``prefix_hashes``; 0 where there are none
    embedding: Embedding | None = None  # a vector of the prompt is wanted, and nothing is generated
    choices: int = 1  # outputs of the prompt; each is a request like this one, with its index in its key
    first_choice_prompt_logprobs: int | None = None  # of a choice but 0: ``prompt_logprobs``, which choice 0 gives
    media: tuple[Media, ...] = ()  # one for each placeholder of its kind in the prompt, in order
    media_tokens: int = 0  # most tokens that they take beside their placeholders

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt; with images or audio, the most that it can have."""
        return len(self.prompt_token_ids) + self.media_tokens

    @property
    def total_tokens(self) -> int:
        """The tokens that it has at most: prompt and all the output that is allowed."""
        return self.prompt_tokens + (0 if self.embedding is not None else self.sampling.max_tokens)

    @property
    def plain(self) -> bool:
        """Whether any engine of its model serves it that generates and has the length, vocabulary and tokenizer."""
        return not (
            self.adapter or self.media or self.embedding is not None or self.sampling.structured_output is not None
        )

    @property
    def target_at(self) -> float | None:
        """The deadline if the caller stated it; a default deadline is no target."""
        return self.deadline_at if self.deadline_stated else None
