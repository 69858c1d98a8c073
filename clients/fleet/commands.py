"""From a fleet's spec to the processes that make it up."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from fleet.devices import Devices, assign_devices
from fleet.spec import TINY_MODEL, FleetSpec

STOP_MARGIN_S = 15.0  # beyond the drain: an engine takes seconds to end its processes
KV_CONNECTOR = "NixlConnector"  # how executors of a fleet that splits requests hand KV over
CLIENT_VARIABLES = ("SAGE_SCHEDULER_ADDRESS",)  # meant for clients; the scheduler refuses variables it does not know


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessSpec:
    """One process to keep running."""

    name: str  # of its log file; an executor's is also its instance id
    command: tuple[str, ...]
    environment: dict[str, str]
    stop_timeout_s: float  # seconds from SIGTERM to SIGKILL
    cores: str = ""  # like "0,1": it and all it starts keep to them; empty: any
    where: str = ""  # the devices it runs on, in words
    warning: str = ""


def scheduler_process(spec: FleetSpec) -> ProcessSpec:
    command = [sys.executable, "-m", "scheduler_svc", "--listen", spec.address, "--policy", spec.policy]
    command += ["--drain-timeout-s", f"{spec.drain_timeout_s:g}"]
    if spec.splits:
        command += ["--pd-separation.enabled", "--pd-separation.routing-policy", "threshold"]
    command += spec.scheduler_arguments
    return ProcessSpec(
        name="scheduler",
        command=tuple(command),
        environment=_environment(),
        stop_timeout_s=spec.drain_timeout_s + STOP_MARGIN_S,
    )


def executor_processes(spec: FleetSpec) -> list[ProcessSpec]:
    """One per executor, each with its devices."""
    devices = assign_devices(spec.executors) if spec.engine == "vllm" else [Devices()] * spec.executors
    return [_executor_process(spec, number, own) for number, own in enumerate(devices, 1)]


def executor_names(spec: FleetSpec) -> list[str]:
    return [f"executor-{number}" for number in range(1, spec.executors + 1)]


def _executor_process(spec: FleetSpec, number: int, devices: Devices) -> ProcessSpec:
    name = f"executor-{number}"
    price = spec.prices[number - 1] if number <= len(spec.prices) else 0.0
    role = spec.roles[number - 1] if number <= len(spec.roles) else "general"
    flags: dict[str, str] = {
        "--scheduler": spec.address,
        "--instance-id": name,
        "--role": role,
        "--model": model_of(spec),
        "--engine.kind": spec.engine,
        "--engine.model.served-name": served_name_of(spec),
        "--price-per-hour": f"{price:g}",
        "--drain-timeout-s": f"{spec.drain_timeout_s:g}",
    }
    if spec.splits and role != "embedding":
        # Also where the role is general: `sagectl role` may give it another while it runs.
        flags[f"--engine.{spec.engine}.kv-transfer.connector"] = KV_CONNECTOR
    if spec.max_running is not None:
        flags[f"--engine.{spec.engine}.max-running"] = str(spec.max_running)
    if spec.engine == "vllm" and is_tiny_model(model_of(spec)):
        # Requests that go on at another instance continue token by token as they would have: exact in float32 only.
        flags["--engine.vllm.dtype"] = "float32"
    command = [sys.executable, "-m", "executor_svc"]
    command += [part for flag in flags.items() for part in flag]
    return ProcessSpec(
        name=name,
        command=(*command, *devices.arguments, *spec.executor_arguments),
        environment=_environment() | devices.environment,
        stop_timeout_s=spec.drain_timeout_s + STOP_MARGIN_S,
        cores=devices.cores,
        where=devices.where,
        warning=devices.warning,
    )


def model_of(spec: FleetSpec) -> str:
    return spec.model or (TINY_MODEL if spec.engine == "vllm" else "simulated")


def served_name_of(spec: FleetSpec) -> str:
    """A path says too much of a machine to be a model's name; a hub id is one."""
    model = model_of(spec)
    own = not spec.model  # made here, and on a fresh machine not before it is needed
    return spec.served_name or (Path(model).resolve().name if own or Path(model).exists() else model)


def is_tiny_model(model: str) -> bool:
    return (Path(model) / "tiny_model.json").is_file()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in CLIENT_VARIABLES}
    return kept | {"PYTHONUNBUFFERED": "1"}
