"""vLLM with NIXL keeps the contract of KV transfer."""

from __future__ import annotations

import pytest

from tests.contract.engine.kv_transfer_contract import KvTransferContract

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]


class TestNixl(KvTransferContract):
    pass
