from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sage_client import AsyncClient
from tests.integration.clients.fake_scheduler import FakeScheduler, started


@pytest.fixture
async def scheduler() -> AsyncIterator[FakeScheduler]:
    fake = await started()
    yield fake
    await fake.stop()


@pytest.fixture(params=["session", "generate"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way of a client's requests, for clients that are not told."""
    monkeypatch.setenv("SAGE_SESSIONS", "1" if request.param == "session" else "0")
    return str(request.param)


@pytest.fixture
async def client(scheduler: FakeScheduler) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(scheduler.address) as made:
        yield made
