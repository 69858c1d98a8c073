"""What happens to a prompt's KV between two simulated engines, in virtual time."""

from __future__ import annotations

import asyncio
import json

import pytest

from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.engine.simulated.settings import FaultSettings
from executor_svc.runtime.engine_port import EngineError, FinishReason, InvalidRequestError
from tests.unit.engine.simulated.simulation import simulation, tokens
from tests.unit.engine.simulated.transfer import KEPT_TOKENS, LONG_PROMPT, Pair, pair

TIMED = {"handshake_s": 2.0, "pull_base_s": 0.1, "bytes_per_token": 1000, "bandwidth_bytes_per_s": 100_000.0}
LAST_TOKEN_S = 0.005 + 1 / 20_000  # the step that computes the prompt's last token


async def whole(prompt: list[int], count: int) -> list[int]:
    """What one engine alone says."""
    async with simulation() as sim:
        stream = sim.start(tokens(count), prompt)
        await sim.finish(stream)
        return stream.token_ids


async def has_fetched(pair: Pair) -> None:
    """Get the first contact over with."""
    params = await pair.prefilled([9] * 20)
    await pair.decode.finish(pair.decode.start(tokens(1), [9] * 20, kv_transfer_params=params))


# --- what is handed over --------------------------------------------------------------------------------------


async def test_the_decode_end_says_what_one_engine_alone_would() -> None:
    async with pair() as ends:
        params = await ends.prefilled()
        stream = ends.decode.start(tokens(40), LONG_PROMPT, kv_transfer_params=params)
        await ends.decode.finish(stream)
        assert stream.token_ids == await whole(LONG_PROMPT, 40)
        assert ends.decode.engine.load().kv_pulls == 1
        assert not stream.outputs[0].kv_pull_failed


async def test_the_parameters_survive_being_json() -> None:
    async with pair() as ends:
        params = json.loads(json.dumps(await ends.prefilled()))
        stream = ends.decode.start(tokens(5), LONG_PROMPT, kv_transfer_params=params)
        await ends.decode.finish(stream)
        assert len(stream.token_ids) == 5


async def test_a_prefill_ends_with_one_token_and_the_parameters() -> None:
    async with pair() as ends:
        stream = ends.prefill.start(tokens(1), LONG_PROMPT, prefill_only=True)
        await ends.prefill.finish(stream)
        assert len(stream.token_ids) == 1
        assert stream.outputs[-1].finish_reason is FinishReason.LENGTH


async def test_the_decode_end_computes_only_the_last_token_of_the_prompt() -> None:
    async with pair() as ends:
        params = await ends.prefilled()
        await ends.decode.finish(ends.decode.start(tokens(3), LONG_PROMPT, kv_transfer_params=params))
        steps = ends.decode.engine.take_iterations()
        assert sum(step.prefill_tokens for step in steps) == 1
        assert len(steps) == 3


async def test_what_was_fetched_is_in_the_prefix_cache() -> None:
    async with pair() as ends:
        params = await ends.prefilled()
        await ends.decode.finish(ends.decode.start(tokens(3), LONG_PROMPT, kv_transfer_params=params))
        again = ends.decode.start(tokens(3), LONG_PROMPT)
        await ends.decode.finish(again)
        assert again.outputs[0].cached_prompt_tokens == 96


async def test_what_the_decode_end_has_cached_is_not_fetched_again() -> None:
    async with pair(transfer=TIMED) as ends:
        await has_fetched(ends)
        await ends.decode.finish(ends.decode.start(tokens(1), LONG_PROMPT))
        params = await ends.prefilled()
        began = ends.clock.now()
        stream = ends.decode.start(tokens(1), LONG_PROMPT, kv_transfer_params=params)
        await ends.decode.finish(stream)
        assert stream.times[0] - began == pytest.approx(0.1 + 4 * 0.01 + LAST_TOKEN_S)
        assert ends.kv_used == (0, 0)


# --- time -----------------------------------------------------------------------------------------------------


