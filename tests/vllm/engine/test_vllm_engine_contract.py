"""vLLM keeps the engines' contract."""

from __future__ import annotations

import pytest

from tests.contract.engine.contract import EngineContract

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]


class TestVllmEngine(EngineContract):
    pass
