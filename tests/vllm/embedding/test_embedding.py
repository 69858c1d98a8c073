"""Embeddings by real vLLM: the engine keeps the contract, and the whole control plane gives vLLM's own vectors."""

from __future__ import annotations

import asyncio

import pytest

from executor_svc.config import ExecutorConfig
from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.vllm.embedding import VllmEmbeddingEngine
from executor_svc.runtime.engine_port import EmbeddingOptions, EngineState, ProgressListener
from executor_svc.runtime.service import ExecutorService
from executor_svc.wiring import run
from sage_client import AsyncClient, InvalidRequestError
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.wiring.scheduler_service import SchedulerService
from tests.contract.engine.contract import Subject
from tests.contract.engine.embedding_contract import EmbeddingContract, closeness, refused

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

TEXTS = [f"The scheduler decides who goes next, and sentence {n} says so." for n in range(24)]


class TestVllmEmbedding(EmbeddingContract):
    pass


async def test_a_model_that_cannot_shorten_its_vectors_says_so(subject: Subject) -> None:
    assert await refused(subject, subject.prompts[0], EmbeddingOptions(dimensions=32)) == "dimensions"


class Started:
    """Implements EngineFactory with an engine that runs already, and that outlives the executor."""

    def __init__(self, engine: VllmEmbeddingEngine) -> None:
        self._engine = engine

    async def start(self, progress: ProgressListener) -> VllmEmbeddingEngine:
        progress(EngineState.READY, 1.0, "ready")
        return self._engine


async def test_the_control_plane_gives_vllms_own_vectors(engine: VllmEmbeddingEngine) -> None:
    from vllm import PoolingParams

    scheduler = SchedulerService(SchedulerConfig(listen="127.0.0.1:0", drain_timeout_s=1.0))
    await scheduler.start()
    address = f"127.0.0.1:{scheduler.port}"
    config = ExecutorConfig(
        instance_id="embed-1",
        role="embedding",
        scheduler=(address,),
        engine=EngineSettings(kind="vllm", model=ModelSettings(model="embedder")),
    )
    services: list[ExecutorService] = []
    shutdown, engine.shutdown = engine.shutdown, _nothing  # type: ignore[method-assign]  # other tests use it
    executor = asyncio.create_task(run(config, factory=Started(engine), on_service=services.append))
    try:
        async with AsyncClient(address) as client:
            found = await client.embed(TEXTS, model="embedder", no_instance="wait", deadline=30)
            for text, ours in zip(TEXTS, found, strict=True):
                async for result in engine._llm.encode(text, PoolingParams(task="embed"), f"direct-{text}"):
                    assert closeness(ours, result.outputs.data.tolist()) > 0.9999
            with pytest.raises(InvalidRequestError) as shorter:
                await client.embed(TEXTS[:2], model="embedder", dimensions=32)
            assert {violation.field for violation in shorter.value.violations} == {"dimensions"}
            with pytest.raises(InvalidRequestError, match="embeds; it does not generate"):
                await client.generate("Hello", model="embedder").result()
    finally:
        for service in services:
            service.stop(15)
            service.stop(15)
        await executor
        await scheduler.stop()
        engine.shutdown = shutdown  # type: ignore[method-assign]


async def _nothing() -> None:
    pass


async def test_its_speed_was_measured_before_the_first_request(engine: VllmEmbeddingEngine) -> None:
    alone = [each for each in engine.facts.measured if each.running == 1]
    assert 16 in {each.prefill_tokens for each in alone}, "a short prompt by itself"
    assert max(each.prefill_tokens for each in engine.facts.measured) >= 500, "prompts that fill an iteration"
