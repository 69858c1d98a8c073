"""What every engine behind ``executor_svc.runtime.engine_port`` does, written as tests.

A test module subclasses ``EngineContract`` and gives the ``subject`` fixture.  The engine may be shared
between tests: none of them leaves anything running, and counters are only ever compared with what they were
before.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from executor_svc.runtime.engine_port import (
    AdapterSource,
    BlocksStored,
    Engine,
    EngineError,
    EngineOutput,
    EngineRequest,
    FinishReason,
    InvalidRequestError,
    Iteration,
    ModelError,
    Sampling,
    StructuredKind,
    StructuredOutput,
)

GREEDY_48 = Sampling(temperature=0.0, max_tokens=48, ignore_eos=True)
PATIENCE_S = 20.0
_ids = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An engine under test, and prompts it answers with varied tokens."""

    engine: Engine
    settle: Callable[[], Awaitable[None]]  # let a little time pass, as the engine sees it
    prompts: list[list[int]] = field(repr=False)  # at least 8
    adapter: str | None = None  # one it has
    adapter_source: str | None = None  # where the weights of an adapter are that can be added


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A finished request."""

    outputs: list[EngineOutput]

    @property
    def token_ids(self) -> list[int]:
        return [token for output in self.outputs for token in output.token_ids]

    @property
    def last(self) -> EngineOutput:
        return self.outputs[-1]


def request_of(prompt: list[int], sampling: Sampling, **more: object) -> EngineRequest:
    return EngineRequest(
        engine_request_id=f"contract/{next(_ids)}",
        prompt_token_ids=prompt,
        sampling=sampling,
        **more,  # type: ignore[arg-type]
    )


async def answer(engine: Engine, prompt: list[int], sampling: Sampling, **more: object) -> Answer:
    request = request_of(prompt, sampling, **more)
    return Answer(outputs=[output async for output in engine.generate(request)])


async def refusal(engine: Engine, prompt: list[int], sampling: Sampling, **more: object) -> InvalidRequestError:
    """The InvalidRequestError the request ends in; nothing of it may stay in the engine."""
    before = engine.load().unfinished
    with pytest.raises(InvalidRequestError) as caught:
        await answer(engine, prompt, sampling, **more)
    assert engine.load().unfinished == before
    assert caught.value.message
    return caught.value


async def until(subject: Subject, condition: Callable[[], bool]) -> None:
    """Wait for the engine to get there; fails after PATIENCE_S of real time."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await subject.settle()


def idle(subject: Subject) -> bool:
    load = subject.engine.load()
    return load.running == load.waiting == load.unfinished == load.kv_used_tokens == 0


