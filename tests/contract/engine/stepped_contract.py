"""The engines' contract where outputs come by steps: all that ``generate`` promises, and the steps themselves."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from executor_svc.runtime.engine_port import InvalidRequestError, Sampling
from tests.contract.engine.by_steps import BySteps, Reader
from tests.contract.engine.contract import GREEDY_48, EngineContract, Subject, answer, idle, request_of, until


class SteppedContract(EngineContract):
    """Subclass as ``Test...`` where there is a ``subject`` fixture."""

    @pytest.fixture
    def subject(self, subject: Subject) -> Subject:
        return replace(subject, engine=BySteps(subject.engine))

    async def test_a_step_brings_the_tokens_of_all_requests_in_one_list(self, subject: Subject) -> None:
        assert isinstance(subject.engine, BySteps)
        slots = subject.engine.facts.max_running
        await asyncio.gather(*(answer(subject.engine, prompt, GREEDY_48) for prompt in subject.prompts[:slots]))
        assert subject.engine.largest_step == min(slots, len(subject.prompts))

    async def test_both_ways_give_the_same_outputs(self, subject: Subject) -> None:
        assert isinstance(subject.engine, BySteps)
        for sampling in (GREEDY_48, replace(GREEDY_48, temperature=0.9, seed=5, frequency_penalty=0.5)):
            for history in ((), (300, 301)):
                stepped = await answer(subject.engine, subject.prompts[3], sampling, output_history=history)
                streamed = await answer(subject.engine.own, subject.prompts[3], sampling, output_history=history)
                assert stepped.token_ids == streamed.token_ids
                assert replace(stepped.last, token_ids=()) == replace(streamed.last, token_ids=())

    async def test_what_needs_a_stream_of_its_own_is_refused_and_counted(self, subject: Subject) -> None:
        before = dict(subject.engine.load().submissions)
        for sampling in (replace(GREEDY_48, logprobs=1), replace(GREEDY_48, prompt_logprobs=1)):
            assert not subject.engine.submit(request_of(subject.prompts[0], sampling), Reader())
        assert not subject.engine.submit(request_of(subject.prompts[0], GREEDY_48, prefill_only=True), Reader())
        await answer(subject.engine, subject.prompts[0], GREEDY_48)
        after = subject.engine.load().submissions
        grown = {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}
        assert grown == {"logprobs": 2, "kv_transfer": 1, "steps": 1}

    async def test_an_invalid_request_is_refused_at_once(self, subject: Subject) -> None:
        with pytest.raises(InvalidRequestError, match="empty"):
            subject.engine.submit(request_of([], GREEDY_48), Reader())
        assert subject.engine.load().unfinished == 0

    async def test_a_request_aborted_at_once_leaves_nothing_behind(self, subject: Subject) -> None:
        request = request_of(subject.prompts[0], Sampling(temperature=0.0, max_tokens=400, ignore_eos=True))
        reader = Reader()
        assert subject.engine.submit(request, reader)
        await subject.engine.abort(request.engine_request_id)
        reader.over = True
        await subject.engine.abort(request.engine_request_id)  # a request that is over is ignored
        await answer(subject.engine, subject.prompts[1], GREEDY_48)
        assert reader.queue.empty()
        await until(subject, lambda: idle(subject))

    async def test_nothing_comes_after_an_abort(self, subject: Subject) -> None:
        request = request_of(subject.prompts[0], Sampling(temperature=0.0, max_tokens=400, ignore_eos=True))
        reader = Reader()
        assert subject.engine.submit(request, reader)
        for _ in range(5):
            await reader.next()
        aborting = subject.engine.abort(request.engine_request_id)
        reader.over = True  # it refuses anything more
        await aborting
        await answer(subject.engine, subject.prompts[1], GREEDY_48)
        await until(subject, lambda: idle(subject))
