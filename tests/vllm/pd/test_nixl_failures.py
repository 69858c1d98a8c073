"""What goes wrong between two real engines, and what it costs."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

import psutil
import pytest
import pytest_asyncio

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.handoff_seal import opened, sealed
from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.runtime.engine_port import JsonValue
from tests.contract.engine.contract import GREEDY_48, answer
from tests.contract.engine.kv_transfer_contract import Ends
from tests.vllm.pd.conftest import started

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]


def altered(kept: Mapping[str, JsonValue], prompt: list[int], **change: JsonValue) -> Mapping[str, JsonValue]:
    """A handoff with a right seal around wrong parameters."""
    return sealed({**opened(kept, None), **change}, prompt, None)


async def test_kv_of_another_prompt_shows_in_the_tokens(ends: Ends) -> None:
    """What the seal is there to prevent; and the model is varied enough for a test to notice."""
    prompt, other = ends.prompt(500, 200), ends.prompt(500, 201)
    mistaken = altered(await ends.kept(other), prompt)
    fetched = await answer(ends.decode, prompt, GREEDY_48, kv_transfer_params=mistaken)
    whole = await answer(ends.prefill, prompt, GREEDY_48)
    assert not fetched.outputs[0].kv_pull_failed
    assert fetched.token_ids != whole.token_ids
    await ends.all_free()


async def test_one_block_too_often_shows_in_the_tokens(ends: Ends) -> None:
    prompt = ends.prompt(500, 202)
    kept = await ends.kept(prompt)
    blocks = kept["remote_block_ids"]
    assert isinstance(blocks, list)
    doubled = altered(kept, prompt, remote_block_ids=[[blocks[0][0], blocks[0][0], *blocks[0][2:]]])  # type: ignore[index,misc]
    fetched = await answer(ends.decode, prompt, GREEDY_48, kv_transfer_params=doubled)
    assert fetched.token_ids != (await answer(ends.prefill, prompt, GREEDY_48)).token_ids
    await ends.all_free()


async def test_a_peer_that_cannot_be_reached_costs_time_and_no_token(ends: Ends) -> None:
    prompt = ends.prompt(700, 203)
    kept = await ends.kept(prompt)
    failed = ends.decode.load().kv_pulls_failed
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        lost = altered(kept, prompt, remote_engine_id="nobody", remote_port=nobody.getsockname()[1])
        fetched = await answer(ends.decode, prompt, GREEDY_48, kv_transfer_params=lost)
    assert fetched.token_ids == (await answer(ends.prefill, prompt, GREEDY_48)).token_ids
    assert fetched.outputs[0].kv_pull_failed
    assert not any(output.kv_pull_failed for output in fetched.outputs[1:])
    assert ends.decode.load().kv_pulls_failed > failed
    await ends.decode.release_kv(kept)
    await ends.all_free()


async def test_the_others_run_on_while_a_peer_cannot_be_reached(ends: Ends) -> None:
    prompt, beside = ends.prompt(300, 204), ends.prompt(300, 205)
    lost = altered(await ends.kept(prompt), prompt, remote_engine_id="nobody either", remote_port=1)
    leg = asyncio.create_task(answer(ends.decode, prompt, GREEDY_48, kv_transfer_params=lost))
    talk = await answer(ends.decode, beside, GREEDY_48)
    assert not leg.done()
    assert talk.token_ids == (await answer(ends.prefill, beside, GREEDY_48)).token_ids
    assert (await leg).outputs[0].kv_pull_failed


# --- an engine of the test's own ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Doomed:
    """A prefill end that the decode end has never met."""

    ends: Ends
    core_pid: int

    def kill(self) -> None:
        """The engine core and its workers: KV is in a worker's memory."""
        core = psutil.Process(self.core_pid)
        processes = [core, *core.children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=10)


@pytest_asyncio.fixture(loop_scope="session")
async def doomed(model: ModelSettings, ends: Ends) -> AsyncIterator[Doomed]:
    before = set(multiprocessing.active_children())
    engine: VllmEngine = await started(model, 0)
    (core,) = (child for child in multiprocessing.active_children() if child not in before)
    yield Doomed(ends=replace(ends, prefill=engine), core_pid=core.pid or 0)
    await engine.shutdown()


async def test_an_engine_never_met_is_told_and_one_that_is_killed_is_not(doomed: Doomed) -> None:
    ends = doomed.ends
    prompts = [ends.prompt(3000, 210), ends.prompt(3000, 211)]
    right = [(await answer(ends.decode, prompt, GREEDY_48)).token_ids for prompt in prompts]

    assert await ends.decode.release_kv(await ends.kept(ends.prompt(1000, 212)))  # they meet for this
    await ends.all_free()
    assert (await ends.split(ends.prompt(1000, 213))).token_ids

    kept, given_up = [await ends.kept(prompt) for prompt in prompts], await ends.kept(ends.prompt(1000, 214))
    await asyncio.to_thread(doomed.kill)
    for prompt, params, tokens in zip(prompts, kept, right, strict=True):
        fetched = await answer(ends.decode, prompt, GREEDY_48, kv_transfer_params=params)
        assert fetched.token_ids == tokens
        assert fetched.outputs[0].kv_pull_failed
    assert not await ends.decode.release_kv(given_up)
    await ends.until(lambda: ends.decode.load().kv_used_tokens == 0, 4.0)
