"""The port between the executor's runtime and an engine: what every engine takes, gives and reports.

Two engines implement it: ``engine.vllm`` and ``engine.simulated``.  Both pass the suite in ``tests/contract/engine``.
An engine takes and returns token ids only.  The runtime makes text of them (``runtime.text``), so that the text and the
stop strings of a resumed request are right with any engine, also where the earlier attempt broke off.

A request's outputs are taken in one of two ways.  ``submit`` gives the outputs of many requests in one list per engine
step, and needs no task, queue or generator for a request: the usual way.  ``generate`` gives one request's outputs, for
those that an engine refuses to ``submit``.

Every method is called, and every callback is made, on one asyncio event loop.  An engine with threads of its own passes
its results to that loop itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from sage_media.kinds import MediaInput, MediaKind

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


class EngineState(Enum):
    """The engine's stage on its way to serving.  A normal start goes through them in order, up to READY."""

    DOWNLOADING = "downloading"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    FAILED = "failed"


class FinishReason(Enum):
    """Why an engine ended a request."""

    STOP = "stop"  # an end-of-sequence or stop token id (runtime adds stop strings)
    LENGTH = "length"  # max_tokens or the model's length reached
    ABORTED = "aborted"  # the engine ended it without our asking


class EngineError(Exception):
    """The engine failed this request; another instance may succeed."""


class EngineDeadError(EngineError):
    """The engine is gone for good; the process must exit and be started again."""


class InvalidRequestError(Exception):
    """The engine found the caller's request invalid.  Never retried, never counted against the instance's health."""

    def __init__(self, field_name: str, message: str) -> None:
        super().__init__(message)
        self.field_name = field_name  # contract path, e.g. "sampling.structured_output.json_schema"
        self.message = message


class ModelError(Exception):
    """The model is missing, broken or does not fit; the message says which model and what to do."""


