"""How every engine of this room is set up, the reference's and the executors'."""

from __future__ import annotations

MAX_RUNNING = 12  # fewer than the streams there are: some have to wait
MAX_MODEL_LEN = 1024
KV_CACHE_BYTES = 128 << 20
MODEL_NAME = "tiny"
NAMES = ("one", "two")  # of the executors
UP_WITHIN_S = 240.0  # seconds an engine may take to start


def executor_flags(model: str, core: int) -> list[str]:
    """Two executors need a core each: see ``vllm.cpu_cores``."""
    return [
        *("--model", model, "--engine.model.served-name", MODEL_NAME),
        *("--engine.vllm.dtype", "float32", "--engine.vllm.enforce-eager"),
        *("--engine.vllm.cpu-cores", str(core)),
        *("--engine.vllm.max-running", str(MAX_RUNNING)),
        *("--engine.vllm.max-model-len", str(MAX_MODEL_LEN)),
        *("--engine.vllm.kv-cache-bytes", str(KV_CACHE_BYTES)),
        # A model that says noise would fill JSON with blanks for ever.
        "--engine.vllm.engine-args",
        '{"structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": true}}',
    ]
