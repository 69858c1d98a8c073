"""The simulated engine keeps the engines' contract, whichever way its outputs are taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.engine.simulated.tokenizer import tokenizer_for
from tests.contract.engine.contract import EngineContract, Subject
from tests.contract.engine.stepped_contract import SteppedContract

SETTINGS = SimulatedSettings(
    step_base_s=0.0005,
    step_per_sequence_s=0.0,
    prefill_tokens_per_s=1e6,
    kv_capacity_tokens=4096,
    max_running=4,
    max_batched_tokens=256,
    max_model_len=1024,
    adapters=("french",),
    adapter_slots=1,
    sleep_mode=True,
    sleep_s=0.01,
    wake_s=0.01,
)


@pytest.fixture
async def subject() -> AsyncIterator[Subject]:
    factory = SimulatedEngineFactory(ModelSettings(model="sim"), SETTINGS)
    engine = await factory.start(lambda state, fraction, message: None)
    tokenizer = tokenizer_for(SETTINGS.vocab_size)
    yield Subject(
        engine=engine,
        settle=lambda: asyncio.sleep(0),
        prompts=[tokenizer.encode(f"This is prompt number {n}.").ids for n in range(8)],
        adapter="french",
        adapter_source="org/adapter",
    )
    await engine.shutdown()


class TestSimulatedEngine(EngineContract):
    pass


class TestSimulatedEngineBySteps(SteppedContract):
    pass