class StructuredKind(Enum):
    """The kinds of constraint that structured output has."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"  # any JSON object; value is empty
    REGEX = "regex"
    CHOICE = "choice"  # value is a JSON array of strings
    GRAMMAR = "grammar"  # EBNF
    STRUCTURAL_TAG = "structural_tag"  # JSON object of xgrammar's form, with "format"


@dataclass(frozen=True, kw_only=True, slots=True)
class StructuredOutput:
    """A constraint that the whole output satisfies, or what follows its reasoning."""

    kind: StructuredKind
    value: str
    reasoning_ended: bool | None = None  # whether the prompt ends after the reasoning; None: the engine finds out
    reasoning_arguments: str = ""  # of the engine's reasoning parser, a JSON object; empty: none


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Sampling options that every engine understands, with defaults applied.

    Ranges are checked before a request reaches an engine.
    """

    temperature: float = 1.0  # [0, 2]; 0 = greedy
    top_p: float = 1.0  # (0, 1]
    top_k: int = 0  # 0 = all
    min_p: float = 0.0  # [0, 1]
    presence_penalty: float = 0.0  # [-2, 2]
    frequency_penalty: float = 0.0  # [-2, 2]
    repetition_penalty: float = 1.0  # > 0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    bad_words: tuple[str, ...] = ()
    min_tokens: int = 0
    max_tokens: int = 16
    logprobs: int | None = None  # top logprobs per output token; 0 = the chosen one only
    prompt_logprobs: int | None = None
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_token_ids: tuple[int, ...] = ()
    structured_output: StructuredOutput | None = None
    cache_salt: str | None = None  # the prompt's KV is shared only with prompts of the same salt
    engine_options: Mapping[str, str] = field(default_factory=dict)  # the engine's own names to JSON values


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterSource:
    """A LoRA adapter that is added while the engine runs, and where its weights are."""

    name: str  # what requests name
    source: str  # directory on this machine, or id on the model hub
    revision: str = ""  # branch, tag or commit of the hub; empty: the default branch, or a directory
    max_rank: int = 0  # a larger rank is refused; 0: the engine's own bound only


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedAdapter:
    """Facts of an adapter, known once the engine made tokens with it."""

    weights: str  # fingerprint: engines with equal ones compute the same with it
    rank: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingOptions:
    """How a prompt becomes a vector."""

    dimensions: int | None = None  # length of the vector; None: the model's own
    normalize: bool = False  # scale it to length 1; False: as the model is configured
    raw: bool = False  # leave out the model's last step, such as scaling to length 1 or the sigmoid of a score


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineMedia:
    """An image or an audio clip of a prompt, as its caller sent it."""

    kind: MediaKind = MediaKind.IMAGE
    data: bytes = field(repr=False)
    digest: str  # SHA-256 of the data, hex: by it the engine knows one that it had before


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineRequest:
    """One run of the engine."""

    engine_request_id: str  # unique for the engine's life: "<request>/<attempt>"
    prompt_token_ids: Sequence[int]
    sampling: Sampling
    priority: int = 0  # lower = sooner
    trace_headers: Mapping[str, str] | None = None  # W3C traceparent, tracestate
    adapter: str | None = None  # LoRA adapter by its configured name
    prefill_only: bool = False  # keep the prompt's KV for another engine; the last output says how to fetch it
    kv_transfer_params: Mapping[str, JsonValue] | None = None  # fetch the prompt's KV: another engine's last output
    output_history: Sequence[int] = ()  # output tokens delivered before: the run goes on after them and counts them
    embedding: EmbeddingOptions | None = None  # make a vector of the prompt, and generate nothing
    media: Sequence[EngineMedia] = ()  # one for each placeholder of its kind in the prompt, in order
    media_tokens: int = 0  # most tokens that they take beside their placeholders

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt; with images or audio, the most that it can have."""
        return len(self.prompt_token_ids) + self.media_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLogprob:
    """One candidate for a position, and its log probability."""

    token_id: int
    logprob: float
    rank: int | None  # 1 = most likely


@dataclass(slots=True, kw_only=True)
class EngineOutput:
    """The output of one engine step for one request.

    ``token_ids`` are new since the last output; they may be empty at the end.
    """

    token_ids: Sequence[int]
    logprobs: list[list[TokenLogprob]] | None = None  # one list per new token, chosen token first
    prompt_logprobs: list[list[TokenLogprob] | None] | None = None  # one per prompt token (first None); first output
    finish_reason: FinishReason | None = None  # set on the last output
    stop_token_id: int | None = None  # the stop/eos token that ended it, when one did
    cached_prompt_tokens: int | None = None  # prompt tokens served from the prefix cache; set once known
    kv_transfer_params: Mapping[str, JsonValue] | None = None  # on the last output of a prefill_only request
    kv_kept_s: float = 0.0  # with kv_transfer_params: seconds of the KV lease that passed before this output was read
    kv_pull_failed: bool = False  # first output: the prompt's KV could not be fetched and was computed here
    embedding: bytes | None = None  # the only output of a request with ``embedding``: little-endian 32-bit floats


StepOutput = list[int] | EngineOutput | EngineError | InvalidRequestError
"""What a submitted request put out in one step.

