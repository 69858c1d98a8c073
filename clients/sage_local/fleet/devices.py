"""Assigns the machine's GPUs or CPU cores to executors."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field

NVIDIA_SMI_TIMEOUT_S = 10.0
GPU_MEMORY_SHARE = 0.85  # of a GPU's memory for all engines on it; engines do not count some of their allocations


@dataclass(frozen=True, kw_only=True, slots=True)
class Devices:
    """The devices of one vLLM executor, as environment and flags of ``python -m executor_svc``."""

    environment: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    cores: str = ""  # like "0,1", for all of its processes; empty: any
    where: str = ""  # the devices, in words
    warning: str = ""  # in words, if the devices are shared


def assign_devices(executors: int) -> list[Devices]:
    """Return one entry per executor: GPUs if this machine has any, else CPU cores."""
    gpus = visible_gpus()
    return gpu_shares(executors, gpus) if gpus else core_shares(executors, sorted(os.sched_getaffinity(0)))


def visible_gpus() -> list[str]:
    """Return ids for CUDA_VISIBLE_DEVICES: the GPUs that nvidia-smi lists and the variable, if set, allows."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [part.strip() for part in (shown.stdout.splitlines() if allowed is None else allowed.split(","))]


def gpu_shares(executors: int, gpus: list[str]) -> list[Devices]:
    """Give each executor one GPU; executors that share a GPU split its memory evenly."""
    shares = []
    for index in range(executors):
        gpu = gpus[index % len(gpus)]
        sharing = sum(1 for other in range(executors) if gpus[other % len(gpus)] == gpu)
        memory = ("--engine.vllm.gpu-memory-utilization", f"{GPU_MEMORY_SHARE / sharing:.2f}") if sharing > 1 else ()
        shares.append(
            Devices(
                environment={"CUDA_VISIBLE_DEVICES": gpu},
                arguments=memory,
                where=f"GPU {gpu}",
                warning=f"{sharing} executors share GPU {gpu}" if sharing > 1 else "",
            )
        )
    return shares


def core_shares(executors: int, cores: list[int]) -> list[Devices]:
    """Split CPU cores evenly.  If there are more executors than cores, executors share cores, with a warning.

    The engine binds its compute threads itself.  Its other processes must use the same cores, else they slow another
    engine down: on two cores, one of two equal engines then served a sixth of the requests.
    """
    shares = []
    for index in range(executors):
        own = _slice(cores, index, executors) or [cores[index % len(cores)]]
        named = ",".join(map(str, own))
        shared = executors > len(cores)
        shares.append(
            Devices(
                arguments=("--engine.vllm.cpu-cores", named, *_CPU_ARGUMENTS),
                cores=named,
                where=f"core {named}" if len(own) == 1 else f"cores {named}",
                warning=f"core {named} is shared: {executors} executors on {len(cores)} cores" if shared else "",
            )
        )
    return shares


# Graph capture doubles the start time and gains nothing on a CPU.  Without a fixed KV cache size each engine would take
# a share of the whole machine's memory.
_CPU_ARGUMENTS = ("--engine.vllm.enforce-eager", "--engine.vllm.kv-cache-bytes", str(1 << 30))


def _slice(cores: list[int], index: int, parts: int) -> list[int]:
    return cores[len(cores) * index // parts : len(cores) * (index + 1) // parts]
