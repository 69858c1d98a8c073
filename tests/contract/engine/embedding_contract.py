"""What every engine that embeds does, written as tests, as ``contract`` does for engines that generate."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest

from executor_svc.runtime.engine_port import (
    EmbeddingOptions,
    EngineOutput,
    FinishReason,
    InvalidRequestError,
    Sampling,
    StepOutput,
)
from tests.contract.engine.contract import Subject, idle, request_of, until

AS_IT_IS = EmbeddingOptions()
NO_SAMPLING = Sampling()


async def outputs(
    subject: Subject, prompt: list[int], options: EmbeddingOptions | None = AS_IT_IS
) -> list[EngineOutput]:
    request = request_of(prompt, NO_SAMPLING, embedding=options)
    return [output async for output in subject.engine.generate(request)]


async def vector(
    subject: Subject, prompt: list[int], options: EmbeddingOptions = AS_IT_IS, **more: object
) -> list[float]:
    request = request_of(prompt, NO_SAMPLING, embedding=options, **more)
    (output,) = [output async for output in subject.engine.generate(request)]
    assert output.embedding is not None
    return list(memoryview(output.embedding).cast("f"))


async def refused(subject: Subject, prompt: list[int], options: EmbeddingOptions | None, **more: object) -> str:
    """Return the field that is at fault."""
    request = request_of(prompt, NO_SAMPLING, embedding=options, **more)
    with pytest.raises(InvalidRequestError) as error:
        async for _ in subject.engine.generate(request):
            pass
    return error.value.field_name


def closeness(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine of two vectors."""
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


class Unread:
    """Implements StepReader for requests that are not taken by steps."""

    def take(self, output: StepOutput) -> None:
        raise AssertionError("no output comes by steps")


class EmbeddingContract:
    async def test_the_only_output_is_a_vector(self, subject: Subject) -> None:
        (output,) = await outputs(subject, subject.prompts[0])
        assert output.embedding is not None
        assert len(output.embedding) == 4 * subject.engine.facts.embedding_dimensions
        assert output.finish_reason is FinishReason.STOP
        assert list(output.token_ids) == []
        assert all(math.isfinite(value) for value in memoryview(output.embedding).cast("f"))

    async def test_a_prompt_has_its_own_vector_whatever_runs_beside_it(self, subject: Subject) -> None:
        alone = [await vector(subject, prompt) for prompt in subject.prompts]
        together = await asyncio.gather(*(vector(subject, prompt) for prompt in subject.prompts))
        for one, other in zip(alone, together, strict=True):
            assert closeness(one, other) > 0.9999
        assert closeness(alone[0], alone[1]) < 0.9999

    async def test_it_has_length_1_on_request(self, subject: Subject) -> None:
        found = await vector(subject, subject.prompts[0], EmbeddingOptions(normalize=True))
        assert math.hypot(*found) == pytest.approx(1.0, abs=1e-5)

    async def test_its_last_step_may_be_left_out(self, subject: Subject) -> None:
        raw = await vector(subject, subject.prompts[0], EmbeddingOptions(raw=True))
        scaled = await vector(subject, subject.prompts[0], EmbeddingOptions(normalize=True))
        assert closeness(raw, scaled) > 0.9999
        assert math.hypot(*raw) != pytest.approx(1.0, abs=1e-3)

    async def test_the_longest_prompt_is_the_models_length(self, subject: Subject) -> None:
        length = subject.engine.facts.max_model_len
        prompt = (subject.prompts[0] * length)[:length]
        assert len(await vector(subject, prompt)) == subject.engine.facts.embedding_dimensions
        assert await refused(subject, [*prompt, prompt[0]], AS_IT_IS) == "prompt"

    async def test_it_does_not_generate(self, subject: Subject) -> None:
        assert subject.engine.facts.embedding_dimensions > 0
        assert await refused(subject, subject.prompts[0], None) == "model"

    @pytest.mark.parametrize("dimensions", [0, 100_000])
    async def test_a_length_that_no_vector_has_is_refused(self, subject: Subject, dimensions: int) -> None:
        assert await refused(subject, subject.prompts[0], EmbeddingOptions(dimensions=dimensions)) == "dimensions"

    async def test_bad_prompts_are_refused(self, subject: Subject) -> None:
        assert await refused(subject, [], AS_IT_IS) == "prompt"
        assert await refused(subject, [subject.engine.facts.vocab_size], AS_IT_IS) == "prompt"
        assert await refused(subject, subject.prompts[0], AS_IT_IS, adapter="unknown") == "adapter"

    async def test_no_request_is_taken_by_steps(self, subject: Subject) -> None:
        request = request_of(subject.prompts[0], NO_SAMPLING, embedding=AS_IT_IS)
        assert not subject.engine.submit(request, Unread())

    async def test_one_that_is_dropped_leaves_nothing(self, subject: Subject) -> None:
        tasks = [asyncio.create_task(vector(subject, prompt * 20)) for prompt in subject.prompts]
        await until(subject, lambda: subject.engine.load().unfinished > 0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(subject, lambda: idle(subject))

    async def test_it_counts_its_work(self, subject: Subject) -> None:
        before = subject.engine.load()
        await vector(subject, subject.prompts[1])
        await until(subject, lambda: subject.engine.load().iterations > before.iterations)
        assert subject.engine.load().prompt_tokens_total == before.prompt_tokens_total + len(subject.prompts[1])
        assert subject.engine.take_iterations()
