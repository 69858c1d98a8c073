"""The facts of engines that executors report, checked and converted."""

from __future__ import annotations

from sage.controlplane.v1 import common_pb2, executor_pb2
from sage_media.kinds import MediaInput
from sage_wire.protocol import MODEL_CONFIG_LIMIT_BYTES, PROCESSOR_FILES
from scheduler_svc.domain.engine_facts import DIMENSIONS_LIMIT, EngineFacts, Parallelism
from scheduler_svc.transport import engine_reports, media_inputs
from scheduler_svc.transport.executor_fields import bounded, few, refused

ADAPTERS_LIMIT = 4_096
MEASURED_LIMIT = 64  # iterations
_FACT_TEXTS = (
    *("engine", "engine_version", "model", "revision", "weights", "dtype"),
    *("gpu_name", "kv_connector", "compatibility_key", "tokenizer_hash"),
)


def facts(wire: executor_pb2.EngineFacts) -> EngineFacts:
    """Convert and check the facts of an engine.  Raises WireError if a size is not positive, or a text too long."""
    _check(wire)
    return EngineFacts(
        engine=wire.engine,
        engine_version=wire.engine_version,
        revision=wire.revision,
        weights=wire.weights,
        dtype=wire.dtype,
        vocab_size=wire.vocab_size,
        max_model_len=wire.max_model_len,
        kv_capacity_tokens=wire.kv_capacity_tokens,
        kv_block_size=max(1, wire.kv_block_size),
        max_running=wire.max_running,
        max_batched_tokens=wire.max_batched_tokens,
        parallelism=_parallelism(wire.parallelism_config),
        gpu_name=wire.gpu_name,
        gpu_memory_bytes=wire.gpu_memory_bytes,
        adapters=frozenset(wire.adapters),
        adapter_weights=dict(wire.adapter_weights),
        adapter_slots=min(wire.adapter_slots, ADAPTERS_LIMIT),
        can_sleep=wire.can_sleep,
        supports_priority=wire.supports_priority,
        structured_output_kinds=frozenset(wire.structured_output_kinds),
        kv_connector=wire.kv_connector,
        compatibility_key=wire.compatibility_key,
        tokenizer_hash=wire.tokenizer_hash,
        prefix_caching=wire.prefix_caching,
        keeps_output_history=wire.keeps_output_history,
        config_json=wire.config_json,
        generation_config_json=wire.generation_config_json,
        embedding_dimensions=wire.embedding_dimensions,
        classifies=wire.classifies,
        processor_files=_processor_files(wire),
        media=_media(wire),
        measured=engine_reports.samples(wire.measured_iterations[:MEASURED_LIMIT]),
    )


def _check(wire: executor_pb2.EngineFacts) -> None:
    for name in ("vocab_size", "max_model_len", "kv_capacity_tokens", "max_running", "max_batched_tokens"):
        if getattr(wire, name) <= 0:
            raise refused(f"facts.{name}", "must be positive")
    if wire.embedding_dimensions > DIMENSIONS_LIMIT:
        raise refused("facts.embedding_dimensions", f"is {wire.embedding_dimensions}; at most {DIMENSIONS_LIMIT}")
    for name in _FACT_TEXTS:
        bounded(f"facts.{name}", getattr(wire, name))
    for name in ("adapters", "structured_output_kinds"):
        few(f"facts.{name}", getattr(wire, name), ADAPTERS_LIMIT)
        for each in getattr(wire, name):
            bounded(f"facts.{name}", each)
    few("facts.adapter_weights", wire.adapter_weights, ADAPTERS_LIMIT)
    for name, fingerprint in wire.adapter_weights.items():
        bounded("facts.adapter_weights", name)
        bounded("facts.adapter_weights", fingerprint)
    for name in ("config_json", "generation_config_json"):
        bounded(f"facts.{name}", getattr(wire, name), MODEL_CONFIG_LIMIT_BYTES)


def _processor_files(wire: executor_pb2.EngineFacts) -> dict[str, str]:
    """Return the files that front ends process images and audio with; others are left out."""
    found = {name: wire.processor_files[name] for name in PROCESSOR_FILES if name in wire.processor_files}
    for name, content in found.items():
        bounded(f"facts.processor_files[{name!r}]", content, MODEL_CONFIG_LIMIT_BYTES)
    return found


def _media(wire: executor_pb2.EngineFacts) -> tuple[MediaInput, ...]:
    try:
        return media_inputs.from_wire(wire)
    except ValueError as error:
        raise refused(*error.args) from None


def _parallelism(wire: common_pb2.ParallelismConfig) -> Parallelism:
    return Parallelism(
        tensor_parallel_size=max(1, wire.tensor_parallel_size),
        pipeline_parallel_size=max(1, wire.pipeline_parallel_size),
        data_parallel_size=max(1, wire.data_parallel_size),
        gpu_count=wire.gpu_count,
    )