class EngineContract:
    """Subclass as ``Test...`` beside a ``subject`` fixture."""

    # --- facts ----------------------------------------------------------------------------------------------

    async def test_facts_are_complete(self, subject: Subject) -> None:
        facts = subject.engine.facts
        assert facts.engine_version
        assert facts.model
        assert facts.kv_capacity_tokens >= facts.kv_block_size > 0
        assert facts.kv_capacity_tokens % facts.kv_block_size == 0
        assert min(facts.max_running, facts.max_batched_tokens, facts.max_model_len, facts.vocab_size) > 0
        assert facts.supports_priority

    async def test_tokenizer_files_turn_prompts_to_text_and_back(self, subject: Subject) -> None:
        files = subject.engine.facts.tokenizer
        tokenizer = Tokenizer.from_str(files.tokenizer_json)
        assert tokenizer.decode(tokenizer.encode("Grüße, 東京!", add_special_tokens=False).ids) == "Grüße, 東京!"
        assert files.chat_template
        assert "eos_token" in files.special_tokens

    # --- tokens ---------------------------------------------------------------------------------------------

    async def test_a_request_gets_max_tokens_tokens_and_one_end(self, subject: Subject) -> None:
        result = await answer(subject.engine, subject.prompts[0], GREEDY_48)
        assert len(result.token_ids) == 48
        assert result.last.finish_reason is FinishReason.LENGTH
        assert result.last.stop_token_id is None
        assert all(output.finish_reason is None for output in result.outputs[:-1])

    async def test_tokens_come_as_they_are_made(self, subject: Subject) -> None:
        result = await answer(subject.engine, subject.prompts[0], GREEDY_48)
        assert len(result.outputs) > 24

    async def test_prompts_are_answered_with_varied_tokens(self, subject: Subject) -> None:
        """A dropped, doubled or swapped token would be seen."""
        answers = [await answer(subject.engine, prompt, GREEDY_48) for prompt in subject.prompts[:4]]
        assert all(len(set(result.token_ids)) >= 20 for result in answers)
        assert len({tuple(result.token_ids) for result in answers}) == len(answers)

    async def test_greedy_tokens_do_not_depend_on_company(self, subject: Subject) -> None:
        alone = [(await answer(subject.engine, prompt, GREEDY_48)).token_ids for prompt in subject.prompts]
        together = await asyncio.gather(*(answer(subject.engine, prompt, GREEDY_48) for prompt in subject.prompts * 2))
        assert [result.token_ids for result in together] == alone * 2

    async def test_prompt_and_emitted_tokens_go_on_as_the_whole_would(self, subject: Subject) -> None:
        prompt = subject.prompts[1]
        whole = (await answer(subject.engine, prompt, GREEDY_48)).token_ids
        for cut in (1, 17, 47):
            rest = Sampling(temperature=0.0, max_tokens=48 - cut, ignore_eos=True)
            resumed = await answer(subject.engine, prompt + whole[:cut], rest)
            assert resumed.token_ids == whole[cut:]

    @pytest.mark.parametrize(
        "sampling",
        [
            GREEDY_48,
            replace(GREEDY_48, frequency_penalty=1.0),
            replace(GREEDY_48, temperature=0.8, seed=3),
            replace(GREEDY_48, temperature=0.8, seed=4, presence_penalty=1.0, logprobs=1),
        ],
        ids=("greedy", "penalty", "seed", "seed and penalty"),
    )
    async def test_an_output_history_goes_on_as_the_whole_would(self, subject: Subject, sampling: Sampling) -> None:
        assert subject.engine.facts.keeps_output_history
        prompt = subject.prompts[1]
        whole = await answer(subject.engine, prompt, sampling)
        for cut in (1, 17, 47):
            before = subject.engine.load().generation_tokens_total
            rest = await answer(subject.engine, prompt, sampling, output_history=whole.token_ids[:cut])
            assert rest.token_ids == whole.token_ids[cut:]
            assert rest.last.finish_reason is FinishReason.LENGTH
            await until(subject, lambda: idle(subject))
            assert subject.engine.load().generation_tokens_total - before == 48 - cut

    async def test_a_constraint_goes_on_after_an_output_history(self, subject: Subject) -> None:
        constraint = StructuredOutput(kind=StructuredKind.CHOICE, value='["a long answer", "another one", "third"]')
        sampling = Sampling(temperature=0.0, max_tokens=64, structured_output=constraint)
        whole = await answer(subject.engine, subject.prompts[0], sampling)
        rest = await answer(subject.engine, subject.prompts[0], sampling, output_history=whole.token_ids[:2])
        assert rest.token_ids == whole.token_ids[2:]
        assert (rest.last.finish_reason, rest.last.stop_token_id) == (FinishReason.STOP, whole.last.stop_token_id)

    async def test_a_history_that_the_constraint_refuses_fails_that_request_alone(self, subject: Subject) -> None:
        constraint = StructuredOutput(kind=StructuredKind.CHOICE, value='["yes", "no"]')
        sampling = Sampling(temperature=0.0, max_tokens=64, structured_output=constraint)
        with pytest.raises(EngineError, match="delivered"):
            await answer(subject.engine, subject.prompts[0], sampling, output_history=[300, 301])
        await answer(subject.engine, subject.prompts[0], GREEDY_48)

    @pytest.mark.parametrize("history", [[-1], [10_000_000], list(range(300, 348)), list(range(300, 360))])
    async def test_a_history_that_makes_no_sense_is_refused(self, subject: Subject, history: list[int]) -> None:
        error = await refusal(subject.engine, subject.prompts[0], GREEDY_48, output_history=history)
        assert error.field_name == "output_history"

    async def test_without_a_seed_sampling_is_random(self, subject: Subject) -> None:
        hot = replace(GREEDY_48, temperature=1.0)
        first, second = [(await answer(subject.engine, subject.prompts[2], hot)).token_ids for _ in range(2)]
        assert first != second

    async def test_a_seed_repeats_its_tokens(self, subject: Subject) -> None:
        def seeded(seed: int) -> Sampling:
            return Sampling(temperature=1.0, seed=seed, max_tokens=24, ignore_eos=True)

        first, again, other = [
            (await answer(subject.engine, subject.prompts[2], seeded(seed))).token_ids for seed in (7, 7, 8)
        ]
        assert first == again
        assert first != other

    async def test_an_answer_stops_at_the_model_length(self, subject: Subject) -> None:
        limit = subject.engine.facts.max_model_len
        prompt = (subject.prompts[0] * limit)[: limit - 5]
        result = await answer(subject.engine, prompt, Sampling(temperature=0.0, max_tokens=100, ignore_eos=True))
        assert len(result.token_ids) == 5
        assert result.last.finish_reason is FinishReason.LENGTH

    # --- stopping -------------------------------------------------------------------------------------------

    async def test_a_stop_token_ends_the_answer_and_is_its_last_token(self, subject: Subject) -> None:
        whole = (await answer(subject.engine, subject.prompts[0], GREEDY_48)).token_ids
        stop = whole[20]
        sampling = Sampling(temperature=0.0, max_tokens=48, ignore_eos=True, stop_token_ids=(stop,))
        result = await answer(subject.engine, subject.prompts[0], sampling)
        assert result.token_ids == whole[: whole.index(stop) + 1]
        assert result.last.finish_reason is FinishReason.STOP
        assert result.last.stop_token_id == stop

    async def test_a_stop_token_has_to_wait_for_min_tokens(self, subject: Subject) -> None:
        whole = (await answer(subject.engine, subject.prompts[0], GREEDY_48)).token_ids
        stop = whole[3]
        sampling = Sampling(temperature=0.0, max_tokens=48, min_tokens=30, ignore_eos=True, stop_token_ids=(stop,))
        result = await answer(subject.engine, subject.prompts[0], sampling)
        assert len(result.token_ids) >= 30
        assert stop not in result.token_ids[:30]

    # --- sampling options -----------------------------------------------------------------------------------

    async def test_only_allowed_tokens_are_made(self, subject: Subject) -> None:
        allowed = tuple((await answer(subject.engine, subject.prompts[0], GREEDY_48)).token_ids[5:9])
        sampling = Sampling(temperature=0.0, max_tokens=12, ignore_eos=True, allowed_token_ids=allowed)
        result = await answer(subject.engine, subject.prompts[1], sampling)
        assert len(result.token_ids) == 12
        assert set(result.token_ids) <= set(allowed)

    async def test_a_banned_token_is_not_made(self, subject: Subject) -> None:
        first = (await answer(subject.engine, subject.prompts[0], GREEDY_48)).token_ids[0]
        sampling = Sampling(temperature=0.0, max_tokens=12, ignore_eos=True, logit_bias={first: -100.0})
        result = await answer(subject.engine, subject.prompts[0], sampling)
        assert first not in result.token_ids

    async def test_bad_words_are_not_made(self, subject: Subject) -> None:
        tokenizer = Tokenizer.from_str(subject.engine.facts.tokenizer.tokenizer_json)
        whole = (await answer(subject.engine, subject.prompts[0], GREEDY_48)).token_ids
        words = ((token, tokenizer.decode([token])) for token in whole)
        token, word = next(
            (token, word)
            for token, word in words
            if word.strip() and tokenizer.encode(word, add_special_tokens=False).ids == [token]
        )
        sampling = Sampling(temperature=0.0, max_tokens=48, ignore_eos=True, bad_words=(word,))
        result = await answer(subject.engine, subject.prompts[0], sampling)
        assert token in whole
        assert token not in result.token_ids

    @pytest.mark.parametrize("blank", ["", " ", "\n\t"])
    async def test_a_bad_word_without_a_token_is_refused_and_ends_no_engine(self, subject: Subject, blank: str) -> None:
        sampling = Sampling(max_tokens=4, bad_words=("a", blank))
        refused = await refusal(subject.engine, subject.prompts[0], sampling)
        assert refused.field_name == "sampling.bad_words"

    @pytest.mark.parametrize("top", [0, 1, 4])
    async def test_each_token_has_its_logprobs_chosen_first(self, subject: Subject, top: int) -> None:
        sampling = Sampling(temperature=0.0, max_tokens=6, ignore_eos=True, logprobs=top)
        result = await answer(subject.engine, subject.prompts[0], sampling)
        rows = [row for output in result.outputs for row in output.logprobs or ()]
        assert [row[0].token_id for row in rows] == result.token_ids
        assert all(row[0].rank == 1 for row in rows)  # greedy: the chosen one is the likeliest
        assert all(len(row) == max(1, top) for row in rows)
        assert all(entry.logprob <= 0.0 for row in rows for entry in row)
        assert all([entry.logprob for entry in row] == sorted((e.logprob for e in row), reverse=True) for row in rows)

    async def test_without_being_asked_there_are_no_logprobs(self, subject: Subject) -> None:
        result = await answer(subject.engine, subject.prompts[0], GREEDY_48)
        assert all(output.logprobs is None and output.prompt_logprobs is None for output in result.outputs)

    async def test_prompt_logprobs_come_once_with_the_first_output(self, subject: Subject) -> None:
        prompt = subject.prompts[0]
        sampling = Sampling(temperature=0.0, max_tokens=3, ignore_eos=True, prompt_logprobs=1)
        result = await answer(subject.engine, prompt, sampling)
        first, *rest = [output.prompt_logprobs for output in result.outputs]
        assert first is not None
        assert first[0] is None
        assert [row[0].token_id for row in first[1:] if row] == prompt[1:]
        assert rest == [None] * len(rest)

    async def test_an_adapter_is_found_by_its_name(self, subject: Subject) -> None:
        if subject.adapter is None:
            pytest.skip("this engine has no adapter")
        plain = await answer(subject.engine, subject.prompts[0], GREEDY_48)
        adapted = await answer(subject.engine, subject.prompts[0], GREEDY_48, adapter=subject.adapter)
        assert subject.adapter in subject.engine.facts.adapters
        assert adapted.token_ids != plain.token_ids

    async def test_an_added_adapter_serves_until_it_is_removed(self, subject: Subject) -> None:
        engine, prompt = subject.engine, subject.prompts[0]
        if subject.adapter_source is None:
            pytest.skip("this engine takes no adapters while it runs")
        source = AdapterSource(name="added", source=subject.adapter_source)
        plain = await answer(engine, prompt, GREEDY_48)
        loaded = await engine.add_adapter(source)
        assert loaded.rank == 8
        assert loaded.weights
        adapted = await answer(engine, prompt, GREEDY_48, adapter="added")
        assert adapted.token_ids != plain.token_ids
        with pytest.raises(ModelError, match="has an adapter 'added' already"):
            await engine.add_adapter(source)
        with pytest.raises(ModelError, match="holds 1 adapters beside"):
            await engine.add_adapter(AdapterSource(name="second", source=subject.adapter_source))
        await engine.remove_adapter("added")
        await engine.remove_adapter("added")  # nothing happens
        assert (await refusal(engine, prompt, GREEDY_48, adapter="added")).field_name == "adapter"
        again = await engine.add_adapter(AdapterSource(name="other", source=subject.adapter_source))
        assert again == loaded
        assert (await answer(engine, prompt, GREEDY_48, adapter="other")).token_ids != plain.token_ids
        await engine.remove_adapter("other")
        assert (await answer(engine, prompt, GREEDY_48)).token_ids == plain.token_ids

    async def test_an_adapter_that_cannot_be_loaded_leaves_the_engine_as_it_was(
        self, subject: Subject, tmp_path: Path
    ) -> None:
        engine = subject.engine
        if subject.adapter_source is None:
            pytest.skip("this engine takes no adapters while it runs")
        (tmp_path / "wide").mkdir()
        (tmp_path / "wide" / "adapter_config.json").write_text('{"r": 4096, "peft_type": "LORA"}')
        for source, why in (
            (AdapterSource(name="x", source=str(tmp_path / "nothing")), "nothing"),
            (AdapterSource(name="x", source=str(tmp_path)), "adapter_config.json"),
            (AdapterSource(name="x", source=str(tmp_path / "wide")), "rank 4096"),
            (AdapterSource(name="x", source=subject.adapter_source, max_rank=4), "rank 8"),
        ):
            with pytest.raises(ModelError, match=why):
                await engine.add_adapter(source)
        if subject.adapter is not None:
            with pytest.raises(ModelError, match="already"):
                await engine.add_adapter(AdapterSource(name=subject.adapter, source=subject.adapter_source))
            with pytest.raises(EngineError, match="from the engine's start"):
                await engine.remove_adapter(subject.adapter)
        assert len((await answer(engine, subject.prompts[1], GREEDY_48)).token_ids) == 48

    # --- sleep ----------------------------------------------------------------------------------------------

    async def test_a_woken_engine_answers_as_before_and_has_cached_nothing(self, subject: Subject) -> None:
        engine, prompt = subject.engine, subject.prompts[0] * 8
        if not engine.facts.can_sleep:
            pytest.skip("this engine cannot sleep")
        before = await answer(engine, prompt, GREEDY_48)
        await engine.sleep()
        await engine.sleep()  # nothing happens
        with pytest.raises(EngineError, match="asleep"):
            await answer(engine, prompt, GREEDY_48)
        assert engine.load().unfinished == 0
        await engine.check_health()
        await engine.wake_up()
        await engine.wake_up()  # nothing happens
        after = await answer(engine, prompt, GREEDY_48)
        assert after.token_ids == before.token_ids
        assert after.last.cached_prompt_tokens in (0, None)

    async def test_an_engine_does_not_fall_asleep_under_a_request(self, subject: Subject) -> None:
        engine = subject.engine
        if not engine.facts.can_sleep:
            pytest.skip("this engine cannot sleep")
        stream = engine.generate(request_of(subject.prompts[0], GREEDY_48))
        await anext(stream)
        with pytest.raises(EngineError, match="1 requests are in the engine"):
            await engine.sleep()
        rest = [token async for output in stream for token in output.token_ids]
        assert rest, "it goes on"

    # --- structured output ----------------------------------------------------------------------------------

    async def _constrained(self, subject: Subject, kind: StructuredKind, value: str) -> str:
        if kind not in subject.engine.facts.structured_output_kinds:
            pytest.skip(f"this engine has no {kind.value}")
        sampling = Sampling(temperature=0.0, max_tokens=64, structured_output=StructuredOutput(kind=kind, value=value))
        result = await answer(subject.engine, subject.prompts[0], sampling)
        assert result.last.finish_reason is FinishReason.STOP
        tokenizer = Tokenizer.from_str(subject.engine.facts.tokenizer.tokenizer_json)
        return tokenizer.decode(result.token_ids)

    async def test_a_choice_is_one_of_the_choices(self, subject: Subject) -> None:
        text = await self._constrained(subject, StructuredKind.CHOICE, '["yes", "no", "perhaps"]')
        assert text in ("yes", "no", "perhaps")

    async def test_a_schema_is_followed(self, subject: Subject) -> None:
        schema = {
            "type": "object",
            "properties": {"ok": {"type": "boolean"}},
            "required": ["ok"],
            "additionalProperties": False,
        }
        text = await self._constrained(subject, StructuredKind.JSON_SCHEMA, json.dumps(schema))
        assert isinstance(json.loads(text)["ok"], bool)

    async def test_a_regex_is_matched(self, subject: Subject) -> None:
        text = await self._constrained(subject, StructuredKind.REGEX, "[ab]{3}-[01]{2}")
        assert len(text) == 6
        assert text[3] == "-"

    async def test_a_grammar_is_followed(self, subject: Subject) -> None:
        text = await self._constrained(subject, StructuredKind.GRAMMAR, 'root ::= "left" | "right"')
        assert text in ("left", "right")

    async def test_a_structural_tag_is_followed(self, subject: Subject) -> None:
        inner = {"type": "or", "elements": [{"type": "const_string", "value": each} for each in ("left", "right")]}
        tag = {"type": "structural_tag", "format": {"type": "tag", "begin": "<", "content": inner, "end": ">"}}
        text = await self._constrained(subject, StructuredKind.STRUCTURAL_TAG, json.dumps(tag))
        assert text in ("<left>", "<right>")

    @pytest.mark.parametrize(
        ("kind", "broken"),
        [
            (StructuredKind.JSON_SCHEMA, "{not json"),
            (StructuredKind.JSON_SCHEMA, '{"type": "no such type"}'),
            (StructuredKind.JSON_SCHEMA, "17"),
            (StructuredKind.REGEX, "([a-z"),
            (StructuredKind.CHOICE, "[]"),
            (StructuredKind.CHOICE, '{"a": 1}'),
            (StructuredKind.CHOICE, "[1, 2]"),
            (StructuredKind.GRAMMAR, "root ::= ("),
            (StructuredKind.STRUCTURAL_TAG, "{}"),
            (StructuredKind.STRUCTURAL_TAG, '{"type": "structural_tag", "format": {"type": "none of them"}}'),
            # Nothing satisfies these, which an engine may find out only while it generates.
            (StructuredKind.JSON_SCHEMA, '{"$ref": "#"}'),
            (StructuredKind.GRAMMAR, 'root ::= root "a"'),
            (StructuredKind.REGEX, r"[^\s\S]"),
            (StructuredKind.REGEX, r"a[^\s\S]"),
        ],
    )
    async def test_a_broken_constraint_is_the_callers_fault(
        self, subject: Subject, kind: StructuredKind, broken: str
    ) -> None:
        sampling = Sampling(structured_output=StructuredOutput(kind=kind, value=broken))
        error = await refusal(subject.engine, subject.prompts[0], sampling)
        assert error.field_name == f"sampling.structured_output.{kind.value}"
        await answer(subject.engine, subject.prompts[0], GREEDY_48)  # and the engine goes on

    # --- the caller's other faults --------------------------------------------------------------------------

    async def test_an_empty_prompt_is_refused(self, subject: Subject) -> None:
        assert (await refusal(subject.engine, [], GREEDY_48)).field_name == "prompt"

    async def test_a_prompt_without_room_for_output_is_refused(self, subject: Subject) -> None:
        limit = subject.engine.facts.max_model_len
        error = await refusal(subject.engine, (subject.prompts[0] * limit)[:limit], GREEDY_48)
        assert error.field_name == "prompt"
        assert str(limit) in error.message

    @pytest.mark.parametrize("offset", [0, 1_000_000])
    async def test_a_prompt_token_outside_the_vocabulary_is_refused(self, subject: Subject, offset: int) -> None:
        bad = subject.engine.facts.vocab_size + offset
        error = await refusal(subject.engine, [*subject.prompts[0], bad], GREEDY_48)
        assert error.field_name == "prompt"

    async def test_a_negative_prompt_token_is_refused(self, subject: Subject) -> None:
        assert (await refusal(subject.engine, [-1, 5], GREEDY_48)).field_name == "prompt"

    @pytest.mark.parametrize("name", ["stop_token_ids", "allowed_token_ids", "logit_bias"])
    async def test_sampling_ids_outside_the_vocabulary_are_refused(self, subject: Subject, name: str) -> None:
        bad = subject.engine.facts.vocab_size
        value: object = {bad: 1.0} if name == "logit_bias" else (bad,)
        sampling = Sampling(**{name: value})  # type: ignore[arg-type]
        assert (await refusal(subject.engine, subject.prompts[0], sampling)).field_name == f"sampling.{name}"

    @pytest.mark.parametrize("name", ["logprobs", "prompt_logprobs"])
    async def test_too_many_logprobs_are_refused(self, subject: Subject, name: str) -> None:
        sampling = Sampling(**{name: 1_000})  # type: ignore[arg-type]
        assert (await refusal(subject.engine, subject.prompts[0], sampling)).field_name == f"sampling.{name}"

    async def test_an_unknown_adapter_is_refused(self, subject: Subject) -> None:
        error = await refusal(subject.engine, subject.prompts[0], GREEDY_48, adapter="no-such")
        assert error.field_name == "adapter"

    async def test_a_handover_without_a_connector_is_refused(self, subject: Subject) -> None:
        assert subject.engine.facts.kv_connector is None
        error = await refusal(
            subject.engine, subject.prompts[0], GREEDY_48, kv_transfer_params={"do_remote_decode": True}
        )
        assert error.field_name == "kv_transfer_params"

    # --- leaving --------------------------------------------------------------------------------------------

    async def test_closing_the_generator_frees_the_kv_cache(self, subject: Subject) -> None:
        sampling = Sampling(temperature=0.0, max_tokens=400, ignore_eos=True)
        stream = subject.engine.generate(request_of(subject.prompts[0], sampling))
        await anext(stream)
        await until(subject, lambda: subject.engine.load().kv_used_tokens > 0)
        generated = subject.engine.load().generation_tokens_total
        await stream.aclose()
        await until(subject, lambda: idle(subject))
        assert subject.engine.load().generation_tokens_total - generated < 200

    async def test_cancelling_the_reader_frees_the_kv_cache(self, subject: Subject) -> None:
        sampling = Sampling(temperature=0.0, max_tokens=400, ignore_eos=True)
        reader = asyncio.create_task(answer(subject.engine, subject.prompts[0], sampling))
        await until(subject, lambda: subject.engine.load().kv_used_tokens > 0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await until(subject, lambda: idle(subject))

    async def test_an_id_may_be_used_again_after_its_request_ended(self, subject: Subject) -> None:
        request = request_of(subject.prompts[0], GREEDY_48)
        first = [token async for output in subject.engine.generate(request) for token in output.token_ids]
        again = [token async for output in subject.engine.generate(request) for token in output.token_ids]
        assert first == again

    async def test_an_id_in_use_is_refused(self, subject: Subject) -> None:
        sampling = Sampling(temperature=0.0, max_tokens=400, ignore_eos=True)
        request = request_of(subject.prompts[0], sampling)
        stream = subject.engine.generate(request)
        await anext(stream)
        with pytest.raises(EngineError, match="in use"):
            await anext(subject.engine.generate(request))
        assert subject.engine.load().unfinished == 1
        await stream.aclose()
        await until(subject, lambda: idle(subject))

    # --- watching -------------------------------------------------------------------------------------------

    async def test_counters_count_what_was_done(self, subject: Subject) -> None:
        before = subject.engine.load()
        await answer(subject.engine, subject.prompts[0], GREEDY_48)
        await until(subject, lambda: idle(subject))
        after = subject.engine.load()
        assert after.generation_tokens_total - before.generation_tokens_total == 48
        assert after.prompt_tokens_total - before.prompt_tokens_total == len(subject.prompts[0])
        assert after.iterations - before.iterations >= 48

    async def test_iterations_say_what_they_computed(self, subject: Subject) -> None:
        subject.engine.take_iterations()
        prompt = [*subject.prompts[3], *subject.prompts[4]]
        await answer(subject.engine, prompt, GREEDY_48)
        await until(subject, lambda: idle(subject))
        taken: list[Iteration] = list(subject.engine.take_iterations())
        assert list(subject.engine.take_iterations()) == []
        indexes = [iteration.index for iteration in taken]
        assert indexes == sorted(set(indexes))
        assert sum(iteration.decode_tokens for iteration in taken) == 47
        assert 0 < sum(iteration.prefill_tokens for iteration in taken) <= len(prompt)
        assert all(iteration.elapsed_s >= 0.0 for iteration in taken)
        assert max(iteration.running for iteration in taken) == 1

    async def test_at_most_256_iterations_are_kept(self, subject: Subject) -> None:
        long = Sampling(temperature=0.0, max_tokens=300, ignore_eos=True)
        await answer(subject.engine, subject.prompts[0], long)
        await until(subject, lambda: idle(subject))
        taken = subject.engine.take_iterations()
        assert len(taken) == 256
        assert taken[-1].index == subject.engine.load().iterations

    async def test_a_step_is_told_after_its_readers_have_read(self, subject: Subject) -> None:
        seen: list[int] = []
        flushed: list[int] = []

        def flush() -> None:
            if seen:
                flushed.append(len(seen))

        subject.engine.on_step(flush)
        async for output in subject.engine.generate(request_of(subject.prompts[0], GREEDY_48)):
            seen.extend(output.token_ids)
        await until(subject, lambda: bool(flushed) and flushed[-1] == 48)
        assert len(set(flushed)) > 24  # a step is told when it is done, not several at once

    async def test_a_prompt_seen_before_comes_from_the_prefix_cache(self, subject: Subject) -> None:
        prompt = [token for part in subject.prompts for token in part]
        prompt = (prompt * 100)[: 4 * subject.engine.facts.kv_block_size]
        await answer(subject.engine, prompt, GREEDY_48)
        before = subject.engine.load()
        again = await answer(subject.engine, prompt, GREEDY_48)
        after = subject.engine.load()
        cached = [o.cached_prompt_tokens for o in again.outputs if o.cached_prompt_tokens is not None]
        assert cached
        assert set(cached) == {3 * subject.engine.facts.kv_block_size}  # the last token is always computed
        assert after.prefix_hits_tokens - before.prefix_hits_tokens == 3 * subject.engine.facts.kv_block_size
        assert after.prefix_queries_tokens - before.prefix_queries_tokens == len(prompt)

    async def test_a_salted_prompt_is_shared_with_prompts_of_the_same_salt_alone(self, subject: Subject) -> None:
        block = subject.engine.facts.kv_block_size
        prompt = [20 + next(_ids) % 400, *(token for part in subject.prompts for token in part)]
        prompt = (prompt * 100)[: 3 * block]

        async def cached(salt: str | None) -> int:
            made = await answer(subject.engine, prompt, replace(GREEDY_48, cache_salt=salt))
            return next(o.cached_prompt_tokens for o in made.outputs if o.cached_prompt_tokens is not None)

        assert [await cached(salt) for salt in (None, "a", "b", "a", None)] == [0, 0, 0, 2 * block, 2 * block]

    async def test_engine_options_that_are_not_allowed_are_refused_by_name(self, subject: Subject) -> None:
        options = {"sage_output_history": "[1]"}
        error = await refusal(subject.engine, subject.prompts[0], replace(GREEDY_48, engine_options=options))
        assert error.field_name == "sampling.engine_options['sage_output_history']"

    async def test_cache_events_tell_what_the_prefix_cache_holds(self, subject: Subject) -> None:
        facts = subject.engine.facts
        if not facts.reports_cache:
            pytest.skip("this engine tells nothing of its prefix cache")
        # It begins as no other prompt does: of blocks that were stored before, nothing is told again.
        prompt = [20 + next(_ids) % 400, *(token for part in reversed(subject.prompts) for token in reversed(part))]
        prompt = (prompt * 100)[: 3 * facts.kv_block_size + 5]
        subject.engine.take_cache_events()
        await answer(subject.engine, prompt, GREEDY_48, adapter=subject.adapter)
        stored: dict[Hashable, list[int]] = {}  # the whole prefix, by the engine's hash of its last block

        def told() -> bool:
            for event in subject.engine.take_cache_events():
                if not isinstance(event, BlocksStored) or event.adapter != (subject.adapter or ""):
                    continue
                prefix = [] if event.parent is None else stored.get(event.parent)
                if prefix is None:
                    continue  # of an earlier test's request
                size = len(event.token_ids) // len(event.hashes)
                for number, name in enumerate(event.hashes):
                    stored[name] = [*prefix, *event.token_ids[: (number + 1) * size]]
            return prompt[: 3 * facts.kv_block_size] in stored.values()

        await until(subject, told)
        assert facts.prefix_caching

    async def test_the_more_urgent_request_overtakes_those_that_wait(self, subject: Subject) -> None:
        slots = subject.engine.facts.max_running
        ended: list[str] = []

        async def run(name: str, priority: int) -> None:
            await answer(subject.engine, subject.prompts[0], GREEDY_48, priority=priority)
            ended.append(name)

        async with asyncio.TaskGroup() as group:
            for _ in range(slots):
                group.create_task(run("running", 5))
            await until(subject, lambda: subject.engine.load().running == slots)
            for name, priority in (("patient", 9), ("usual", 5), ("urgent", 0)):
                for _ in range(slots):
                    group.create_task(run(name, priority))
            await until(subject, lambda: subject.engine.load().waiting > 2 * slots)
        assert ended == [name for name in ("running", "urgent", "usual", "patient") for _ in range(slots)]

    async def test_a_working_engine_is_healthy(self, subject: Subject) -> None:
        await subject.engine.check_health()
