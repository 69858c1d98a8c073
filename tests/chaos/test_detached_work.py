"""kill -9 of the scheduler, and of scheduler and executors at once, under detached work: one result each, unchanged."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from executor_svc.runtime.engine_port import Sampling
from sage_client import AsyncClient, AsyncDetachedRequest, Completion, RequestState
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.support.process_supervisor import ProcessSupervisor
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

NAMES = ("a", "b")
REQUESTS = 32
TOKENS = 250
WITHIN_S = 90.0


def prompt(number: int) -> str:
    return f"Long ago, number {number},"


def temperature(number: int) -> float:
    return float(number % 2)  # greedy and unseeded in turns


async def submit(client: AsyncClient) -> list[AsyncDetachedRequest]:
    return await asyncio.gather(
        *(
            client.submit(
                prompt(number),
                request_id=f"detached-{number}",
                max_tokens=TOKENS,
                ignore_eos=True,
                temperature=temperature(number),
                logprobs=int(number % 4 == 0),
                stop=["never seen"] if number % 4 == 1 else (),
            )
            for number in range(REQUESTS)
        )
    )


@pytest.mark.parametrize("victims", ["scheduler", "both", "twice"])
async def test_each_has_one_result(logs: Path, simulated: list[str], tmp_path: Path, victims: str) -> None:
    flags = ["--state-dir", str(tmp_path / "state"), "--policy", "fifo", "--recovery.limit-s=5"]
    async with (
        FleetProcesses(logs, flags, listen=f"127.0.0.1:{free_port()}") as fleet,
        fleet.client() as client,
    ):
        executors = [fleet.launch(name, [*simulated, "--engine.simulated.max-running=16"]) for name in NAMES]
        await fleet.ready(*NAMES)
        submitted = await submit(client)
        watched = [asyncio.create_task(each.result(timeout=WITHIN_S)) for each in submitted]  # from the start on

        async def all_run() -> bool:
            return len([each async for each in client.list(states=[RequestState.RUNNING])]) == REQUESTS

        await eventually(all_run, within_s=30, what="all to run", every_s=0.1)
        async with ProcessSupervisor([fleet.scheduler, *executors]):
            for _ in range(2 if victims == "twice" else 1):
                fleet.scheduler.kill()
                if victims != "scheduler":
                    for executor in executors:
                        executor.kill()
                await asyncio.sleep(2.5)
            seen = await asyncio.gather(*watched)
            again = await asyncio.gather(*(each.result(timeout=WITHIN_S) for each in submitted))
            await _are_right(client, seen, again)


async def _are_right(client: AsyncClient, seen: list[Completion], again: list[Completion]) -> None:
    for number, (first, second) in enumerate(zip(seen, again, strict=True)):
        kept = await client.get(f"detached-{number}")
        assert kept.request.state is RequestState.FINISHED
        assert kept.result is not None
        who = f"detached-{number}"
        assert_tokens(first.token_ids, kept.result.token_ids, f"{who}, as its reader saw it")
        assert_tokens(second.token_ids, kept.result.token_ids, f"{who}, read again")
        assert first.text == second.text == kept.result.text
        assert len(kept.result.token_ids) == TOKENS
        if number % 4 == 0:
            assert len(first.logprobs) == len(second.logprobs) == len(kept.result.logprobs) == TOKENS
            assert first.logprobs == second.logprobs == kept.result.logprobs
        if not temperature(number):
            wanted = await answer(prompt(number), Sampling(temperature=0, max_tokens=TOKENS, ignore_eos=True))
            assert_tokens(first.token_ids, wanted.token_ids, who)
            assert first.text == wanted.text
    listed = [each async for each in client.list(page_size=10)]
    assert sorted(each.request_id for each in listed) == sorted(f"detached-{n}" for n in range(REQUESTS))
    assert {each.state for each in listed} == {RequestState.FINISHED}
