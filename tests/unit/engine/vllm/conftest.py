"""An engine on the recorded signatures of vLLM 0.26."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.engine.vllm.starting import VllmEngineFactory
from executor_svc.runtime.engine_port import EngineState
from tests.unit.engine.vllm.recorded_vllm import RecordedVllm
from tests.unit.engine.vllm.release import Release

SETTINGS = VllmSettings(adapters={"dialect": "/adapters/dialect"}, max_running=8, cpu_cores="0", kv_cache_bytes=1 << 26)


@pytest.fixture
def model_path(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return str(tmp_path)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> RecordedVllm:
    recorded = RecordedVllm(Release())
    assert recorded.release.version == "0.26.0"
    recorded.install(monkeypatch)
    for name in (
        "VLLM_ENGINE_READY_TIMEOUT_S",
        "VLLM_CPU_OMP_THREADS_BIND",
        "OMP_WAIT_POLICY",
        "VLLM_NIXL_SIDE_CHANNEL_HOST",
        "VLLM_NIXL_SIDE_CHANNEL_PORT",
        "SAGE_NIXL_THREADS",
        "SAGE_EXECUTOR_PROCESS",
    ):
        monkeypatch.setenv(name, "")  # so that what the adapter sets is undone
    return recorded


@pytest.fixture
async def engine(vllm: RecordedVllm, model_path: str) -> AsyncIterator[VllmEngine]:
    states: list[EngineState] = []
    factory = VllmEngineFactory(ModelSettings(model=model_path, served_name="tiny"), SETTINGS)
    engine = await factory.start(lambda state, fraction, message: states.append(state))
    assert list(dict.fromkeys(states)) == [EngineState.DOWNLOADING, EngineState.LOADING, EngineState.WARMING]
    vllm.calls.clear()
    yield engine
    await engine.shutdown()
    assert vllm.stopped
