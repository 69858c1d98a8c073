"""One real engine that embeds, for all tests of this room."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import patch

import pytest
import pytest_asyncio

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.tiny_model import make_tiny_model
from executor_svc.engine.vllm.embedding import VllmEmbeddingEngine
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.engine.vllm.starting import VllmEmbeddingFactory
from tests.contract.engine.contract import Subject
from tests.support.engine_process import ONE_PROCESS
from tests.support.vllm_warnings import let_vllm_warn

ROOM = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    let_vllm_warn(items, ROOM)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VllmEmbeddingEngine]:
    model = tmp_path_factory.mktemp("models") / "tiny"
    make_tiny_model(model, "float32")
    settings = VllmSettings(
        dtype="float32", enforce_eager=True, max_running=8, max_model_len=512, kv_cache_bytes=64 << 20, cpu_cores="0"
    )
    factory = VllmEmbeddingFactory(
        ModelSettings(model=str(model), served_name="embedder"), settings, measure_speed_s=20.0
    )
    with patch.dict(os.environ, ONE_PROCESS):
        engine = await factory.start(lambda state, fraction, message: None)
    yield engine
    await engine.shutdown()


@pytest.fixture(scope="session")
def subject(engine: VllmEmbeddingEngine) -> Subject:
    prompts = [[(17 + 37 * n + 11 * i) % 4000 + 20 for i in range(12 + n)] for n in range(8)]
    return Subject(engine=engine, settle=lambda: asyncio.sleep(0.005), prompts=prompts)
