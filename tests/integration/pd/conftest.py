from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.pd.pd_fleet import PdFleet
from tests.integration.system.local_fleet import LocalExecutor


@pytest.fixture
async def fleet() -> AsyncIterator[PdFleet]:
    """A scheduler that splits every request, no executor yet."""
    async with PdFleet() as made:
        yield made


@pytest.fixture
async def pair(fleet: PdFleet) -> tuple[LocalExecutor, LocalExecutor]:
    """``p``, which prefills, and ``d``, which decodes; they have handed over once."""
    return await fleet.add_pair()
