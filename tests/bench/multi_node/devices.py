"""The machines and the engines: on two GPUs, or on the CPU as a rehearsal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executor_svc.engine.tiny_model import make_tiny_model
from tests.bench.pd.wide_model import make
from tests.support.ray_machines import Machine

FIRST, SECOND, APART = 0, 1, 2  # machines: the wide engine's two, and that of the engine on one GPU
ONE, WIDE = "one", "wide"  # groups of one executor: its engine on one GPU, and over two machines

# What has a group come to its machines: its executor's cores, of which no other machine has as many.
_CPUS = {WIDE: 2, ONE: 4}
_NCCL = {
    "NCCL_IB_DISABLE": "1",
    "NCCL_NVLS_ENABLE": "0",
    "NCCL_DEBUG": "INFO",  # says which way the GPUs send
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Devices:
    """What an arm of the measurement runs on."""

    machines: tuple[Machine, Machine, Machine]
    model: Path
    arguments: Mapping[str, Mapping[str, Any]]  # of the engine, by group
    tokens: int  # of each answer
    streams: int
    on_cpu: bool = False  # the GPUs are only declared

    def group(self, name: str) -> dict[str, Any]:
        """Return a group as ``fleet.yaml`` has it."""
        size = {"gpus": 2, "tensor_parallel": 2} if name == WIDE else {"gpus": 1}
        arguments = dict(self.arguments[name])
        own = {"model": str(self.model.resolve()), "served_name": "model", "engine_arguments": arguments}
        return own | size | {"cpus": _CPUS[name]}


def two_gpus(*, graphs: bool) -> Devices:
    """A model of 1.4 B.  The engine on one GPU shares the first one, with a third of its memory each."""
    model = Path(".cache/wide-model")
    make(model)
    arguments = {
        "dtype": "bfloat16",
        "max_model_len": 2_048,
        "max_running": 64,
        "kv_cache_bytes": 4 << 30,
        "gpu_memory_utilization": 0.3,
        "enforce_eager": not graphs,
        # Both GPUs are of one host here, and would otherwise not go over the network.
        "engine_args": {"disable_custom_all_reduce": True},
    }
    return Devices(
        machines=_machines([_NCCL | {"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("0", "1", "0")]),
        model=model,
        arguments={ONE: arguments, WIDE: arguments},
        tokens=256,
        streams=32,
    )


def cpu() -> Devices:
    """The tiny model in float32, a core for each engine."""
    model = Path(".cache/tiny-model-float32")
    make_tiny_model(model, "float32")
    arguments = {"dtype": "float32", "enforce_eager": True, "max_model_len": 1_024, "kv_cache_bytes": 128 << 20}
    return Devices(
        machines=_machines([{}, {}, {}]),
        model=model,
        arguments={ONE: arguments | {"cpu_cores": "1"}, WIDE: arguments | {"cpu_cores": "0"}},
        tokens=256,
        streams=8,
        on_cpu=True,
    )


def _machines(environments: list[dict[str, str]]) -> tuple[Machine, Machine, Machine]:
    first, second, apart = (
        Machine(cpus=cpus, environment=environment | {"NCCL_HOSTID": f"machine-{index}"})
        for index, (cpus, environment) in enumerate(
            zip((_CPUS[WIDE], _CPUS[WIDE] - 1, _CPUS[ONE]), environments, strict=True)
        )
    )
    return first, second, apart