Usually its new token ids and nothing else.  An EngineOutput says more: the first and the last output.  An error ends
the request.
"""


class StepReader(Protocol):
    """Takes the outputs of one submitted request."""

    def take(self, output: StepOutput) -> None:
        """Take what one step put out.  Raises nothing.  Nothing follows a ``finish_reason`` or an error."""
        ...


Step = Sequence[tuple[StepReader, StepOutput]]
"""The outputs of one step, for all submitted requests or for some of them; each request at most once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerFiles:
    """The files that the scheduler needs to tokenize for this model.  Small (a few MB at most)."""

    tokenizer_json: str  # content in the `tokenizers` library's format
    chat_template: str | None  # Jinja source, None if the model has none
    special_tokens: Mapping[str, str] = field(default_factory=dict)  # template variables: bos_token, eos_token, ...


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFacts:
    """The fixed properties of an engine, known once it is READY.  Adapters that are added later are not in them."""

    engine: str  # "vllm" | "simulated"
    engine_version: str
    model: str  # the name clients ask for
    revision: str | None  # resolved commit of a hub model
    dtype: str
    vocab_size: int  # token ids are in [0, vocab_size)
    max_model_len: int  # tokens, prompt + output
    kv_capacity_tokens: int
    kv_block_size: int  # tokens
    max_running: int  # sequences the engine runs at once
    max_batched_tokens: int  # tokens of one iteration: the prefill chunk
    tensor_parallel_size: int
    pipeline_parallel_size: int
    data_parallel_size: int
    gpu_count: int  # 0 on CPU
    gpu_name: str | None
    gpu_memory_bytes: int | None
    adapters: tuple[str, ...]
    supports_priority: bool
    structured_output_kinds: frozenset[StructuredKind]
    kv_connector: str | None  # KV connector in use, None when the engine cannot hand over
    tokenizer: TokenizerFiles
    eos_token_ids: frozenset[int] = frozenset()  # ids that end generation by themselves, beside the tokenizer's own
    compatibility_key: str = ""  # engines with equal keys can hand KV to each other; empty without a connector
    kv_lease_s: float | None = None  # seconds that a prompt's KV is kept to be fetched; None without a connector
    prefix_caching: bool = False  # it keeps the KV of prompts for later ones that begin alike
    reports_cache: bool = False  # ``take_cache_events`` tells what its prefix cache holds
    keeps_output_history: bool = False  # it takes ``EngineRequest.output_history``
    weights: str = ""  # fingerprint: engines with equal weights, dtype and tokenizer run the same model
    adapter_weights: Mapping[str, str] = field(default_factory=dict)  # fingerprint of each adapter's weights
    adapter_slots: int = 0  # adapters that ``add_adapter`` takes beside ``adapters``
    adapter_rank: int = 0  # largest rank of one that it takes
    config_json: str = field(default="", repr=False)  # content of the model's config.json; empty: it has none
    generation_config_json: str = field(default="", repr=False)  # content of its generation_config.json
    embedding_dimensions: int = 0  # it embeds and does not generate: length of its vectors; 0: it generates
    classifies: bool = False  # with embedding_dimensions: its vectors have one number per class
    media: tuple[MediaInput, ...] = ()  # kinds that it takes beside text, each once
    processor_files: Mapping[str, str] = field(
        default_factory=dict, repr=False
    )  # how it processes images and audio: by file name
    can_sleep: bool = False  # it takes ``sleep`` and ``wake_up``


@dataclass(frozen=True, kw_only=True, slots=True)
class Iteration:
    """One engine iteration that scheduled tokens, or the mean of some consecutive ones."""

    index: int  # counts iterations with scheduled tokens, from 1; of several, the last
    prefill_tokens: int
    decode_tokens: int
    running: int  # sequences
    kv_used_tokens: int
    elapsed_s: float
    steps: int = 1  # that it is the mean of


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineLoad:
    """A snapshot for the heartbeat.  Counters count from the engine's start."""

    running: int
    waiting: int
    unfinished: int  # requests that the engine has and that have not ended: runnable work
    kv_used_tokens: int
    prefix_queries_tokens: int
    prefix_hits_tokens: int
    prompt_tokens_total: int
    generation_tokens_total: int
    iterations: int  # iterations with scheduled tokens so far: progress
    known_wait: str | None = None  # why the engine makes no progress now (grammar compile, KV pull), else None
    gpu_memory_used_bytes: int | None = None
    kv_pulls: int = 0  # prompts whose KV was fetched from another engine
    kv_pulls_failed: int = 0  # prompts whose KV could not be fetched
    kv_leases_expired: int = 0  # prompts whose KV was kept for another engine and not fetched in time
    submissions: Mapping[str, int] = field(default_factory=dict)  # calls of ``submit``: taken ("steps"), or why refused


@dataclass(frozen=True, kw_only=True, slots=True)
class BlocksStored:
    """Consecutive KV blocks of one prefix that are in the prefix cache now; the engine names them by its own hashes."""

    hashes: Sequence[Hashable]
    parent: Hashable | None  # the block before the first one; None at the beginning of a prompt
    token_ids: Sequence[int]  # of all these blocks
    adapter: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlocksRemoved:
    """KV blocks that are in the prefix cache no more."""

    hashes: Sequence[Hashable]


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheCleared:
    """Nothing that was told of the prefix cache before counts any more: it was emptied, or events were lost."""


CacheEvent = BlocksStored | BlocksRemoved | CacheCleared


