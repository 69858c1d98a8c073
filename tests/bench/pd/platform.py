"""Where the prefill/decode benchmarks run: the machine's CPU with the tiny model, or one GPU with a model of 1.4 B."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from executor_svc.engine.common_settings import KvTransferSettings, ModelSettings
from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.tiny_model import make_tiny_model
from executor_svc.engine.vllm.settings import VllmSettings
from tests.bench.engines import Engine

MAX_MODEL_LEN = 4_096
MAX_RUNNING = 32
CPU_MODEL = Path(".cache/tiny-model-float32")
CPU_KV_BYTES = 256 << 20  # 64 k tokens of the tiny model
GPU_KV_BYTES = 4 << 30  # 37 k tokens of the wide model
GPU_SHARE = 0.08  # of the GPU's memory must be free when an engine starts; the KV cache is sized in bytes
CONNECTOR = "NixlConnector"
#: Decode steps run as CUDA graphs; nothing is compiled, which would take longer than all that is measured.
GPU_ENGINE_ARGS = {
    "compilation_config": {
        "mode": 0,
        "cudagraph_mode": "FULL_DECODE_ONLY",
        "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32],
    }
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Platform:
    """Two engines beside each other, whatever they are for."""

    name: str
    model: Path
    gpu: bool
    longest_step_s: float  # what a wait for an engine to be asleep must last
    kv_block_size: int | None = None  # tokens; vLLM's own if None

    def engine(
        self,
        place: int,
        *,
        chunk: int,
        connector: str = "",
        exact: bool = False,
        slots: int = MAX_RUNNING,
        kv_bytes: int | None = None,
    ) -> Engine:
        """``place``: 0 or 1, the core on a CPU.  ``chunk``: tokens of one iteration.  ``kv_bytes``: None: a default.

        ``exact``: float32, so that the same tokens come out however a prompt is cut into steps, and no prefix cache, so
        that nothing is served from what an earlier request left behind, right or wrong.
        """
        own = (
            {
                "kv_cache_bytes": kv_bytes or GPU_KV_BYTES,
                "gpu_memory_utilization": GPU_SHARE,
                "engine_args": GPU_ENGINE_ARGS,
            }
            if self.gpu
            else {
                "kv_cache_bytes": kv_bytes or CPU_KV_BYTES,
                "dtype": "float32",
                "enforce_eager": True,
                "cpu_cores": str(place),
            }
        )
        settings = VllmSettings.model_validate(
            {
                "max_model_len": MAX_MODEL_LEN,
                "max_running": slots,
                "max_batched_tokens": chunk,
                "kv_block_size": self.kv_block_size,
                "kv_transfer": KvTransferSettings(connector=connector),
                **own,
                **({"dtype": "float32", "prefix_caching": False} if exact else {}),
            }
        )
        model = ModelSettings(model=str(self.model), served_name="model")
        return Engine(
            settings=EngineSettings(kind="vllm", model=model, vllm=settings),
            start_timeout_s=300.0,
            settle_s=self.longest_step_s,
        )


def cpu(kv_block_size: int | None = None) -> Platform:
    """An engine per scheduler, the tiny model in float32."""
    make_tiny_model(CPU_MODEL, "float32")
    return Platform(
        name="vLLM, CPU", model=CPU_MODEL.resolve(), gpu=False, longest_step_s=1.5, kv_block_size=kv_block_size
    )


def gpu(model: Path, kv_block_size: int | None = None) -> Platform:
    """Both engines on one GPU.  ``model``: as ``wide_model`` writes it."""
    return Platform(
        name="vLLM, 1 GPU", model=model.resolve(), gpu=True, longest_step_s=0.1, kv_block_size=kv_block_size
    )
