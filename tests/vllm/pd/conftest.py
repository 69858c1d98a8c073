"""Two real engines for all tests of this room, each bound to a core of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from executor_svc.engine.common_settings import KvTransferSettings, ModelSettings
from executor_svc.engine.tiny_model import make_tiny_model
from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.engine.vllm.starting import VllmEngineFactory
from tests.contract.engine.kv_transfer_contract import Ends
from tests.support.vllm_warnings import let_vllm_warn

ROOM = Path(__file__).parent
ROOT = Path(__file__).parents[3]
LENGTHS = (50, 128, 129, 2048, 3500)  # tokens; a block is 128
LEASE_S = 6


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    let_vllm_warn(items, ROOM)


def prompt(length: int, number: int) -> list[int]:
    """No two numbers begin alike."""
    return [20 + (number * 131 + index * 11 + index * index) % 4000 for index in range(length)]


@pytest.fixture(scope="session")
def model() -> ModelSettings:
    path = ROOT / ".cache" / "tiny-model-float32"
    make_tiny_model(path, "float32")
    return ModelSettings(model=str(path), served_name="tiny")


async def started(model: ModelSettings, core: int) -> VllmEngine:
    settings = VllmSettings(
        dtype="float32",
        enforce_eager=True,
        max_model_len=4096,
        max_running=16,
        kv_cache_bytes=256 << 20,
        cpu_cores=str(core),
        kv_transfer=KvTransferSettings(connector="NixlConnector", lease_s=LEASE_S),
    )
    factory = VllmEngineFactory(model, settings, measure_speed_s=20.0)
    return await factory.start(lambda state, fraction, message: None)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ends(model: ModelSettings) -> AsyncIterator[Ends]:
    engines = []
    try:
        for core in (0, 1):
            engines.append(await started(model, core))
        yield Ends(
            prefill=engines[0],
            decode=engines[1],
            prompt=prompt,
            lengths=LENGTHS,
            settle=lambda: asyncio.sleep(0.01),
        )
    finally:
        for engine in engines:
            await engine.shutdown()
