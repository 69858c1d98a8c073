"""What this room starts once: a fleet of simulated engines with a gateway, and one model behind two servers.

Of the simulated engines two generate and one embeds.  vLLM's server is real in each gateway; it needs no engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from sage_client import AsyncClient
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.vllm.gateway.gateway_fleet import EMBEDS, MODEL, SIMULATED, VECTORS, GatewayProcess
from tests.vllm.gateway.pair import Pair

GENERATE = ("one", "two")
FEW = ("--engine.simulated.max-running", "8")  # so that the lines of a batch do not all run at once
NAMES = (*GENERATE, "three")


@pytest.fixture(scope="session")
def session_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcesses]:
    flags = ["--policy", "fifo", "--state-dir", str(tmp_path_factory.mktemp("state"))]
    fleet = FleetProcesses(tmp_path_factory.mktemp("fleet"), flags, listen=f"127.0.0.1:{free_port()}")

    async def start() -> None:
        await fleet.start()
        for name in GENERATE:
            fleet.launch(name, [*SIMULATED, *FEW])
        fleet.launch("three", EMBEDS)
        await fleet.ready(*NAMES)

    try:
        asyncio.run(start())
        yield fleet
    finally:
        asyncio.run(fleet.leave())


@pytest.fixture(scope="session")
def session_gateway(
    session_fleet: FleetProcesses, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    made = GatewayProcess(session_fleet, tmp_path_factory.mktemp("gateway"))
    try:
        asyncio.run(made.start(MODEL, VECTORS))
        yield made
    finally:
        asyncio.run(made.stop())


@pytest.fixture
async def fleet(session_fleet: FleetProcesses) -> FleetProcesses:
    """Whole: what the test before took down is started again."""
    for process in (session_fleet.scheduler, *session_fleet.executors.values()):
        if not process.running:
            process.start()
    await session_fleet.ready(*NAMES)
    return session_fleet


@pytest.fixture
async def gateway(fleet: FleetProcesses, session_gateway: GatewayProcess) -> GatewayProcess:
    """Started again if the test before took it down."""
    if not session_gateway.process.running:
        await session_gateway.start(MODEL, VECTORS)
    return session_gateway


@pytest.fixture
async def client(fleet: FleetProcesses) -> AsyncIterator[AsyncClient]:
    """The SDK's, of the same fleet."""
    async with fleet.client() as made:
        yield made


@pytest.fixture
async def openai(fleet: FleetProcesses, gateway: GatewayProcess) -> AsyncIterator[Any]:
    async with gateway.openai() as made:
        yield made


@pytest.fixture
async def http(fleet: FleetProcesses, gateway: GatewayProcess) -> AsyncIterator[Any]:
    async with gateway.http() as made:
        yield made


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The gateway and vLLM's own server before engines of the same model."""
    made = Pair(tmp_path_factory.mktemp("pair"))
    try:
        asyncio.run(made.start())
        yield made
    finally:
        asyncio.run(made.stop())