async def test_the_first_fetch_pays_for_meeting_and_every_one_by_the_token() -> None:
    async with pair(transfer=TIMED) as ends:
        waits = []
        for prompt in (LONG_PROMPT, LONG_PROMPT[::-1], [7] * 30):
            params = await ends.prefilled(prompt)
            began = ends.clock.now()
            stream = ends.decode.start(tokens(1), prompt, kv_transfer_params=params)
            await ends.decode.finish(stream)
            waits.append(stream.times[0] - began - LAST_TOKEN_S)
        assert waits == pytest.approx([2.0 + 0.1 + 1.0, 0.1 + 1.0, 0.1 + 0.3])


async def test_fetches_of_one_engine_meet_the_other_once() -> None:
    async with pair(transfer=TIMED) as ends:
        prompts = [[300 + n] * 100 for n in range(3)]
        params = [await ends.prefilled(prompt) for prompt in prompts]
        began = ends.clock.now()
        streams = [
            ends.decode.start(tokens(1), prompt, kv_transfer_params=one)
            for prompt, one in zip(prompts, params, strict=True)
        ]
        await ends.decode.finish(*streams)
        assert max(stream.times[0] for stream in streams) - began == pytest.approx(3.1 + 0.005, abs=0.01)


async def test_others_decode_while_a_prompt_is_fetched() -> None:
    async with pair(transfer=TIMED) as ends:
        params = await ends.prefilled()
        talker = ends.decode.start(tokens(100), [5] * 4)
        stream = ends.decode.start(tokens(1), LONG_PROMPT, kv_transfer_params=params)
        await ends.decode.finish(talker)
        assert stream.outputs == []
        await ends.decode.finish(stream)


async def test_waiting_for_nothing_but_kv_is_a_known_wait_and_no_progress() -> None:
    async with pair(transfer=TIMED) as ends:
        params = await ends.prefilled()
        stream = ends.decode.start(tokens(1), LONG_PROMPT, kv_transfer_params=params)
        await ends.clock.advance(1.0)
        load = ends.decode.engine.load()
        assert load.known_wait == "a KV transfer"
        assert (load.running, load.waiting, load.unfinished, load.iterations) == (0, 1, 1, 0)
        assert load.kv_used_tokens == KEPT_TOKENS
        await ends.decode.finish(stream)
        assert ends.decode.engine.load().known_wait is None


async def test_a_slow_transfer_takes_so_many_times_as_long() -> None:
    async with pair(transfer=TIMED) as ends:
        await has_fetched(ends)
        ends.decode.engine.inject(Fault(kind=FaultKind.KV_SLOW, factor=3.0))
        params = await ends.prefilled()
        began = ends.clock.now()
        stream = ends.decode.start(tokens(1), LONG_PROMPT, kv_transfer_params=params)
        await ends.decode.finish(stream)
        assert stream.times[0] - began == pytest.approx(3 * 1.1 + LAST_TOKEN_S)


# --- blocks ---------------------------------------------------------------------------------------------------


async def test_blocks_are_kept_until_they_were_fetched() -> None:
    async with pair(transfer=TIMED) as ends:
        params = await ends.prefilled()
        assert ends.prefill.engine.load().unfinished == 0
        assert ends.kv_used == (KEPT_TOKENS, 0)
        stream = ends.decode.start(tokens(1), LONG_PROMPT, kv_transfer_params=params)
        await ends.clock.advance(3.0)
        assert ends.kv_used == (KEPT_TOKENS, KEPT_TOKENS)
        await ends.decode.finish(stream)
        assert ends.kv_used == (0, 0)


async def test_blocks_nobody_fetches_are_free_when_their_lease_ends() -> None:
    async with pair(transfer={"lease_s": 10.0}) as ends:
        await ends.prefilled()
        await ends.clock.advance(9.9)
        assert ends.kv_used == (KEPT_TOKENS, 0)
        await ends.clock.advance(0.2)
        assert ends.kv_used == (0, 0)
        assert ends.prefill.engine.load().kv_leases_expired == 1


