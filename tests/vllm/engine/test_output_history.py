"""A request that continues from its output history has the very tokens of the uninterrupted run."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.runtime.engine_port import FinishReason, Sampling, StructuredKind, StructuredOutput
from tests.contract.engine.contract import Subject, answer, idle, until

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

BASE = Sampling(temperature=0.0, max_tokens=60, ignore_eos=True)
HOT = replace(BASE, temperature=0.8)
SCHEMA = (
    '{"type": "object", "properties": {"name": {"type": "string", "minLength": 10, "maxLength": 40},'
    ' "n": {"type": "integer"}}, "required": ["name", "n"], "additionalProperties": false}'
)


def constrained(kind: StructuredKind, value: str, **more: Any) -> Sampling:
    constraint = StructuredOutput(kind=kind, value=value)
    return replace(BASE, ignore_eos=False, structured_output=constraint, **more)


REGEX = "([a-f]{3,9}-){6}[0-9]{20}(x|y)*"
CASES = {
    "greedy": BASE,
    "frequency penalty": replace(BASE, frequency_penalty=1.2),
    "presence penalty": replace(BASE, presence_penalty=1.5),
    "repetition penalty": replace(BASE, repetition_penalty=1.3),
    "minimum length": replace(BASE, min_tokens=40, ignore_eos=False),
    "regex": constrained(StructuredKind.REGEX, REGEX),
    "schema": constrained(StructuredKind.JSON_SCHEMA, SCHEMA),
    "schema and penalty": constrained(StructuredKind.JSON_SCHEMA, SCHEMA, frequency_penalty=0.8),
    "grammar": constrained(StructuredKind.GRAMMAR, 'root ::= ("ab" | "cd" | "ef")+ "." [0-9]*'),
    "seed": replace(HOT, seed=1234),
    "seed, top p and k": replace(HOT, seed=99, top_p=0.9, top_k=50),
    "seed and penalty": replace(HOT, seed=7, frequency_penalty=1.0),
    "seed and schema": constrained(StructuredKind.JSON_SCHEMA, SCHEMA, seed=7, temperature=0.8),
    "log probabilities": replace(BASE, frequency_penalty=1.2, logprobs=3),
}


async def test_the_self_test_passes(engine: VllmEngine) -> None:
    assert engine.facts.keeps_output_history


@pytest.mark.parametrize("case", CASES)
async def test_a_history_is_continued_exactly(case: str, subject: Subject) -> None:
    sampling, prompt = CASES[case], subject.prompts[3]
    whole = await answer(subject.engine, prompt, sampling)
    tokens = whole.token_ids
    assert len(tokens) > 12, "too short to be cut"
    for cut in sorted({1, len(tokens) // 2, len(tokens) - 2}):
        rest = await answer(subject.engine, prompt, sampling, output_history=tokens[:cut])
        assert rest.token_ids == tokens[cut:], f"cut after {cut} of {len(tokens)}"
        assert rest.last.finish_reason is whole.last.finish_reason
        assert rest.last.stop_token_id == whole.last.stop_token_id
        if sampling.logprobs is not None:
            rows = [row for output in rest.outputs for row in output.logprobs or ()]
            wanted = [row for output in whole.outputs for row in output.logprobs or ()][cut:]
            for row, wanted_row in zip(rows, wanted, strict=True):
                assert {e.token_id: e.logprob for e in row} == pytest.approx(
                    {e.token_id: e.logprob for e in wanted_row},
                    abs=5e-3,  # a GPU adds a prefilled token up otherwise
                )


async def test_a_bad_word_across_the_seam_is_not_made(subject: Subject) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(subject.engine.facts.tokenizer.tokenizer_json)
    prompt = subject.prompts[3]
    plain = (await answer(subject.engine, prompt, BASE)).token_ids

    def spelled_back(at: int) -> str | None:
        text = tokenizer.decode(plain[at : at + 2])
        same = tokenizer.encode(text, add_special_tokens=False).ids == plain[at : at + 2]
        first = all(plain[k : k + 2] != plain[at : at + 2] for k in range(at))
        return text if same and first and text == text.lstrip() else None  # vLLM strips what it is given

    at, word = next((at, word) for at in range(10, 58) if (word := spelled_back(at)) is not None)
    sampling = replace(BASE, bad_words=(word,))
    whole = (await answer(subject.engine, prompt, sampling)).token_ids
    assert whole[: at + 1] == plain[: at + 1]
    assert whole[at + 1] != plain[at + 1], "the word is in the way where the history ends"
    rest = await answer(subject.engine, prompt, sampling, output_history=whole[: at + 1])
    assert rest.token_ids == whole[at + 1 :]


async def test_a_history_goes_with_an_adapter(subject: Subject) -> None:
    if subject.adapter is None:
        pytest.skip("no adapter on this platform")
    sampling = replace(HOT, seed=3, frequency_penalty=0.5)
    whole = (await answer(subject.engine, subject.prompts[2], sampling, adapter=subject.adapter)).token_ids
    rest = await answer(
        subject.engine, subject.prompts[2], sampling, adapter=subject.adapter, output_history=whole[:30]
    )
    assert rest.token_ids == whole[30:]


async def test_histories_are_continued_beside_other_requests(subject: Subject) -> None:
    cases = [CASES["frequency penalty"], CASES["seed"], CASES["presence penalty"], CASES["regex"]] * 2
    prompts = subject.prompts[: len(cases)]
    wholes = [await answer(subject.engine, prompt, s) for prompt, s in zip(prompts, cases, strict=True)]

    async def continued(index: int) -> list[int]:
        tokens = wholes[index].token_ids
        cut = 5 + 3 * index
        return (
            tokens[:cut]
            + (await answer(subject.engine, prompts[index], cases[index], output_history=tokens[:cut])).token_ids
        )

    company = [asyncio.create_task(_tokens(subject, n)) for n in range(4)]
    found = await asyncio.gather(*(continued(index) for index in range(len(cases))))
    await asyncio.gather(*company)
    assert found == [whole.token_ids for whole in wholes]


async def _tokens(subject: Subject, number: int) -> list[int]:
    return (await answer(subject.engine, subject.prompts[number], replace(HOT, max_tokens=40))).token_ids


async def test_limits_count_the_history(subject: Subject) -> None:
    whole = (await answer(subject.engine, subject.prompts[1], BASE)).token_ids
    rest = await answer(subject.engine, subject.prompts[1], BASE, output_history=whole[:59])
    assert (rest.token_ids, rest.last.finish_reason) == (whole[59:], FinishReason.LENGTH)


async def test_a_history_that_the_grammar_refuses_ends_that_request_alone(subject: Subject) -> None:
    from executor_svc.runtime.engine_port import EngineError

    other = asyncio.create_task(_tokens(subject, 5))
    sampling = constrained(StructuredKind.REGEX, "[0-9]{30}")
    with pytest.raises(EngineError, match="delivered"):
        await answer(subject.engine, subject.prompts[0], sampling, output_history=[300, 301, 302])
    assert len(await other) == 40
    await until(subject, lambda: idle(subject))


async def test_seeded_prompts_that_are_computed_in_parts_leave_the_engine_alive(subject: Subject) -> None:
    """vLLM rewinds the generator of such a request after each part; on a CPU that raised and ended the engine."""
    room = subject.engine.facts
    length = room.max_model_len - 60
    prompts = [[(7 * n + k) % 4000 + 10 for k in range(length)] for n in range(6)]
    sampling = replace(HOT, seed=5, max_tokens=8)
    assert min(room.max_running, len(prompts)) * length > room.max_batched_tokens, "all prompts fit one step"
    together = await asyncio.gather(*(answer(subject.engine, prompt, sampling) for prompt in prompts))
    alone = [await answer(subject.engine, prompt, sampling) for prompt in prompts[:2]]
    assert [each.token_ids for each in together[:2]] == [each.token_ids for each in alone]
    await subject.engine.check_health()
