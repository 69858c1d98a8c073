"""Makes a simulated engine's facts, request limits and compatibility key from its settings."""

from __future__ import annotations

import json

from executor_svc.engine.checks import Limits
from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.simulated.structured import SUPPORTED
from executor_svc.engine.simulated.tokenizer import EOS_ID, tokenizer_files
from executor_svc.engine.simulated.tokens import weights_name
from executor_svc.runtime.engine_port import EngineFacts

ENGINE_VERSION = "1"

EMBEDDING_DIMENSIONS = 64
"""Length of the vectors of an engine that embeds; requests may ask for shorter ones."""


def engine_facts(model: ModelSettings, settings: SimulatedSettings, *, embeds: bool = False) -> EngineFacts:
    """Return the facts of a simulated engine with these settings.  ``embeds``: it embeds instead of generating."""
    transfer = settings.kv_transfer
    return EngineFacts(
        engine="simulated",
        engine_version=ENGINE_VERSION,
        model=model.name,
        revision=model.revision,
        dtype="none",
        vocab_size=settings.vocab_size,
        max_model_len=settings.max_model_len,
        kv_capacity_tokens=settings.kv_capacity_tokens // settings.kv_block_size * settings.kv_block_size,
        kv_block_size=settings.kv_block_size,
        max_running=settings.max_running,
        max_batched_tokens=settings.max_batched_tokens,
        tensor_parallel_size=1,
        pipeline_parallel_size=1,
        data_parallel_size=1,
        gpu_count=0,
        gpu_name=None,
        gpu_memory_bytes=None,
        adapters=settings.adapters,
        adapter_slots=settings.adapter_slots,
        adapter_rank=settings.adapter_rank if settings.adapter_slots else 0,
        supports_priority=True,
        structured_output_kinds=SUPPORTED,
        kv_connector=transfer.connector or None,
        tokenizer=tokenizer_files(settings.vocab_size),
        eos_token_ids=frozenset({EOS_ID}),
        compatibility_key=compatibility_key(model, settings),
        kv_lease_s=transfer.lease_s if transfer.connector else None,
        prefix_caching=True,
        reports_cache=True,
        keeps_output_history=settings.output_history,
        weights=f"simulated {weights_name(model)}",
        config_json=json.dumps(config_json(settings.vocab_size, settings.max_model_len)),
        embedding_dimensions=EMBEDDING_DIMENSIONS if embeds else 0,
        can_sleep=settings.sleep_mode,
    )


def config_json(vocab_size: int, max_model_len: int) -> dict[str, object]:
    """Return a config.json with which front ends take the engine for one that runs a small Qwen3 model."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": vocab_size,
        "max_position_embeddings": max_model_len,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "eos_token_id": EOS_ID,
        "torch_dtype": "float32",
    }


def compatibility_key(model: ModelSettings, settings: SimulatedSettings) -> str:
    """Return the key that is equal for engines that can fetch KV from each other; empty without a connector."""
    transfer = settings.kv_transfer
    if not transfer.connector:
        return ""
    layout = f"{settings.kv_block_size}/{transfer.bytes_per_token}"
    return f"{transfer.connector}/simulated-{ENGINE_VERSION}/{model.name}/{layout}"


def request_limits(settings: SimulatedSettings, *, embeds: bool = False) -> Limits:
    """Return the limits that requests are checked against."""
    return Limits(
        vocab_size=settings.vocab_size,
        max_model_len=settings.max_model_len,
        max_logprobs=settings.max_logprobs,
        adapters=frozenset(settings.adapters),
        kv_connector=bool(settings.kv_transfer.connector),
        output_history=settings.output_history,
        embedding_dimensions=EMBEDDING_DIMENSIONS if embeds else 0,
    )
