"""One real engine for all tests of this room: it takes half a minute to start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from executor_svc.engine import tiny_model
from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.engine.vllm.starting import VllmEngineFactory
from executor_svc.runtime.engine_port import EngineLoad, EngineState
from tests.contract.engine.contract import Subject
from tests.support.vllm_warnings import let_vllm_warn
from tests.vllm.engine.adapter import make_adapter

ROOM = Path(__file__).parent
Progress = list[tuple[EngineState, float | None, str]]
MEASURE_SPEED_S = 20.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    let_vllm_warn(items, ROOM)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    assert tiny_model.main(["--out", str(path), "--dtype", "float32"]) == 0
    return path


@pytest.fixture(scope="session")
def adapters(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """None on a GPU: vLLM's LoRA kernels have no float32 there, and the rest of the suite needs float32."""
    import torch

    if torch.cuda.is_available():
        return {}
    return {"dialect": str(make_adapter(model_path, tmp_path_factory.mktemp("adapters") / "dialect"))}


@pytest.fixture(scope="session")
def settings(adapters: dict[str, str]) -> VllmSettings:
    return VllmSettings(
        dtype="float32",
        enforce_eager=True,
        max_running=4,
        max_model_len=1024,
        kv_cache_bytes=64 << 20,
        cpu_cores="0",
        adapters=adapters,
        adapter_slots=1 if adapters else 0,
        constraint_compile_limit_s=2.0,
        # A model that says noise would fill JSON with blanks for ever.
        engine_args={"structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True}},
    )


@pytest.fixture(scope="session")
def progress() -> Progress:
    """What the session's engine reported while it started."""
    return []


@pytest.fixture(scope="session")
def first_loads() -> list[EngineLoad]:
    """What the session's engine had done when its start was over: one load."""
    return []


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(
    model_path: Path, settings: VllmSettings, progress: Progress, first_loads: list[EngineLoad]
) -> AsyncIterator[VllmEngine]:
    model = ModelSettings(model=str(model_path), served_name="tiny")
    factory = VllmEngineFactory(model, settings, measure_speed_s=MEASURE_SPEED_S)
    engine = await factory.start(lambda *report: progress.append(report))
    first_loads.append(engine.load())
    yield engine
    await engine.shutdown()


@pytest.fixture(scope="session")
def other_adapter(model_path: Path, adapters: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """The directory of an adapter that the engine does not have from its start."""
    if not adapters:
        return None
    return str(make_adapter(model_path, tmp_path_factory.mktemp("adapters") / "added", seed=2))


@pytest.fixture(scope="session")
def subject(engine: VllmEngine, adapters: dict[str, str], other_adapter: str | None) -> Subject:
    prompts = [[(17 + 37 * n + 11 * i) % 4000 + 20 for i in range(12 + n)] for n in range(8)]
    return Subject(
        engine=engine,
        settle=lambda: asyncio.sleep(0.005),
        prompts=prompts,
        adapter=next(iter(adapters), None),
        adapter_source=other_adapter,
    )
