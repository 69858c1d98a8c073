"""Records what of a vLLM release our adapter touches, from the release's wheel: nothing is imported or installed.

    cd tests/unit/engine/vllm
    pip download --no-deps vllm==0.26.0
    python record_vllm_signatures.py vllm-0.26.0-*.whl > vllm_0_26_signatures.json

Of each class below: its bases, fields, enum members, properties, the attributes it sets on itself, and the parameters
of the methods below.  Of the NIXL connector: which of the words below it knows.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import zipfile
from typing import Any

CLASSES = {
    "vllm/config/cache.py": ["CacheConfig"],
    "vllm/config/kv_transfer.py": ["KVTransferConfig"],
    "vllm/config/model.py": ["ModelConfig"],
    "vllm/config/parallel.py": ["ParallelConfig"],
    "vllm/config/scheduler.py": ["SchedulerConfig"],
    "vllm/config/structured_outputs.py": ["StructuredOutputsConfig"],
    "vllm/config/vllm.py": ["VllmConfig"],
    "vllm/engine/arg_utils.py": ["EngineArgs", "AsyncEngineArgs"],
    "vllm/exceptions.py": None,
    "vllm/logprobs.py": ["Logprob"],
    "vllm/lora/request.py": ["LoRARequest"],
    "vllm/outputs.py": ["RequestOutput", "CompletionOutput"],
    "vllm/platforms/interface.py": ["Platform"],
    "vllm/sampling_params.py": ["SamplingParams", "StructuredOutputsParams", "RequestOutputKind"],
    "vllm/v1/core/sched/scheduler.py": ["Scheduler"],
    "vllm/v1/engine/__init__.py": ["EngineCoreRequest", "EngineCoreOutput", "EngineCoreOutputs"],
    "vllm/v1/engine/async_llm.py": ["AsyncLLM"],
    "vllm/v1/engine/core_client.py": ["AsyncMPClient"],
    "vllm/v1/engine/exceptions.py": None,
    "vllm/v1/engine/output_processor.py": ["OutputProcessor", "RequestState", "OutputProcessorOutput"],
    "vllm/v1/metrics/loggers.py": ["StatLoggerBase"],
    "vllm/v1/metrics/stats.py": [
        "SchedulerStats",
        "SchedulerIterationDetails",
        "BaseCacheStats",
        "IterationStats",
        "RequestStateStats",
    ],
    "vllm/v1/request.py": ["Request"],
    "vllm/v1/structured_output/request.py": ["StructuredOutputRequest"],
    "vllm/v1/worker/gpu_input_batch.py": ["CachedRequestState"],
}
"""Classes by file; None: all of them."""

METHODS = {
    "__init__", "generate", "shutdown", "add_lora", "get_tokenizer", "from_engine_args", "record",
    "log_engine_initialized", "propagate_error", "get_vocab_size", "try_get_generation_config", "is_cpu", "is_cuda",
    "get_device_name", "device_id_to_physical_device_id", "notify_kv_transfer_request_rejected",
    "get_total_num_kv_heads", "get_head_size", "get_total_num_hidden_layers", "collective_rpc", "abort",
    "abort_requests_async", "get_supported_tasks_async", "append_output_token_ids", "take_prefill_stats",
    "add_request", "_add_request", "get_scheduler_cls", "__post_init__", "process_outputs", "abort_requests",
    "get_output_async",
}  # fmt: skip

NIXL_FILES = (
    "vllm/envs.py",
    "vllm/distributed/kv_transfer/kv_connector/v1/nixl/base_scheduler.py",
    "vllm/distributed/kv_transfer/kv_connector/v1/nixl/pull_scheduler.py",
    "vllm/distributed/kv_transfer/kv_connector/v1/nixl/stats.py",
)
NIXL_WORDS = (
    "VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT", "kv_lease_duration", "do_remote_prefill",
    "do_remote_decode", "remote_engine_id", "remote_request_id", "remote_host", "remote_port", "remote_block_ids",
    "remote_num_tokens", "tp_size", "transfer_duration", "num_failed_transfers", "num_failed_notifications",
    "num_kv_expired_reqs",
)  # fmt: skip
"""What our NIXL adapter says and reads."""


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, Any]:
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    required = names[: len(names) - len(arguments.defaults)]
    keyword_only = [argument.arg for argument in arguments.kwonlyargs]
    required += [name for name, default in zip(keyword_only, arguments.kw_defaults, strict=True) if default is None]
    return {
        "positional": names,
        "keyword_only": keyword_only,
        "required": required,
        "any_keyword": arguments.kwarg is not None,
    }


def attributes_set(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Names of ``self.name = ...`` anywhere in a function."""
    targets: list[ast.expr] = []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AnnAssign):
            targets.append(node.target)
    return {
        target.attr
        for target in targets
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
    }


def describe(node: ast.ClassDef) -> dict[str, Any]:
    fields, members, properties = [], [], []
    methods: dict[str, Any] = {}
    attributes: set[str] = set()
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            fields.append(item.target.id)
        elif isinstance(item, ast.Assign):
            members += [target.id for target in item.targets if isinstance(target, ast.Name)]
        elif isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            attributes |= attributes_set(item)
            if any(ast.unparse(decorator) == "property" for decorator in item.decorator_list):
                properties.append(item.name)
            elif item.name in METHODS:
                methods[item.name] = parameters(item)
    return {
        "bases": [ast.unparse(base) for base in node.bases],
        "fields": fields,
        "members": members,
        "properties": properties,
        "attributes": sorted(attributes),
        "methods": methods,
    }


def record(wheel: str) -> dict[str, Any]:
    recorded: dict[str, Any] = {"version": re.search(r"-(\d[^-]*)-", wheel).group(1), "classes": {}}  # type: ignore[union-attr]
    with zipfile.ZipFile(wheel) as archive:
        for path, wanted in CLASSES.items():
            tree = ast.parse(archive.read(path))
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and (wanted is None or node.name in wanted):
                    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                    recorded["classes"][f"{module}:{node.name}"] = describe(node)
        reasons = re.search(r"FINISH_REASON_STRINGS = (\(.*?\))", archive.read("vllm/v1/engine/__init__.py").decode())
        nixl = "".join(archive.read(path).decode() for path in NIXL_FILES)
        recorded["nixl_words"] = [word for word in NIXL_WORDS if re.search(rf"\b{word}\b", nixl)]
        recorded["finish_reasons"] = list(ast.literal_eval(reasons.group(1)))  # type: ignore[union-attr]
    return recorded


if __name__ == "__main__":
    text = json.dumps(record(sys.argv[1]))
    print(re.sub(r'("vllm\.[a-z_.0-9]+:\w+":)', r"\n\1", text))  # a line a class
