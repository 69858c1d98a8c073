"""How the two executors of this room are set up."""

from __future__ import annotations

PREFILL, DECODE = "prefill", "decode"  # instance ids, and the roles they start in
NAMES = (PREFILL, DECODE)
MODEL_NAME = "tiny"
MAX_RUNNING = 16
MAX_MODEL_LEN = 4096
MAX_BATCHED_TOKENS = 2048
KV_CACHE_BYTES = 256 << 20  # 16 sequences of the full length
KV_LEASE_S = 6
UP_WITHIN_S = 240.0  # seconds an engine may take to start

SCHEDULER_FLAGS = (
    *("--policy", "fifo"),
    *("--pd-separation.enabled", "--pd-separation.routing-policy", "always"),
    # An executor may be stopped for longer than the lease of KV: it is neither lost nor stalled then.
    *("--instance.lease-s", "40", "--instance.stall-limit-s", "40"),
    *("--telemetry.metrics-listen", "127.0.0.1:0"),
)


def executor_flags(model: str, core: int, role: str) -> list[str]:
    """``model``: the same string for both, it is part of what makes them compatible."""
    return [
        *("--model", model, "--engine.model.served-name", MODEL_NAME, "--role", role),
        *("--engine.vllm.dtype", "float32", "--engine.vllm.enforce-eager"),
        *("--engine.vllm.cpu-cores", str(core)),
        *("--engine.vllm.max-running", str(MAX_RUNNING)),
        *("--engine.vllm.max-model-len", str(MAX_MODEL_LEN)),
        *("--engine.vllm.max-batched-tokens", str(MAX_BATCHED_TOKENS)),
        *("--engine.vllm.kv-cache-bytes", str(KV_CACHE_BYTES)),
        *("--engine.vllm.kv-transfer.connector", "NixlConnector"),
        *("--engine.vllm.kv-transfer.lease-s", str(KV_LEASE_S)),
    ]
