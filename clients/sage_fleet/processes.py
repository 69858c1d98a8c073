"""Builds the command lines of a fleet's processes, for the places that start processes themselves."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from sage_fleet.executor_settings import PREFIX, executor_settings
from sage_fleet.scheduler_settings import PREFIX as SCHEDULER
from sage_fleet.scheduler_settings import scheduler_settings
from sage_fleet.specification.fleet import Fleet
from sage_local.fleet.command_lines import (
    STOP_MARGIN_S,
    ProcessSpec,
    gateway_process,
    own_environment,
    scheduler_process,
    standby_processes,
)
from sage_local.fleet.devices import Devices
from sage_local.fleet.spec import FleetSpec


def scheduler_addresses(fleet: Fleet) -> str:
    """Return the addresses of all schedulers, separated by commas."""
    return _services(fleet).addresses


def scheduler_processes(fleet: Fleet, directory: Path) -> list[ProcessSpec]:
    """Return the scheduler's process last, and before it the PostgreSQL and the standby that it may have."""
    spec, variables_ = _services(fleet), _scheduler_variables(fleet)
    if not fleet.scheduler.standby:
        return [_with(scheduler_process(spec, directory / "scheduler"), variables_)]
    database, scheduler, standby = standby_processes(spec, directory / "postgres")
    return [database, _with(scheduler, variables_), _with(standby, variables_)]


def http_process(fleet: Fleet) -> ProcessSpec | None:
    """Return the HTTP gateway's process; None if the fleet has none."""
    process = gateway_process(_services(fleet))
    if process is None or fleet.scheduler.tls is None:
        return process
    command = [*process.command, "--tls-ca", _absolute(fleet.scheduler.tls.ca)]
    if fleet.scheduler.access is not None and fleet.scheduler.access.gateway_token_file is not None:
        command += ["--token-file", _absolute(fleet.scheduler.access.gateway_token_file)]
    return replace(process, command=tuple(command))


def executor_process(fleet: Fleet, group: str, name: str, devices: Devices) -> ProcessSpec:
    """Return the process of one executor."""
    own = {f"{PREFIX}INSTANCE_ID": name} | executor_connection(fleet)
    return ProcessSpec(
        name=name,
        command=(sys.executable, "-m", "executor_svc", *devices.arguments),
        environment=own_environment() | executor_settings(fleet, group) | own | devices.environment,
        stop_timeout_s=fleet.drain_timeout_s + STOP_MARGIN_S,
        cores=devices.cores,
        where=devices.where,
        warning=devices.warning,
    )


def executor_connection(fleet: Fleet) -> dict[str, str]:
    """Return the variables that connect an executor to the scheduler: addresses, TLS, token."""
    found = {f"{PREFIX}SCHEDULER": scheduler_addresses(fleet)}
    if fleet.scheduler.insecure:
        found[f"{PREFIX}INSECURE"] = "true"
    if fleet.scheduler.tls is not None:
        found[f"{PREFIX}TLS__CA"] = _absolute(fleet.scheduler.tls.ca)
    if fleet.scheduler.access is not None:
        found[f"{PREFIX}TOKEN_FILE"] = _absolute(fleet.scheduler.access.executor_token_file)
    return found


def _services(fleet: Fleet) -> FleetSpec:
    return FleetSpec(
        executors=0,
        address=fleet.scheduler.address,
        standby=fleet.scheduler.standby,
        http=fleet.gateway.address if fleet.gateway else "",
        policy=fleet.scheduler.policy,
        roles=tuple(group.role for group in fleet.groups.values()),
        start_timeout_s=fleet.start_timeout_s,
        drain_timeout_s=fleet.drain_timeout_s,
    )


def _scheduler_variables(fleet: Fleet) -> dict[str, str]:
    scheduler = fleet.scheduler
    found = scheduler_settings(fleet)
    if scheduler.tls is not None:
        found[f"{SCHEDULER}TLS__CERTIFICATE"] = _absolute(scheduler.tls.certificate)
        found[f"{SCHEDULER}TLS__PRIVATE_KEY"] = _absolute(scheduler.tls.private_key)
    if scheduler.access is not None:
        found[f"{SCHEDULER}ACCESS__KEYS_FILE"] = _absolute(scheduler.access.keys_file)
    return found


def _with(process: ProcessSpec, variables_: dict[str, str]) -> ProcessSpec:
    return replace(process, environment=process.environment | variables_)


def _absolute(path: Path) -> str:
    return str(path.absolute())
