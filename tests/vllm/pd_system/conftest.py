"""Model and fleet: made once, shared by all tests of this room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from executor_svc.engine.tiny_model import make_tiny_model
from tests.support.fleet_processes import FleetProcesses
from tests.vllm.pd_system.altering_proxy import AlteringProxy
from tests.vllm.pd_system.engine_settings import (
    DECODE,
    NAMES,
    PREFILL,
    SCHEDULER_FLAGS,
    UP_WITHIN_S,
    executor_flags,
)
from tests.vllm.pd_system.pd_fleet import PdFleet

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def model() -> Path:
    path = ROOT / ".cache" / "tiny-model-float32"
    make_tiny_model(path, "float32")
    return path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session_fleet(model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PdFleet]:
    processes = FleetProcesses(tmp_path_factory.mktemp("fleet"), SCHEDULER_FLAGS)
    await processes.start()
    async with AlteringProxy(processes.port) as proxy, processes.client() as client:
        try:
            processes.launch(PREFILL, executor_flags(str(model), 0, "prefilling"))
            processes.launch(DECODE, executor_flags(str(model), 1, "decoding"), address=proxy.address)
            await processes.ready(*NAMES, within_s=UP_WITHIN_S)
            yield PdFleet(processes, proxy, client)
        finally:
            await processes.leave()  # while there is a network to say goodbye on


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(session_fleet: PdFleet) -> PdFleet:
    """Whole: an executor that the test before took down is started again."""
    await session_fleet.whole()
    return session_fleet
