"""What is known of an engine once it is up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from executor_svc.runtime.engine_port.load import Iteration
from executor_svc.runtime.engine_port.sampling import StructuredKind
from sage_media.kinds import MediaInput


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
    measured: tuple[Iteration, ...] = ()  # run before the first request to learn its speed; empty: not measured
