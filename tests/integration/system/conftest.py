from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sage_client import AsyncClient
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet


@pytest.fixture
async def fleet() -> AsyncIterator[LocalFleet]:
    """A scheduler, no executor yet."""
    async with LocalFleet() as made:
        yield made


@pytest.fixture
async def one(fleet: LocalFleet) -> LocalExecutor:
    """The fleet's only executor."""
    return await fleet.add("one")


@pytest.fixture
async def client(fleet: LocalFleet, one: LocalExecutor) -> AsyncClient:
    """Of a fleet with one executor."""
    return fleet.client
