"""A simulated engine that embeds keeps the contract of engines that do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.engine.simulated.tokenizer import tokenizer_for
from executor_svc.runtime.engine_port import EmbeddingOptions, InvalidRequestError, Sampling
from tests.contract.engine.contract import Subject, request_of
from tests.contract.engine.embedding_contract import EmbeddingContract, vector
from tests.contract.engine.test_simulated_engine import SETTINGS


async def subject_of(*, embeds: bool) -> Subject:
    factory = SimulatedEngineFactory(ModelSettings(model="sim"), SETTINGS, embeds=embeds)
    engine = await factory.start(lambda state, fraction, message: None)
    tokenizer = tokenizer_for(SETTINGS.vocab_size)
    return Subject(
        engine=engine,
        settle=lambda: asyncio.sleep(0),
        prompts=[tokenizer.encode(f"This is prompt number {n}.").ids for n in range(8)],
        adapter="french",
    )


@pytest.fixture
async def subject() -> AsyncIterator[Subject]:
    made = await subject_of(embeds=True)
    yield made
    await made.engine.shutdown()


class TestSimulatedEmbedding(EmbeddingContract):
    pass


async def test_an_adapter_has_vectors_of_its_own(subject: Subject) -> None:
    plain = await vector(subject, subject.prompts[0])
    assert await vector(subject, subject.prompts[0], adapter="french") != plain


async def test_a_shorter_vector_is_the_beginning_of_the_whole_one(subject: Subject) -> None:
    whole = await vector(subject, subject.prompts[0])
    assert await vector(subject, subject.prompts[0], EmbeddingOptions(dimensions=8)) == whole[:8]


async def test_an_engine_that_generates_does_not_embed() -> None:
    generating = await subject_of(embeds=False)
    request = replace(request_of(generating.prompts[0], Sampling()), embedding=EmbeddingOptions())
    with pytest.raises(InvalidRequestError, match="does not embed"):
        async for _ in generating.engine.generate(request):
            pass
    await generating.engine.shutdown()