async def test_blocks_given_up_are_free_at_once() -> None:
    async with pair() as ends:
        params = await ends.prefilled()
        assert await ends.clock.run(ends.decode.engine.release_kv(params))
        assert ends.kv_used == (0, 0)
        assert not await ends.clock.run(ends.decode.engine.release_kv(params))


async def test_kept_blocks_make_others_wait_until_they_are_free() -> None:
    small = {"kv_capacity_tokens": 128, "max_model_len": 128}
    async with pair(transfer={"lease_s": 10.0}, prefill=small) as ends:
        await ends.prefilled()
        late = ends.prefill.start(tokens(1), [7] * 100)
        await ends.clock.advance(9.0)
        assert late.outputs == []
        await ends.prefill.finish(late)
        assert late.times[0] == pytest.approx(10.0, abs=0.1)


async def test_a_hung_engine_frees_what_was_fetched_when_it_goes_on() -> None:
    async with pair() as ends:
        params = await ends.prefilled()
        ends.prefill.engine.inject(Fault(kind=FaultKind.HANG))
        stream = ends.decode.start(tokens(3), LONG_PROMPT, kv_transfer_params=params)
        await ends.decode.finish(stream)
        assert len(stream.token_ids) == 3
        assert ends.kv_used == (KEPT_TOKENS, 0)
        ends.prefill.engine.clear_faults()
        assert ends.kv_used == (0, 0)


@pytest.mark.parametrize("after_s", [0.0, 1.0, 2.05, 2.5])
async def test_a_reader_that_leaves_before_its_first_token_frees_both_ends(after_s: float) -> None:
    async with pair(transfer=TIMED) as ends:
        params = await ends.prefilled()
        stream = ends.decode.start(tokens(5), LONG_PROMPT, kv_transfer_params=params)
        await ends.clock.advance(after_s)
        assert stream.task is not None
        stream.task.cancel()
        await ends.clock.advance(3.0)  # it may have to meet the other first
        assert ends.kv_used == (0, 0)
        assert ends.prefill.engine.load().kv_leases_expired == 0


async def test_room_that_a_reader_leaves_while_its_kv_is_fetched_goes_to_who_waits_for_it() -> None:
    async with pair(transfer=TIMED, decode={"kv_capacity_tokens": 128, "max_model_len": 128}) as ends:
        params = await ends.prefilled()
        fetching = ends.decode.start(tokens(5), LONG_PROMPT, kv_transfer_params=params)
        await ends.clock.advance(1.0)
        waiting = ends.decode.start(tokens(1), [7] * 100)
        await ends.clock.advance(0.5)
        assert waiting.outputs == []
        assert fetching.task is not None
        fetching.task.cancel()
        await ends.clock.advance(0.1)
        assert waiting.finished


async def test_a_prefill_that_is_aborted_leaves_nothing_behind() -> None:
    async with pair(prefill={"prefill_tokens_per_s": 10.0}) as ends:
        stream = ends.prefill.start(tokens(1), LONG_PROMPT, prefill_only=True)
        await ends.clock.advance(1.0)
        assert stream.task is not None
        stream.task.cancel()
        await ends.clock.settle()
        assert ends.kv_used == (0, 0)


async def test_the_lease_is_kept_alive_while_the_request_waits_for_room() -> None:
    small = {"kv_capacity_tokens": 128, "max_model_len": 128, "step_base_s": 1.0}
    async with pair(transfer={"lease_s": 6.0}, decode=small) as ends:
        params = await ends.prefilled()
        talker = ends.decode.start(tokens(60), [5] * 60)
        await ends.clock.advance(2.0)
        stream = ends.decode.start(tokens(3), LONG_PROMPT, kv_transfer_params=params)
        await ends.decode.finish(talker, stream)
        assert stream.times[0] > 50.0
        assert stream.token_ids == await whole(LONG_PROMPT, 3)
        assert ends.prefill.engine.load().kv_leases_expired == 0