class Engine(Protocol):
    """A started engine.  All methods are called on the event loop that started it."""

    @property
    def facts(self) -> EngineFacts:
        """The fixed properties of this engine."""
        ...

    def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        """Run any request; the last output carries ``finish_reason``.

        Closing the generator aborts the request in the engine and frees its KV cache.  Raises, from the first or any
        later ``anext``: InvalidRequestError, EngineError, EngineDeadError.
        """
        ...

    def submit(self, request: EngineRequest, reader: StepReader) -> bool:
        """Run one request whose outputs come in the lists that ``on_outputs`` asks for, each with ``reader``.

        Return at once: True, or False if this engine runs such a request by ``generate`` only.  Raises
        InvalidRequestError, EngineError, EngineDeadError; an error that is found later comes as the request's output.
        """
        ...

    async def abort(self, engine_request_id: str) -> None:
        """Abort a submitted request and free its KV cache; from the call on, nothing more of it comes.

        Return when the engine was told.  A request that is over or unknown is ignored.  Raises EngineDeadError.
        """
        ...

    def on_outputs(self, callback: Callable[[Step], None]) -> None:
        """Have ``callback`` take the outputs of submitted requests.  It raises nothing; the latest one counts."""
        ...

    async def stop(self, engine_request_id: str) -> None:
        """End a request of ``generate`` early; its stream then ends by itself.

        The stream ends with ABORTED, or with its normal end if the request was over already.  Closing the generator
        instead would lose the last output, which for a finished prefill says how to fetch or release its KV.  An
        unknown request is ignored.  Raises EngineDeadError.
        """
        ...

    async def release_kv(self, kv_transfer_params: Mapping[str, JsonValue]) -> bool:
        """Tell the engine that keeps a prompt's KV that nobody will fetch it.

        The parameters are those of the prefill's last output.  Return True if the message reached that engine, as far
        as can be known; False if that engine keeps the KV until the lease ends.  Raises EngineError for parameters that
        make no sense, EngineDeadError.
        """
        ...

    async def add_adapter(self, source: AdapterSource) -> LoadedAdapter:
        """Load a LoRA adapter, so that requests may name it; the one before it has been added or refused.

        Files are read in a thread.  Raises ModelError for one that cannot be loaded, and says why: its files, its rank,
        the engine's slots, or a name that is taken; EngineError, EngineDeadError.
        """
        ...

    async def remove_adapter(self, name: str) -> None:
        """Unload an adapter that ``add_adapter`` loaded and that no request uses.  An unknown one is ignored.

        Raises EngineError, EngineDeadError.
        """
        ...

    async def sleep(self) -> None:
        """Free the device's memory: the weights go to the host's memory, all KV and the prefix cache are dropped.

        Until ``wake_up`` returns, every request is refused with EngineError.  An engine that sleeps stays as it is.
        Raises EngineError, and changes nothing, for an engine that cannot sleep or that has a request; EngineDeadError
        for every other failure: then nobody knows what the device holds.
        """
        ...

    async def wake_up(self) -> None:
        """Bring the weights back to the device, with an empty KV cache.  An engine that is awake stays as it is.

        Raises EngineError for an engine that cannot sleep, EngineDeadError for every other failure, such as a device
        without the memory.
        """
        ...

    def load(self) -> EngineLoad:
        """Return the current load.  Cheap, because it is called for every heartbeat."""
        ...

    def take_iterations(self) -> Sequence[Iteration]:
        """Return the iterations since the last call, oldest first.

        Only the latest 256 are kept: the scheduler's predictor needs a sample, not every iteration.
        """
        ...

    def take_cache_events(self) -> Sequence[CacheEvent]:
        """Return what changed in the prefix cache since the last call, oldest first.

        Empty if the engine does not tell (``EngineFacts.reports_cache``).  Bounded: where too much happened between two
        calls, ``CacheCleared`` stands for what was lost.
        """
        ...

    def on_step(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` on the event loop after each step, when all its outputs were taken.

        The runtime then sends the step's outputs as one frame.
        """
        ...

    async def check_health(self) -> None:
        """Raise EngineDeadError if the engine is gone."""
        ...

    async def shutdown(self) -> None:
        """End the engine and every process it started.  Idempotent."""
        ...


ProgressListener = Callable[[EngineState, float | None, str], None]  # state, fraction in [0, 1] if known, message


class EngineFactory(Protocol):
    """Starts one engine."""

    async def start(self, progress: ProgressListener) -> Engine:
        """Start the engine and return it when it serves.

        ``progress`` is called at each stage.  Raises ModelError, or EngineError with a sentence an operator can act on.
        """
        ...
