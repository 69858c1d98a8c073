"""The facts of an engine, known once its instance is READY."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sage_media.kinds import MediaInput
from scheduler_svc.domain.load_report import IterationSample

DIMENSIONS_LIMIT = 65_536
"""Most numbers of a vector."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parallelism:
    """How an engine is spread over GPUs."""

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    gpu_count: int = 0  # 0 on a CPU


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelIdentity:
    """What two engines must have in common, so that one can continue a text that the other began."""

    weights: str  # fingerprint; empty if the executor gives none
    dtype: str
    tokenizer_hash: str
    adapter_weights: str = ""  # fingerprint of the adapter that a request names

    def __str__(self) -> str:
        adapter = f", adapter {self.adapter_weights[:16]}" if self.adapter_weights else ""
        return f"weights {self.weights[:16] or 'unknown'}, {self.dtype}, tokenizer {self.tokenizer_hash[:12]}{adapter}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTimeAdapters:
    """The LoRA adapters of the registry at one engine, beside those from its start."""

    loaded: Mapping[str, str] = field(default_factory=dict, hash=False)  # fingerprint of each that it serves, by name
    loadable: frozenset[str] = frozenset()  # may be named: the engine can load them, and does once it has a slot
    leaving: frozenset[str] = frozenset()  # being removed: only requests that were accepted before use them
    # Fingerprints of those that it was reported to have, by name: requests may still run with one that makes room.
    had: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFacts:
    """Limits and abilities of one running engine; only its run-time adapters change while it runs."""

    engine: str
    engine_version: str
    revision: str = ""
    weights: str = ""  # fingerprint: engines with equal ones compute the same tokens
    dtype: str = ""
    vocab_size: int  # token ids are in [0, vocab_size)
    max_model_len: int  # tokens, prompt + output
    kv_capacity_tokens: int
    kv_block_size: int = 16  # tokens
    max_running: int  # sequences at once
    max_batched_tokens: int  # tokens of one iteration: the prefill chunk
    parallelism: Parallelism = Parallelism()
    gpu_name: str = ""
    gpu_memory_bytes: int = 0
    adapters: frozenset[str] = frozenset()
    adapter_weights: Mapping[str, str] = field(default_factory=dict, hash=False)  # fingerprints, also of those it had
    adapter_slots: int = 0  # adapters that it holds beside those from its start
    run_time: RunTimeAdapters = RunTimeAdapters()  # those in ``loaded`` are in ``adapters``, too
    supports_priority: bool = False
    structured_output_kinds: frozenset[str] = frozenset()
    kv_connector: str = ""  # empty: the engine cannot hand KV over
    compatibility_key: str = ""  # engines with equal keys can hand KV over to one another
    tokenizer_hash: str = ""
    prefix_caching: bool = False  # it keeps the KV of prompts for later requests that begin alike
    keeps_output_history: bool = False  # it goes on from delivered tokens as its own output
    config_json: str = field(default="", compare=False, repr=False)  # the model's config.json, for front ends
    generation_config_json: str = field(default="", compare=False, repr=False)  # the same of generation_config.json
    embedding_dimensions: int = 0  # it embeds and does not generate: length of its vectors; 0: it generates
    classifies: bool = False  # with embedding_dimensions: its vectors have one number per class
    media: tuple[MediaInput, ...] = ()  # kinds that it takes beside text, each once
    # How front ends process images and audio: content of files, by name.
    processor_files: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    can_sleep: bool = False  # it can leave its device's memory to others, and be woken
    # Iterations that its executor ran before the first request to learn how fast it is; empty: it did not.
    measured: tuple[IterationSample, ...] = field(default=(), compare=False, repr=False)

    @property
    def abilities(self) -> tuple[object, ...]:
        """What decides whether a request is valid here, apart from the engine's capacity."""
        kinds, vectors = self.structured_output_kinds, (self.embedding_dimensions, self.classifies)
        adapters = (self.adapters | self.run_time.loadable, self.run_time.leaving)
        return self.tokenizer_hash, self.max_model_len, self.vocab_size, adapters, kinds, vectors, self.media

    @property
    def longest(self) -> int:
        """Longest request, prompt and output in tokens, that fits the model's length and the whole KV cache."""
        return min(self.max_model_len, self.kv_capacity_tokens // self.kv_block_size * self.kv_block_size)

    def replaces(self, other: EngineFacts) -> bool:
        """Whether this engine, which generates as the other does, can serve each request that the other can."""
        return (
            self.identity == other.identity
            and self.longest >= other.longest
            and self.vocab_size >= other.vocab_size
            and self.adapters | self.run_time.loadable >= other.adapters | other.run_time.loadable
            and self.structured_output_kinds >= other.structured_output_kinds
            and all(theirs in self.media for theirs in other.media)
        )

    @property
    def started_with(self) -> frozenset[str]:
        """The adapters that the engine has from its start."""
        return self.adapters.difference(self.run_time.loaded)

    def with_adapters(self, found: RunTimeAdapters) -> EngineFacts:
        """Return these facts with other run-time adapters.  One from the engine's start stays what it is."""
        own = self.started_with
        loaded = {name: weights for name, weights in found.loaded.items() if name not in own}
        return replace(
            self,
            adapters=own.union(loaded),
            adapter_weights={**found.had, **{n: w for n, w in self.adapter_weights.items() if n in own}, **loaded},
            run_time=RunTimeAdapters(
                loaded=loaded,
                loadable=found.loadable.difference(own, loaded),
                leaving=found.leaving - own,
                had=found.had,
            ),
        )

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is, beyond the name it is served under."""
        return self.identity_for("")

    def identity_for(self, adapter: str) -> ModelIdentity:
        """Return which model serves a request that names ``adapter``; empty: none."""
        return ModelIdentity(
            weights=self.weights or self.revision,
            dtype=self.dtype,
            tokenizer_hash=self.tokenizer_hash,
            adapter_weights=self.adapter_weights.get(adapter, "") if adapter else "",
        )
