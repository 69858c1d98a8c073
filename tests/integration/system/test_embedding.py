"""Embed: vectors of texts, computed by instances of role EMBEDDING, which go elsewhere when one of them dies."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence

import pytest

from executor_svc.engine.simulated.embedding import embedding
from executor_svc.engine.simulated.facts import EMBEDDING_DIMENSIONS
from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.engine.simulated.tokenizer import tokenizer_for
from executor_svc.engine.simulated.tokens import model_salt
from executor_svc.runtime.engine_port import EmbeddingOptions
from sage_client import (
    Client,
    DeadlineExceededError,
    InstanceState,
    InvalidRequestError,
    NoInstanceError,
    RequestConflictError,
    UnknownModelError,
)
from tests.integration.system.local_fleet import MODEL, LocalFleet
from tests.support.eventually import eventually

pytestmark = pytest.mark.asyncio

EMBEDDER = "embedder"
ROLE = {"role": "embedding"}
Inputs = list[str | list[int]]
TEXTS = ["A cat sat on the mat.", "A cat sat on a mat.", "Quarterly revenue grew by nine percent."]


def vector(text: str, **options: object) -> list[float]:
    """What the simulated engine makes of a text."""
    ids = tokenizer_for(2_048).encode(text).ids
    data = embedding(ids, model_salt(EMBEDDER, None), EMBEDDING_DIMENSIONS, EmbeddingOptions(**options))  # type: ignore[arg-type]
    return list(memoryview(data).cast("f"))


def closeness(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


@pytest.fixture
async def fleet() -> AsyncIterator[LocalFleet]:
    async with LocalFleet() as fleet:
        await asyncio.gather(
            fleet.add("embed-1", model=EMBEDDER, settings=ROLE),
            fleet.add("embed-2", model=EMBEDDER, settings=ROLE),
            fleet.add("general"),
        )
        yield fleet


async def test_every_text_gets_the_vector_of_its_own(fleet: LocalFleet) -> None:
    found = await fleet.client.embed(TEXTS, model=EMBEDDER)
    assert [list(each) for each in found] == [vector(text) for text in TEXTS]
    assert found.model == EMBEDDER
    assert found.usage.prompt_tokens == sum(len(tokenizer_for(2_048).encode(text).ids) for text in TEXTS)
    assert closeness(found[0], found[1]) > closeness(found[0], found[2])


async def test_one_text_and_token_ids_are_inputs_too(fleet: LocalFleet) -> None:
    ids = tokenizer_for(2_048).encode(TEXTS[0]).ids
    one, by_ids = await asyncio.gather(
        fleet.client.embed(TEXTS[0], model=EMBEDDER), fleet.client.embed(ids, model=EMBEDDER)
    )
    assert list(one[0]) == list(by_ids[0]) == vector(TEXTS[0])


async def test_vectors_are_shortened_and_scaled_on_request(fleet: LocalFleet) -> None:
    (short,) = await fleet.client.embed(TEXTS[0], model=EMBEDDER, dimensions=16)
    (scaled,) = await fleet.client.embed(TEXTS[0], model=EMBEDDER, dimensions=16, normalize=True)
    assert list(short) == vector(TEXTS[0], dimensions=16)
    assert math.hypot(*short) < 0.99
    assert math.hypot(*scaled) == pytest.approx(1.0, abs=1e-5)


async def test_many_inputs_run_on_all_instances(fleet: LocalFleet) -> None:
    texts = [f"Sentence {n} of a long document." for n in range(300)]
    found = await fleet.client.embed(texts, model=EMBEDDER, request_id="document")
    assert [list(each) for each in found] == [vector(text) for text in texts]
    placed = {(await fleet.client.explain(f"document/{n}")).decisions[-1].instance_id for n in range(len(texts))}
    assert placed == {"embed-1", "embed-2"}


async def test_a_model_does_what_it_is_for(fleet: LocalFleet) -> None:
    with pytest.raises(InvalidRequestError, match=r"generates; it does not embed") as refused:
        await fleet.client.embed(TEXTS, model=MODEL)
    assert {violation.field for violation in refused.value.violations} == {"model"}
    with pytest.raises(InvalidRequestError, match=r"embeds; it does not generate"):
        await fleet.client.generate("Hello", model=EMBEDDER).result()
    with pytest.raises(UnknownModelError):
        await fleet.client.embed(TEXTS, model="nobody's")


async def test_what_is_wrong_is_named(fleet: LocalFleet) -> None:
    with pytest.raises(InvalidRequestError) as wrong:
        await fleet.client.embed(Inputs(["fine", "", [4_000_000_000]]), model=EMBEDDER, dimensions=0)
    assert {violation.field for violation in wrong.value.violations} == {"inputs[1]", "dimensions"}
    with pytest.raises(InvalidRequestError) as outside:
        await fleet.client.embed(Inputs(["fine", [4_000_000]]), model=EMBEDDER)
    assert {violation.field for violation in outside.value.violations} == {"inputs[1]"}
    with pytest.raises(InvalidRequestError) as long:
        await fleet.client.embed(Inputs(["fine", [300] * 8_193]), model=EMBEDDER)
    assert {violation.field for violation in long.value.violations} == {"inputs[1]"}
    with pytest.raises(InvalidRequestError) as many:
        await fleet.client.embed(["a"] * 2_049, model=EMBEDDER)
    assert {violation.field for violation in many.value.violations} == {"inputs"}
    with pytest.raises(InvalidRequestError) as larger:
        await fleet.client.embed("a", model=EMBEDDER, dimensions=EMBEDDING_DIMENSIONS + 1)
    assert {violation.field for violation in larger.value.violations} == {"dimensions"}


async def test_the_longest_input_fits(fleet: LocalFleet) -> None:
    (found,) = await fleet.client.embed([300] * 8_192, model=EMBEDDER)
    assert len(found) == EMBEDDING_DIMENSIONS


async def test_an_id_answers_the_same_call_only(fleet: LocalFleet) -> None:
    first = await fleet.client.embed(TEXTS, model=EMBEDDER, request_id="once")
    again = await fleet.client.embed(TEXTS, model=EMBEDDER, request_id="once")
    assert list(first) == list(again)
    assert (await fleet.client.explain("once/0")).state.value == "finished"
    with pytest.raises(RequestConflictError):
        await fleet.client.embed([*TEXTS[1:], TEXTS[0]], model=EMBEDDER, request_id="once")


async def test_inputs_of_a_dead_instance_go_elsewhere(fleet: LocalFleet) -> None:
    texts = [f"Sentence {n}." for n in range(64)]
    for name in ("embed-1", "embed-2"):
        fleet.executors[name].engine.inject(Fault(kind=FaultKind.SLOW, factor=50.0))
    call = asyncio.create_task(fleet.client.embed(texts, model=EMBEDDER))
    await eventually(lambda: fleet.executors["embed-1"].engine.load().unfinished > 4, what="work on both")
    fleet.executors["embed-1"].engine.inject(Fault(kind=FaultKind.DIE))
    assert [list(each) for each in await call] == [vector(text) for text in texts]


async def test_a_client_that_leaves_frees_the_engines(fleet: LocalFleet) -> None:
    engine = fleet.executors["embed-1"].engine
    engine.inject(Fault(kind=FaultKind.SLOW, factor=1_000.0))
    call = asyncio.create_task(fleet.client.embed(["A text"] * 64, model=EMBEDDER, preferred_instance="embed-1"))
    await eventually(lambda: engine.load().unfinished > 8, what="work")
    call.cancel()
    await eventually(lambda: engine.load().unfinished == 0, what="an idle engine")
    await eventually(lambda: len(fleet.scheduler.control.requests) == 0, what="no live request")


async def test_a_deadline_ends_the_call(fleet: LocalFleet) -> None:
    for name in ("embed-1", "embed-2"):
        fleet.executors[name].engine.inject(Fault(kind=FaultKind.HANG))
    with pytest.raises(DeadlineExceededError):
        await fleet.client.embed(TEXTS, model=EMBEDDER, deadline=0.3)


async def test_no_instance_is_said(fleet: LocalFleet) -> None:
    for name in ("embed-1", "embed-2"):
        await fleet.client.drain_instance(name)
        await fleet.until(name, InstanceState.DRAINED)
    with pytest.raises(NoInstanceError):
        await fleet.client.embed(TEXTS, model=EMBEDDER)


async def test_the_blocking_client_embeds(fleet: LocalFleet) -> None:
    def call() -> list[list[float]]:
        with Client(fleet.address) as client:
            return [list(each) for each in client.embed(TEXTS, model=EMBEDDER)]

    assert await asyncio.to_thread(call) == [vector(text) for text in TEXTS]
