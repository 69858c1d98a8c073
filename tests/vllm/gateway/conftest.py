"""A fleet of simulated engines with a gateway, made once: two engines generate, one embeds.

vLLM's server is real; it needs no engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from sage_client import AsyncClient
from tests.support.fleet_processes import FleetProcesses
from tests.vllm.gateway.gateway_fleet import EMBEDS, MODEL, SIMULATED, VECTORS, GatewayProcess

GENERATE = ("one", "two")
NAMES = (*GENERATE, "three")


@pytest.fixture(scope="session")
def session_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcesses]:
    fleet = FleetProcesses(tmp_path_factory.mktemp("fleet"), ["--policy", "fifo"])

    async def start() -> None:
        await fleet.start()
        for name in GENERATE:
            fleet.launch(name, SIMULATED)
        fleet.launch("three", EMBEDS)
        await fleet.ready(*NAMES)

    try:
        asyncio.run(start())
        yield fleet
    finally:
        asyncio.run(fleet.leave())


@pytest.fixture(scope="session")
def gateway(session_fleet: FleetProcesses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    made = GatewayProcess(session_fleet, tmp_path_factory.mktemp("gateway"))
    try:
        asyncio.run(made.start(MODEL, VECTORS))
        yield made
    finally:
        asyncio.run(made.stop())


@pytest.fixture
async def fleet(session_fleet: FleetProcesses) -> FleetProcesses:
    """Whole: an executor that the test before took down is started again."""
    for process in session_fleet.executors.values():
        if not process.running:
            process.start()
    await session_fleet.ready(*NAMES)
    return session_fleet


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
