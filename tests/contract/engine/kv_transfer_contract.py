"""What every two engines with a KV connector do for each other, written as tests.

A test module subclasses ``KvTransferContract`` and gives the ``ends`` fixture.  The engines may be shared between
tests: none of them leaves anything running or kept.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import pytest

from executor_svc.runtime.engine_port import (
    Engine,
    EngineError,
    EngineOutput,
    EngineRequest,
    FinishReason,
    InvalidRequestError,
    JsonValue,
    Sampling,
)
from tests.contract.engine.contract import GREEDY_48, Answer, answer, request_of

ONE = Sampling(temperature=0.0, max_tokens=1, ignore_eos=True)
PATIENCE_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Two engines that can hand over to each other, and prompts they answer with varied tokens."""

    prefill: Engine
    decode: Engine
    prompt: Callable[[int, int], list[int]]  # of a length in tokens, and a number: no two share a beginning
    lengths: tuple[int, ...]  # of prompts, in tokens; the last is the longest
    settle: Callable[[], Awaitable[None]]  # let a little time pass

    async def kept(self, prompt: list[int]) -> Mapping[str, JsonValue]:
        """Run a prefill leg; how to fetch what it left behind, after travelling as JSON."""
        params = (await answer(self.prefill, prompt, ONE, prefill_only=True)).last.kv_transfer_params
        assert params is not None
        travelled: Mapping[str, JsonValue] = json.loads(json.dumps(params))
        return travelled

    async def split(self, prompt: list[int], sampling: Sampling = GREEDY_48) -> Answer:
        return await answer(self.decode, prompt, sampling, kv_transfer_params=await self.kept(prompt))

    @property
    def kv_used(self) -> tuple[int, int]:
        return self.prefill.load().kv_used_tokens, self.decode.load().kv_used_tokens

    async def until(self, condition: Callable[[], bool], within_s: float = PATIENCE_S) -> float:
        """Seconds it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(within_s):
            while not condition():
                await self.settle()
        return loop.time() - began

    async def all_free(self, within_s: float = 4.0) -> None:
        await self.until(lambda: self.kv_used == (0, 0), within_s)


async def _read(engine: Engine, request: EngineRequest) -> EngineOutput:
    """The last output."""
    async for output in engine.generate(request):
        last = output
    return last


class KvTransferContract:
    """Subclass as ``Test...`` beside an ``ends`` fixture."""

    async def test_both_ends_are_compatible_and_say_how_long_they_keep(self, ends: Ends) -> None:
        prefill, decode = ends.prefill.facts, ends.decode.facts
        assert prefill.kv_connector == decode.kv_connector is not None
        assert prefill.compatibility_key == decode.compatibility_key != ""
        assert prefill.kv_lease_s
        assert prefill.kv_lease_s > 1

    async def test_a_prefill_gives_one_token_and_the_way_to_its_kv(self, ends: Ends) -> None:
        prompt = ends.prompt(ends.lengths[0], 1)
        result = await answer(ends.prefill, prompt, ONE, prefill_only=True)
        assert len(result.token_ids) == 1
        assert result.last.finish_reason is FinishReason.LENGTH
        assert result.last.kv_transfer_params
        await ends.until(lambda: ends.prefill.load().kv_used_tokens >= len(prompt))
        assert ends.prefill.load().unfinished == 0
        assert await ends.decode.release_kv(json.loads(json.dumps(result.last.kv_transfer_params)))
        await ends.all_free()

    async def test_split_requests_say_what_whole_ones_do(self, ends: Ends) -> None:
        pulls = ends.decode.load().kv_pulls
        for number, length in enumerate(ends.lengths, start=10):
            prompt = ends.prompt(length, number)
            split = await ends.split(prompt)
            whole = await answer(ends.prefill, prompt, GREEDY_48)
            assert len(set(whole.token_ids)) >= 20
            assert split.token_ids == whole.token_ids
            assert not any(output.kv_pull_failed for output in split.outputs)
            assert all(output.kv_transfer_params is None for output in split.outputs)
        await ends.until(lambda: ends.decode.load().kv_pulls == pulls + len(ends.lengths))
        await ends.all_free()

    async def test_either_end_can_be_the_other(self, ends: Ends) -> None:
        prompt = ends.prompt(ends.lengths[0], 20)
        swapped = Ends(
            prefill=ends.decode, decode=ends.prefill, prompt=ends.prompt, lengths=ends.lengths, settle=ends.settle
        )
        assert (await swapped.split(prompt)).token_ids == (await answer(ends.decode, prompt, GREEDY_48)).token_ids
        await ends.all_free()

    async def test_sixteen_at_once_say_what_they_say_alone(self, ends: Ends) -> None:
        prompts = [ends.prompt(ends.lengths[0] + 17 * n, 30 + n) for n in range(16)]
        together = await asyncio.gather(*(ends.split(prompt) for prompt in prompts))
        alone = [(await answer(ends.decode, prompt, GREEDY_48)).token_ids for prompt in prompts]
        assert [result.token_ids for result in together] == alone
        await ends.all_free()

    async def test_the_decode_end_does_not_compute_the_prompt(self, ends: Ends) -> None:
        prompt = ends.prompt(ends.lengths[-1], 50)
        params = await ends.kept(prompt)
        ends.decode.take_iterations()
        await answer(ends.decode, prompt, GREEDY_48, kv_transfer_params=params)
        await ends.until(lambda: ends.decode.load().running == 0)
        assert sum(step.prefill_tokens for step in ends.decode.take_iterations()) < len(prompt) / 4
        await ends.all_free()

    async def test_what_the_prefill_end_had_cached_is_reported_by_both(self, ends: Ends) -> None:
        block = ends.prefill.facts.kv_block_size
        prompt = ends.prompt(3 * block + 1, 60)
        await answer(ends.prefill, prompt, ONE)
        result = await answer(ends.prefill, prompt, ONE, prefill_only=True)
        assert result.outputs[0].cached_prompt_tokens == 3 * block
        params = json.loads(json.dumps(result.last.kv_transfer_params))
        decoded = await answer(ends.decode, prompt, GREEDY_48, kv_transfer_params=params)
        assert decoded.outputs[0].cached_prompt_tokens == 3 * block
        await ends.all_free()

    async def test_sampling_and_stopping_are_the_decode_legs(self, ends: Ends) -> None:
        prompt = ends.prompt(ends.lengths[0], 70)
        whole = (await answer(ends.prefill, prompt, GREEDY_48)).token_ids
        stop = whole[20]
        sampling = Sampling(temperature=0.0, max_tokens=48, ignore_eos=True, stop_token_ids=(stop,), logprobs=2)
        result = await ends.split(prompt, sampling)
        assert result.token_ids == whole[: whole.index(stop) + 1]
        assert result.last.stop_token_id == stop
        assert sum(len(output.logprobs or ()) for output in result.outputs) == len(result.token_ids)
        await ends.all_free()

    # --- what nobody fetches ------------------------------------------------------------------------------------

    async def test_a_release_frees_at_once(self, ends: Ends) -> None:
        params = await ends.kept(ends.prompt(ends.lengths[-1], 80))
        assert await ends.decode.release_kv(params)
        await ends.all_free()

    async def test_the_end_of_the_lease_frees(self, ends: Ends) -> None:
        expired = ends.prefill.load().kv_leases_expired
        await ends.kept(ends.prompt(ends.lengths[0], 81))
        lease_s = ends.prefill.facts.kv_lease_s
        assert lease_s is not None
        took_s = await ends.until(lambda: ends.kv_used == (0, 0) and ends.prefill.load().kv_leases_expired > expired)
        assert took_s > lease_s - 1.0

    @pytest.mark.parametrize("after_s", [0.0, 0.002, 0.01, 0.05])
    async def test_a_decode_leg_that_leaves_frees_both_ends(self, ends: Ends, after_s: float) -> None:
        prompt = ends.prompt(ends.lengths[-1], 82 + int(after_s * 1000))
        params = await ends.kept(prompt)
        leg = asyncio.create_task(answer(ends.decode, prompt, GREEDY_48, kv_transfer_params=params))
        await asyncio.sleep(after_s)
        leg.cancel()
        await asyncio.gather(leg, return_exceptions=True)
        await ends.all_free()

    async def test_a_prefill_leg_that_leaves_keeps_nothing(self, ends: Ends) -> None:
        leg = ends.prefill.generate(request_of(ends.prompt(ends.lengths[-1], 90), ONE, prefill_only=True))
        first = asyncio.create_task(anext(leg))
        await ends.until(lambda: ends.prefill.load().unfinished > 0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await leg.aclose()
        await ends.all_free()

    async def test_a_prefill_leg_that_is_stopped_keeps_nothing_or_says_what(self, ends: Ends) -> None:
        """Whenever that is: while it waits, while it runs, when it is just over."""
        said = []
        for number in range(24):
            request = request_of(ends.prompt(ends.lengths[1], 400 + number), ONE, prefill_only=True)
            leg = asyncio.create_task(_read(ends.prefill, request))
            await asyncio.sleep(0.002 * number)
            await ends.prefill.stop(request.engine_request_id)
            last = await leg
            said.append(last.finish_reason)
            assert (last.finish_reason is FinishReason.LENGTH) == (last.kv_transfer_params is not None)
            if last.kv_transfer_params is not None:
                assert await ends.decode.release_kv(json.loads(json.dumps(last.kv_transfer_params)))
        assert set(said) <= {FinishReason.ABORTED, FinishReason.LENGTH}
        await ends.prefill.stop("nobody")
        await ends.all_free()

    # --- what makes no sense ------------------------------------------------------------------------------------

    async def test_another_prompts_kv_is_not_fetched(self, ends: Ends) -> None:
        params = await ends.kept(ends.prompt(ends.lengths[0], 91))
        with pytest.raises(EngineError, match="another prompt"):
            await answer(ends.decode, ends.prompt(ends.lengths[0], 92), ONE, kv_transfer_params=params)
        await ends.decode.release_kv(params)
        await ends.all_free()

    @pytest.mark.parametrize("change", [{"more": 1}, None])
    async def test_what_was_changed_on_its_way_harms_nobody(
        self, ends: Ends, change: Mapping[str, JsonValue] | None
    ) -> None:
        prompt = ends.prompt(ends.lengths[0], 93)
        kept = await ends.kept(prompt)
        params = {**kept, **change} if change else {}
        with pytest.raises(EngineError, match="handoff"):
            await answer(ends.decode, prompt, ONE, kv_transfer_params=params)
        with pytest.raises(EngineError, match="handoff"):
            await ends.decode.release_kv(params)
        assert (await answer(ends.decode, prompt, GREEDY_48)).token_ids
        await ends.decode.release_kv(kept)
        await ends.all_free()

    async def test_keeping_and_fetching_at_once_is_refused(self, ends: Ends) -> None:
        prompt = ends.prompt(ends.lengths[0], 94)
        with pytest.raises(InvalidRequestError):
            await answer(ends.decode, prompt, ONE, prefill_only=True, kv_transfer_params={"any": "thing"})
