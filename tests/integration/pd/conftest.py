from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from importlib.metadata import entry_points

import pytest

from scheduler_svc.domain import policy
from tests.integration.pd.pd_fleet import PdFleet
from tests.integration.system.local_fleet import LocalExecutor


@pytest.fixture(scope="session", autouse=True)
def _plugins_found_once() -> Iterator[None]:
    """Every scheduler looks for installed policies, which takes longer than most tests here."""
    found = entry_points(group=policy.ENTRY_POINT_GROUP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "entry_points", lambda group: found)
        yield


@pytest.fixture
async def fleet() -> AsyncIterator[PdFleet]:
    """A scheduler that splits every request, no executor yet."""
    async with PdFleet() as made:
        yield made


@pytest.fixture
async def pair(fleet: PdFleet) -> tuple[LocalExecutor, LocalExecutor]:
    """``p``, which prefills, and ``d``, which decodes; they have handed over once."""
    return await fleet.add_pair()
