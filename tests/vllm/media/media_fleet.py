"""A fleet of real engines of a tiny model that takes images or audio, and a gateway before it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.engine_process import ONE_PROCESS
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.vllm.gateway.gateway_fleet import GatewayProcess
from tests.vllm.media.media_server import MediaServer
from tests.vllm.system.engine_settings import MODEL_NAME, UP_WITHIN_S, executor_flags


@contextmanager
def started_fleet(model: Path, folders: pytest.TempPathFactory) -> Iterator[FleetProcesses]:
    """Start a scheduler with a state directory, and the executor "one" on core 0."""
    flags = ["--policy", "fifo", "--state-dir", str(folders.mktemp("state"))]
    fleet = FleetProcesses(folders.mktemp("fleet"), flags, listen=f"127.0.0.1:{free_port()}")

    async def start() -> None:
        await fleet.start()
        fleet.launch("one", executor_flags(str(model), core=0), environment=ONE_PROCESS)
        await fleet.ready("one", within_s=UP_WITHIN_S)

    try:
        asyncio.run(start())
        yield fleet
    finally:
        asyncio.run(fleet.leave())


@contextmanager
def started_gateway(
    fleet: FleetProcesses, server: MediaServer, folders: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """Start a gateway that may fetch from this server, and wait until it serves the model."""
    gateway = GatewayProcess(fleet, folders.mktemp("gateway"), ["--media-host", server.host])
    try:
        asyncio.run(gateway.start(MODEL_NAME))
        yield gateway
    finally:
        asyncio.run(gateway.stop())
