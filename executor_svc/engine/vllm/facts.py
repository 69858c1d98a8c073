"""Reads a started vLLM engine's facts, request limits, compatibility key and tokenizer files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from executor_svc.engine.checks import Limits
from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm.gpus import Gpus
from executor_svc.engine.vllm.kv_connectors import configured_connector
from executor_svc.engine.vllm.kv_connectors.connector import KvLayout
from executor_svc.engine.vllm.media_input import media_inputs_of, processor_chat_template
from executor_svc.engine.vllm.models import ResolvedModel, adapter_fingerprint, weights_fingerprint
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.engine.vllm.sleep import has_sleep
from executor_svc.runtime.engine_port import EngineFacts, ModelError, StructuredKind, TokenizerFiles


def engine_facts(
    llm: Any,
    model: ModelSettings,
    settings: VllmSettings,
    resolved: ResolvedModel,
    gpus: Gpus,
    *,
    reports_cache: bool = False,
) -> EngineFacts:
    """Read the facts of ``llm``, a started AsyncLLM.  Raises ModelError for a tokenizer the scheduler cannot use.

    ``reports_cache``: whether the engine was told to publish what its prefix cache holds.
    """
    import vllm

    config = llm.vllm_config
    media = media_inputs_of(config.model_config)
    cache, parallel, scheduler = config.cache_config, config.parallel_config, config.scheduler_config
    return EngineFacts(
        engine="vllm",
        engine_version=vllm.__version__,
        model=model.name,
        revision=resolved.revision,
        dtype=str(config.model_config.dtype).removeprefix("torch."),
        vocab_size=config.model_config.get_vocab_size(),
        max_model_len=config.model_config.max_model_len,
        kv_capacity_tokens=cache.kv_cache_size_tokens or (cache.num_gpu_blocks or 0) * cache.block_size,
        kv_block_size=cache.block_size,
        max_running=scheduler.max_num_seqs,
        max_batched_tokens=scheduler.max_num_batched_tokens,
        tensor_parallel_size=parallel.tensor_parallel_size,
        pipeline_parallel_size=parallel.pipeline_parallel_size,
        data_parallel_size=parallel.data_parallel_size,
        gpu_count=gpus.count,
        gpu_name=gpus.name,
        gpu_memory_bytes=gpus.total_bytes,
        adapters=tuple(settings.adapters),
        supports_priority=scheduler.policy == "priority",
        structured_output_kinds=frozenset(StructuredKind),
        kv_connector=settings.kv_transfer.connector or None,
        tokenizer=_tokenizer_files(llm.get_tokenizer(), resolved, processor_chat_template(config.model_config)),
        eos_token_ids=_end_ids(config.model_config, llm.get_tokenizer()),
        compatibility_key=_compatibility_key(config, settings, resolved),
        kv_lease_s=settings.kv_transfer.lease_s if settings.kv_transfer.connector else None,
        prefix_caching=bool(cache.enable_prefix_caching),
        reports_cache=reports_cache and bool(cache.enable_prefix_caching),
        weights=weights_fingerprint(resolved.path),
        adapter_weights={name: adapter_fingerprint(path) for name, path in settings.adapters.items()},
        adapter_slots=_adapter_slots(config, settings),
        adapter_rank=config.lora_config.max_lora_rank if settings.adapter_slots else 0,
        config_json=_content(resolved, "config.json"),
        generation_config_json=_content(resolved, "generation_config.json"),
        media=media,
        processor_files=_processor_files(resolved) if media else {},
        can_sleep=bool(config.model_config.enable_sleep_mode) and has_sleep(llm),
    )


def embedding_facts(
    llm: Any, model: ModelSettings, settings: VllmSettings, resolved: ResolvedModel, gpus: Gpus, *, classifies: bool
) -> EngineFacts:
    """Read the facts of ``llm``, a started AsyncLLM that embeds.  Raises ModelError as ``engine_facts`` does.

    ``classifies``: its vectors have a number per class.
    """
    facts = engine_facts(llm, model, settings, resolved, gpus)
    config = llm.vllm_config.model_config
    size = getattr(config, "embedding_size", None) or config.get_hidden_size()
    if classifies:
        size = int(config.hf_config.num_labels)
    # A model that looks both ways at a text has no KV cache: then every sequence fits.
    room = facts.kv_capacity_tokens or facts.max_running * (facts.max_model_len + facts.kv_block_size)
    return replace(
        facts,
        embedding_dimensions=size,
        classifies=classifies,
        kv_capacity_tokens=room,
        structured_output_kinds=frozenset(),
        eos_token_ids=frozenset(),
        kv_connector=None,
        compatibility_key="",
        kv_lease_s=None,
        media=(),
        processor_files={},
    )


def _adapter_slots(config: Any, settings: VllmSettings) -> int:
    """Return how many adapters are added at most; ``engine_args.max_cpu_loras`` may allow fewer than the setting."""
    if not settings.adapter_slots:
        return 0
    in_memory: int = config.lora_config.max_cpu_loras
    return max(0, min(settings.adapter_slots, in_memory - len(settings.adapters)))


def _content(resolved: ResolvedModel, name: str) -> str:
    """Return the content of one of the model's files; nothing if it cannot be read."""
    try:
        return (Path(resolved.path) / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _processor_files(resolved: ResolvedModel) -> dict[str, str]:
    found = {name: _content(resolved, name) for name in ("preprocessor_config.json", "processor_config.json")}
    return {name: content for name, content in found.items() if content}


def request_limits(config: Any, facts: EngineFacts, settings: VllmSettings) -> Limits:
    """Return the limits that requests are checked against.  ``config``: vLLM's VllmConfig."""
    top = config.model_config.max_logprobs
    return Limits(
        vocab_size=facts.vocab_size,
        max_model_len=facts.max_model_len,
        max_logprobs=facts.vocab_size if top == -1 else top,
        adapters=frozenset(facts.adapters),
        kv_connector=facts.kv_connector is not None,
        request_options=frozenset(settings.request_options),
        media=facts.media,
    )


def _compatibility_key(config: Any, settings: VllmSettings, resolved: ResolvedModel) -> str:
    """Return the key that is equal for engines that can fetch KV from each other; empty without a connector."""
    import vllm

    connector = configured_connector(settings.kv_transfer)
    if connector is None:
        return ""
    model, parallel = config.model_config, config.parallel_config
    layout = KvLayout(
        engine_version=vllm.__version__,
        model=resolved.path,
        weights=weights_fingerprint(resolved.path),
        dtype=str(model.dtype),
        cache_dtype=str(config.cache_config.cache_dtype),
        block_size=config.cache_config.block_size,
        kv_heads=model.get_total_num_kv_heads(),
        head_size=model.get_head_size(),
        layers=model.get_total_num_hidden_layers(),
        tensor_parallel_size=parallel.tensor_parallel_size,
        pipeline_parallel_size=parallel.pipeline_parallel_size,
    )
    return connector.compatibility_key(layout, settings.kv_transfer)


def _end_ids(model_config: Any, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end a generation in vLLM: the tokenizer's, and those of the model's generation config."""
    configured = model_config.try_get_generation_config().get("eos_token_id")
    ids = [configured] if isinstance(configured, int) else list(configured or ())
    if tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    return frozenset(ids)


def _tokenizer_files(tokenizer: Any, resolved: ResolvedModel, of_processor: str | None) -> TokenizerFiles:
    """Return the tokenizer files for the scheduler.  Raises ModelError.

    ``of_processor``: the chat template of the model's processor, which vLLM's server prefers to the tokenizer's.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            f"the `tokenizers` library cannot read the tokenizer of {resolved.path}; name another one with "
            "model.tokenizer"
        )
    template = resolved.chat_template or of_processor or tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return TokenizerFiles(
        tokenizer_json=backend.to_str(),
        chat_template=template,
        special_tokens={name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)},
    )
