"""Engines of 6.2 B parameters, a GPU each.  The weights are made up by vLLM as it loads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.tiny_model import make_tiny_model
from executor_svc.engine.vllm.settings import VllmSettings
from tests.bench.engines import Engine

MODEL = Path(".cache/model-6b")
SHAPE = {
    "hidden_size": 4_096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 28,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
SLOTS = 128
KV_BYTES = 60 << 30
ENGINE_ARGS = {
    "load_format": "dummy",
    "compilation_config": {  # decode steps run as CUDA graphs; compiling would take longer than what is measured
        "mode": 0,
        "cudagraph_mode": "FULL_DECODE_ONLY",
        "cudagraph_capture_sizes": [1, 2, 4, 8, *range(16, SLOTS + 1, 16)],
    },
}


def gpu_engines(count: int) -> list[Engine]:
    """Return the engines.  Needs as many GPUs, with 100 GiB of free memory each."""
    _make(MODEL)
    settings = VllmSettings.model_validate(
        {
            "max_model_len": 4_096,
            "max_running": SLOTS,
            "max_batched_tokens": 2_048,
            "kv_cache_bytes": KV_BYTES,
            "gpu_memory_utilization": 0.7,
            "engine_args": ENGINE_ARGS,
        }
    )
    model = ModelSettings(model=str(MODEL.resolve()), served_name="model")
    return [
        Engine(
            settings=EngineSettings(kind="vllm", model=model, vllm=settings),
            start_timeout_s=300.0,
            settle_s=0.2,
            environment={"CUDA_VISIBLE_DEVICES": str(number)},
        )
        for number in range(count)
    ]


def _make(out: Path) -> None:
    """Write a model's files; the weights are the tiny model's, which vLLM does not read here."""
    make_tiny_model(out / "tiny", "bfloat16")
    config = json.loads((out / "tiny" / "config.json").read_text()) | SHAPE
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors"):
        shutil.copy(out / "tiny" / name, out)
    (out / "config.json").write_text(json.dumps(config, indent=2))
