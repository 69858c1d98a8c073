"""Builds the command lines of a fleet's processes from its spec."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from sage_local.fleet import postgres
from sage_local.fleet.devices import Devices, assign_devices
from sage_local.fleet.spec import TINY_MODEL, FleetSpec

GATEWAY = "gateway"  # name of the HTTP gateway's process
STOP_MARGIN_S = 15.0  # added to the drain timeout, because an engine takes seconds to end its processes
POSTGRES_STOP_S = 15.0  # the same for PostgreSQL, which only writes what it has in memory
KV_CONNECTOR = "NixlConnector"  # transfers KV between the executors of a fleet that splits requests
CLIENT_VARIABLES = ("SAGE_SCHEDULER_ADDRESS",)  # meant for clients; the scheduler refuses variables it does not know


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessSpec:
    """The command, environment and stop timeout of one process of a fleet."""

    name: str  # names its log file; an executor's is also its instance id
    command: tuple[str, ...]
    environment: dict[str, str]
    stop_timeout_s: float  # seconds from SIGTERM to SIGKILL
    cores: str = ""  # CPU cores of the process and its children, like "0,1"; empty: any
    where: str = ""  # an executor's devices, in words; of the others the address that they listen on
    warning: str = ""  # why it may be slow, in words; empty if there is no warning


def scheduler_process(spec: FleetSpec, state: Path | None = None) -> ProcessSpec:
    """Return the scheduler's process.

    ``state``: a directory in which it leaves what its next start needs to go on with running requests; None: none.
    """
    return _scheduler_process(spec, "scheduler", spec.address, ["--state-dir", str(state)] if state else [])


def standby_processes(spec: FleetSpec, state: Path) -> list[ProcessSpec]:
    """Return PostgreSQL, with its files in ``state``, and two schedulers that share it."""
    database = ProcessSpec(
        name="postgres",
        command=(sys.executable, "-m", "sage_local.fleet.postgres", str(state)),
        environment=own_environment(),
        stop_timeout_s=POSTGRES_STOP_S,
    )
    flags = ["--journal.url", postgres.url(state)]
    return [
        database,
        _scheduler_process(spec, "scheduler", spec.address, flags),
        _scheduler_process(spec, "standby", spec.standby_address, flags),
    ]


def _scheduler_process(spec: FleetSpec, name: str, address: str, flags: list[str]) -> ProcessSpec:
    command = [sys.executable, "-m", "scheduler_svc", "--listen", address, "--policy", spec.policy]
    command += ["--drain-timeout-s", f"{spec.drain_timeout_s:g}"]
    if spec.splits:
        command += ["--pd-separation.enabled", "--pd-separation.routing-policy", "threshold"]
    command += [*flags, *spec.scheduler_arguments]
    return ProcessSpec(
        name=name,
        command=tuple(command),
        environment=own_environment(),
        stop_timeout_s=spec.drain_timeout_s + STOP_MARGIN_S,
        where=address,
    )


def gateway_process(spec: FleetSpec) -> ProcessSpec | None:
    """Return the HTTP gateway's process; None if the fleet has none."""
    if not spec.http:
        return None
    command = gateway_command(spec.http)
    command += ["--address", spec.addresses, "--grace-s", f"{spec.drain_timeout_s:g}"]
    return ProcessSpec(
        name=GATEWAY,
        command=tuple(command),
        environment=own_environment(),
        stop_timeout_s=spec.drain_timeout_s + STOP_MARGIN_S,
        where=f"http://{spec.http}",
    )


def gateway_command(address: str) -> list[str]:
    """Return the command line of an HTTP gateway that listens on ``host:port``, without its other flags."""
    host, _, port = address.rpartition(":")
    return [sys.executable, "-m", "sage_gateway", "--host", host.strip("[]"), "--port", port]


def executor_processes(spec: FleetSpec) -> list[ProcessSpec]:
    """Return one process per executor, each with its own share of the machine's devices."""
    devices = assign_devices(spec.executors) if spec.engine == "vllm" else [Devices()] * spec.executors
    return [_executor_process(spec, number, own) for number, own in enumerate(devices, 1)]


def executor_names(spec: FleetSpec) -> list[str]:
    """Return the instance ids of the executors, in the order of their processes."""
    return [f"executor-{number}" for number in range(1, spec.executors + 1)]


def _executor_process(spec: FleetSpec, number: int, devices: Devices) -> ProcessSpec:
    name = f"executor-{number}"
    price = spec.prices[number - 1] if number <= len(spec.prices) else 0.0
    role = spec.roles[number - 1] if number <= len(spec.roles) else "general"
    embeds = role == "embedding"
    flags: dict[str, str] = {
        "--scheduler": spec.addresses,
        "--instance-id": name,
        "--role": role,
        "--model": (embeds and spec.embedding_model) or model_of(spec),
        "--engine.kind": spec.engine,
        "--engine.model.served-name": embedding_name_of(spec) if embeds else served_name_of(spec),
        "--price-per-hour": f"{price:g}",
        "--drain-timeout-s": f"{spec.drain_timeout_s:g}",
    }
    if spec.splits and not embeds:
        # A general executor gets a connector too, because `sagectl role` can give it another role later.
        flags[f"--engine.{spec.engine}.kv-transfer.connector"] = KV_CONNECTOR
    if spec.max_running is not None:
        flags[f"--engine.{spec.engine}.max-running"] = str(spec.max_running)
    if spec.engine == "vllm" and is_tiny_model(model_of(spec)):
        # After a failover a request continues with the same tokens on another instance; only float32 makes that exact.
        flags["--engine.vllm.dtype"] = "float32"
    command = [sys.executable, "-m", "executor_svc"]
    command += [part for flag in flags.items() for part in flag]
    return ProcessSpec(
        name=name,
        command=(*command, *devices.arguments, *spec.executor_arguments),
        environment=own_environment() | devices.environment,
        stop_timeout_s=spec.drain_timeout_s + STOP_MARGIN_S,
        cores=devices.cores,
        where=devices.where,
        warning=devices.warning,
    )


def model_of(spec: FleetSpec) -> str:
    """Return the hub id or path that executors load."""
    return spec.model or (TINY_MODEL if spec.engine == "vllm" else "simulated")


def served_name_of(spec: FleetSpec) -> str:
    """Return the model name that requests ask for: the last part of a path, or the hub id."""
    model = model_of(spec)
    own = not spec.model  # the tiny model, whose folder may not exist yet
    return spec.served_name or (Path(model).resolve().name if own or Path(model).exists() else model)


def embedding_name_of(spec: FleetSpec) -> str:
    """Return the model name that calls for vectors ask for: not that of the model that generates."""
    if not spec.embedding_model:
        return f"{served_name_of(spec)}-embedding"
    path = Path(spec.embedding_model)
    return path.resolve().name if path.exists() else spec.embedding_model


def is_tiny_model(model: str) -> bool:
    """Return whether a path holds the tiny model that ``model_files`` makes."""
    return (Path(model) / "tiny_model.json").is_file()


def own_environment() -> dict[str, str]:
    """Return this process's environment for a process of the fleet: without what is meant for clients."""
    kept = {name: value for name, value in os.environ.items() if name not in CLIENT_VARIABLES}
    return kept | {"PYTHONUNBUFFERED": "1"}
