"""Simulated engines keep the contract of KV transfer, over their real side channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.settings import SimulatedKvTransferSettings, SimulatedSettings
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from tests.contract.engine.kv_transfer_contract import Ends, KvTransferContract

TRANSFER = SimulatedKvTransferSettings(
    connector="NixlConnector", lease_s=1.5, handshake_s=0.01, pull_base_s=0.005, bandwidth_bytes_per_s=1e11
)
SETTINGS = SimulatedSettings(
    step_base_s=0.0005, step_per_sequence_s=0.0, prefill_tokens_per_s=1e6, max_model_len=4096, kv_transfer=TRANSFER
)


def prompt(length: int, number: int) -> list[int]:
    return [300 + (number * 97 + index * (index + number)) % 1700 for index in range(length)]


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    factory = SimulatedEngineFactory(ModelSettings(model="sim"), SETTINGS)
    engines = [await factory.start(lambda state, fraction, message: None) for _ in range(2)]
    yield Ends(
        prefill=engines[0],
        decode=engines[1],
        prompt=prompt,
        lengths=(40, 2048, 3500),
        settle=lambda: asyncio.sleep(0.002),
    )
    for engine in engines:
        await engine.shutdown()


class TestSimulatedKvTransfer(KvTransferContract):
    pass
