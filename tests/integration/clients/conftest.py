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


@pytest.fixture
async def client(scheduler: FakeScheduler) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(scheduler.address) as made:
        yield made
