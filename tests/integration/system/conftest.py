from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from importlib.metadata import entry_points

import pytest

from sage_client import AsyncClient
from scheduler_svc.domain import policy
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet


@pytest.fixture(scope="session", autouse=True)
def _plugins_found_once() -> Iterator[None]:
    """Every scheduler looks for installed policies, which takes longer than most tests here."""
    found = entry_points(group=policy.ENTRY_POINT_GROUP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "entry_points", lambda group: found)
        yield


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
