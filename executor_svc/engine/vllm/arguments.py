"""Translates the executor's settings to vLLM's engine arguments and environment, without importing vLLM."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, MutableMapping
from typing import Any

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm import output_history
from executor_svc.engine.vllm.kv_connectors import connector_named
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.runtime.engine_port import EngineError

ADAPTERS_IN_ONE_BATCH = 4
"""Different adapters in one batch where adapters are added at run time and ``max_loras`` is not set."""

WORKER_EXTENSION = "executor_svc.engine.vllm.worker_extension.WorkerExtension"


def engine_arguments(
    model: ModelSettings, settings: VllmSettings, path: str, *, embeds: bool = False
) -> dict[str, Any]:
    """Return keyword arguments for ``AsyncEngineArgs``.  ``path``: directory with the model's files.

    ``embeds``: the engine makes vectors instead of generating.

    Settings without a value are left out, so that vLLM's defaults apply.  The operator's ``engine_args`` are added
    last; ``VllmSettings`` has refused those that have a setting of their own or are fixed.
    """
    optional = {
        "tokenizer": model.tokenizer,
        "tokenizer_revision": model.tokenizer_revision,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_running,
        "max_num_batched_tokens": settings.max_batched_tokens,
        "kv_cache_memory_bytes": settings.kv_cache_bytes,
        "block_size": settings.kv_block_size,
        "enable_prefix_caching": settings.prefix_caching,
        "otlp_traces_endpoint": settings.traces_endpoint,
        "enable_sleep_mode": settings.sleep_mode or None,
    }
    arguments: dict[str, Any] = {
        "model": path,
        "served_model_name": model.name,
        "trust_remote_code": model.trust_remote_code,
        "dtype": settings.dtype,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "pipeline_parallel_size": settings.pipeline_parallel_size,
        "seed": settings.seed,
        "enforce_eager": settings.enforce_eager,
        **_lora_arguments(settings),
        "scheduling_policy": "priority",
        "disable_log_stats": True,  # only vLLM's own log lines; a stat logger, which we pass, enables statistics
        "enable_logging_iteration_details": True,
        "worker_extension_cls": WORKER_EXTENSION,
        **{name: value for name, value in optional.items() if value is not None},
    }
    if settings.tensor_parallel_size == settings.pipeline_parallel_size == 1:
        arguments["distributed_executor_backend"] = "uni"  # one process less
    if embeds:
        return arguments | {"runner": "pooling"} | settings.engine_args
    if settings.output_history:
        arguments["scheduler_cls"] = output_history.SCHEDULER
    # With "auto" the first request would choose the backend that compiles the constraints of all later ones.
    arguments["structured_outputs_config"] = {"backend": "xgrammar"}
    return arguments | settings.engine_args


def _lora_arguments(settings: VllmSettings) -> dict[str, Any]:
    """Return vLLM's arguments for LoRA adapters: none is evicted from memory while the engine holds it."""
    held = len(settings.adapters) + settings.adapter_slots
    found: dict[str, Any] = {"enable_lora": held > 0}
    if settings.adapter_slots:
        in_one_batch = int(settings.engine_args.get("max_loras", min(held, ADAPTERS_IN_ONE_BATCH)))
        found |= {"max_loras": in_one_batch, "max_cpu_loras": max(held, in_one_batch)}
    return found


def refuse_unknown(settings: VllmSettings, known: Iterable[str], version: str) -> None:
    """Raise EngineError if ``engine_args`` has names that this vLLM version does not know."""
    unknown = sorted(set(settings.engine_args) - set(known))
    if unknown:
        raise EngineError(f"vllm.engine_args: vLLM {version} has no engine argument {', '.join(map(repr, unknown))}")


def set_environment(
    settings: VllmSettings, environment: MutableMapping[str, str], side_channel_port: int | None = None
) -> None:
    """Set the environment variables that vLLM and its processes read.  Call before vLLM is imported.

    ``side_channel_port``: the KV connector's port; None without one.  An operator's own variable is kept only for the
    multiprocessing method, usage reports, TorchDynamo and the service name of spans; settings decide the others.
    """
    environment.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # a forked process that uses gRPC can hang
    environment.setdefault("VLLM_NO_USAGE_STATS", "1")
    environment["VLLM_ENGINE_READY_TIMEOUT_S"] = str(max(1, int(settings.start_timeout_s)))
    if settings.traces_endpoint is not None:
        environment.setdefault("OTEL_SERVICE_NAME", "vllm")  # of vLLM's spans; the executor's do not use this variable
    if settings.kv_cache_bytes is not None:
        environment.pop("VLLM_CPU_KVCACHE_SPACE", None)  # would take precedence over kv_cache_memory_bytes
    if settings.enforce_eager and shutil.which(environment.get("CXX", "g++")) is None:
        # Even an eager engine compiles a few functions when a request first needs one (log probabilities, for example).
        # On a CPU without a C++ compiler that would end the engine, and the functions also work uncompiled.
        environment.setdefault("TORCHDYNAMO_DISABLE", "1")
    if side_channel_port is not None:
        connector = connector_named(settings.kv_transfer.connector)
        environment.update(connector.environment(settings.kv_transfer, side_channel_port))
    if settings.cpu_cores is not None:
        environment["VLLM_CPU_OMP_THREADS_BIND"] = settings.cpu_cores
        environment["OMP_WAIT_POLICY"] = "PASSIVE"  # waiting threads must not occupy another engine's core
