"""vLLM keeps the engines' contract, whichever way its outputs are taken."""

from __future__ import annotations

import pytest

from tests.contract.engine.contract import EngineContract
from tests.contract.engine.stepped_contract import SteppedContract

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]


class TestVllmEngine(EngineContract):
    pass


class TestVllmEngineBySteps(SteppedContract):
    pass