async def test_random_departures_leak_no_block() -> None:
    async with pair(transfer=TIMED, decode={"max_running": 3}) as ends:
        streams = []
        for number in range(40):
            prompt = [300 + number] * (20 + number)
            params = await ends.prefilled(prompt)
            stream = ends.decode.start(tokens(4), prompt, kv_transfer_params=params)
            await ends.clock.advance(number * 0.037 % 0.5)
            if number % 3:
                assert stream.task is not None
                stream.task.cancel()
            else:
                streams.append(stream)
        await ends.decode.finish(*streams)
        await ends.clock.advance(1.0)
        assert all(len(stream.token_ids) == 4 for stream in streams)
        assert ends.kv_used == (0, 0)


# --- failures -------------------------------------------------------------------------------------------------


async def test_kv_that_cannot_be_fetched_is_computed_and_said_to_be() -> None:
    async with pair() as ends:
        params = await ends.prefilled()
        ends.decode.engine.inject(Fault(kind=FaultKind.KV_CONNECT))
        stream = ends.decode.start(tokens(20), LONG_PROMPT, kv_transfer_params=params)
        await ends.decode.finish(stream)
        assert stream.token_ids == await whole(LONG_PROMPT, 20)
        assert [output.kv_pull_failed for output in stream.outputs] == [True] + [False] * 19
        assert ends.decode.engine.load().kv_pulls_failed == 1
        again = ends.decode.start(tokens(1), LONG_PROMPT, kv_transfer_params=await ends.prefilled())
        await ends.decode.finish(again)
        assert not again.outputs[0].kv_pull_failed


async def test_kv_that_cannot_be_fetched_fails_the_request_where_that_is_the_policy() -> None:
    async with pair(transfer={"load_failure_policy": "fail"}) as ends:
        params = await ends.prefilled()
        ends.decode.engine.inject(Fault(kind=FaultKind.KV_CONNECT))
        stream = ends.decode.start(tokens(20), LONG_PROMPT, kv_transfer_params=params)
        await ends.clock.settle()
        assert isinstance(stream.error, EngineError)
        assert ends.kv_used == (KEPT_TOKENS, 0)


@pytest.mark.parametrize("after_s", [0.0, 1.0, 2.5])
async def test_a_prefill_engine_that_dies_costs_no_token(after_s: float) -> None:
    """Before they meet, while they meet, and in the middle of the transfer."""
    async with pair(transfer=TIMED) as ends:
        params = await ends.prefilled()
        if not after_s:
            ends.prefill.engine.inject(Fault(kind=FaultKind.DIE))
        stream = ends.decode.start(tokens(20), LONG_PROMPT, kv_transfer_params=params)
        await ends.clock.advance(after_s)
        ends.prefill.engine.inject(Fault(kind=FaultKind.DIE))
        while not stream.outputs:
            await ends.clock.step()
        assert ends.decode.engine.load().kv_used_tokens == KEPT_TOKENS
        await ends.decode.finish(stream)
        assert stream.token_ids == await whole(LONG_PROMPT, 20)
        assert stream.outputs[0].kv_pull_failed
        assert ends.decode.engine.load().kv_used_tokens == 0


async def test_a_prefill_engine_that_dies_after_the_transfer_is_not_missed() -> None:
    async with pair() as ends:
        params = await ends.prefilled()
        stream = ends.decode.start(tokens(20), LONG_PROMPT, kv_transfer_params=params)
        while not stream.outputs:
            await ends.clock.step()
        ends.prefill.engine.inject(Fault(kind=FaultKind.DIE))
        await ends.decode.finish(stream)
        assert stream.token_ids == await whole(LONG_PROMPT, 20)
        assert not stream.outputs[0].kv_pull_failed


async def test_giving_up_what_a_dead_engine_keeps_says_no() -> None:
    async with pair() as ends:
        params = await ends.prefilled()
        ends.prefill.engine.inject(Fault(kind=FaultKind.DIE))
        assert not await ends.clock.run(ends.decode.engine.release_kv(params))


async def test_corrupt_kv_shows_in_the_tokens_and_nowhere_else() -> None:
    async with pair(decode={"fault": FaultSettings(kind="kv_corrupt")}) as ends:
        params = await ends.prefilled()
        stream = ends.decode.start(tokens(20), LONG_PROMPT, kv_transfer_params=params)
        await ends.decode.finish(stream)
        assert stream.token_ids != await whole(LONG_PROMPT, 20)
        assert stream.error is None
        clean = ends.decode.start(tokens(20), LONG_PROMPT)
        await ends.decode.finish(clean)
        assert clean.token_ids == await whole(LONG_PROMPT, 20)


async def test_kv_fetched_after_its_lease_is_not_the_prompts() -> None:
    """As with NIXL: nothing but the tokens shows it.  That is why a late decode leg is refused beforehand."""
    async with pair(transfer={"lease_s": 10.0}) as ends:
        params = await ends.prefilled()
        await ends.clock.advance(11.0)
        stream = ends.decode.start(tokens(20), LONG_PROMPT, kv_transfer_params=params)
        await ends.decode.finish(stream)
        assert stream.token_ids != await whole(LONG_PROMPT, 20)


async def test_a_lease_that_ends_in_the_middle_of_the_transfer_spoils_it() -> None:
    async with pair(
        transfer={**TIMED, "lease_s": 10.0}, decode={"fault": FaultSettings(kind="kv_slow", factor=10)}
    ) as e:
        params = await e.prefilled()
        stream = e.decode.start(tokens(20), LONG_PROMPT, kv_transfer_params=params)
        await e.decode.finish(stream)
        assert stream.token_ids != await whole(LONG_PROMPT, 20)


async def test_engines_that_are_laid_out_differently_do_not_hand_over() -> None:
    async with pair(decode_transfer={"bytes_per_token": 8}) as ends:
        assert ends.prefill.engine.facts.compatibility_key != ends.decode.engine.facts.compatibility_key
        params = await ends.prefilled()
        stream = ends.decode.start(tokens(20), LONG_PROMPT, kv_transfer_params=params)
        await ends.decode.finish(stream)
        assert stream.outputs[0].kv_pull_failed
        assert stream.token_ids == await whole(LONG_PROMPT, 20)


async def test_another_prompts_parameters_are_noticed() -> None:
    async with pair() as ends:
        params = await ends.prefilled()
        stream = ends.decode.start(tokens(1), [7] * 100, kv_transfer_params=params)
        await ends.decode.finish(stream)
        assert isinstance(stream.error, EngineError)
        assert "another prompt" in str(stream.error)
        assert ends.decode.engine.load().unfinished == 0


async def test_altered_parameters_are_noticed() -> None:
    async with pair() as ends:
        params = {**await ends.prefilled(), "host": "elsewhere"}
        stream = ends.decode.start(tokens(1), LONG_PROMPT, kv_transfer_params=params)
        await ends.decode.finish(stream)
        assert isinstance(stream.error, EngineError)
        with pytest.raises(EngineError, match="handoff was changed"):
            await ends.decode.engine.release_kv(params)


# --- engines without a connector ------------------------------------------------------------------------------


async def test_an_engine_without_a_connector_takes_no_part() -> None:
    async with simulation() as sim:
        facts = sim.engine.facts
        assert (facts.kv_connector, facts.compatibility_key, facts.kv_lease_s) == (None, "", None)
        for more in ({"prefill_only": True}, {"kv_transfer_params": {"any": "thing"}}):
            stream = sim.start(tokens(1), **more)
            await sim.finish(stream)
            assert isinstance(stream.error, InvalidRequestError)
        with pytest.raises(EngineError, match="no KV connector"):
            await sim.engine.release_kv({})


async def test_a_stopped_engine_leaves_no_task() -> None:
    async with pair(transfer=TIMED) as ends:
        params = await ends.prefilled()
        ends.decode.start(tokens(1), LONG_PROMPT, kv_transfer_params=params)
        await ends.clock.advance(0.5)
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("kv-")] == []
