"""kill -9 of the scheduler under load: the next one goes on with everything that executors hold."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from executor_svc.runtime.engine_port import Sampling
from sage.controlplane.v1 import inference_pb2
from sage_client import AsyncClient, RequestState
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.support.network_proxy import NetworkProxy
from tests.support.raw_reader import RawReader
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

NAMES = ("a", "b")
STREAMS = 12
TOKENS = 400


def reader(address: str, number: int) -> RawReader:
    request = inference_pb2.GenerateRequest(request_id=f"request-{number}")
    request.spec.text = f"Once upon a time, number {number},"
    request.spec.sampling.temperature = 0
    request.spec.sampling.max_tokens = TOKENS
    request.spec.sampling.ignore_eos = True
    return RawReader(address, request)


@pytest.mark.parametrize("end", ["kill", "terminate"])
async def test_streams_go_on_with_the_next_scheduler(
    logs: Path, simulated: list[str], tmp_path: Path, end: str
) -> None:
    flags = ["--state-dir", str(tmp_path / "state"), "--policy", "fifo"]
    async with FleetProcesses(logs, flags, listen=f"127.0.0.1:{free_port()}") as fleet:
        for name in NAMES:
            fleet.launch(name, simulated)
        await fleet.ready(*NAMES)
        readers = [reader(fleet.address, number) for number in range(STREAMS)]
        running = [asyncio.create_task(each.run()) for each in readers]
        await eventually(lambda: all(each.token_ids for each in readers), within_s=30, what="all to run")
        getattr(fleet.scheduler, end)()
        await fleet.scheduler.ended()
        fleet.scheduler.start()
        await asyncio.gather(*running)
        for each in readers:
            assert each.calls > 1, "the kill struck every stream"
            await _is_right(each)
        print("longest gaps", sorted(round(each.longest_gap_s, 2) for each in readers))


@pytest.mark.parametrize("sessions", [True, False], ids=["sessions", "generate"])
async def test_the_sdk_reads_on_by_itself(logs: Path, simulated: list[str], tmp_path: Path, sessions: bool) -> None:
    flags = ["--state-dir", str(tmp_path / "state")]
    async with (
        FleetProcesses(logs, flags, listen=f"127.0.0.1:{free_port()}") as fleet,
        fleet.client(use_sessions=sessions) as client,
    ):
        for name in NAMES:
            fleet.launch(name, simulated)
        await fleet.ready(*NAMES)
        prompts = [f"It was a dark night, number {number}," for number in range(STREAMS)]
        streams = [client.generate(each, max_tokens=TOKENS, ignore_eos=True, temperature=0) for each in prompts]
        results = [asyncio.create_task(each.result()) for each in streams]
        await asyncio.sleep(1.5)
        for end in (fleet.scheduler.kill, fleet.scheduler.terminate):
            end()
            await fleet.scheduler.ended()
            fleet.scheduler.start()
            await asyncio.sleep(2.0)
        sampling = Sampling(temperature=0, max_tokens=TOKENS, ignore_eos=True)
        for prompt, result in zip(prompts, await asyncio.gather(*results), strict=True):
            wanted = await answer(prompt, sampling)
            assert_tokens(list(result.token_ids), wanted.token_ids, prompt)
            assert result.text == wanted.text


async def _is_right(each: RawReader) -> None:
    sampling = Sampling(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    wanted = await answer(each.request.spec.text, sampling)
    assert_tokens(each.token_ids, wanted.token_ids, each.request.request_id)
    assert each.text == wanted.text
    assert each.finished is not None
    assert each.finished.attempts == 1


async def test_an_end_that_no_reader_has_yet_survives_the_scheduler(
    logs: Path, simulated: list[str], tmp_path: Path
) -> None:
    flags = ["--state-dir", str(tmp_path / "state")]
    async with (
        FleetProcesses(logs, flags, listen=f"127.0.0.1:{free_port()}") as fleet,
        fleet.client() as watcher,
        NetworkProxy(fleet.port) as link,
        AsyncClient(link.address) as client,
    ):
        fleet.launch("a", simulated)
        await fleet.ready("a")
        prompt = "Once upon a time, in one place,"
        stream = client.generate(prompt, request_id="r", max_tokens=TOKENS, ignore_eos=True, temperature=0)
        reading = asyncio.create_task(stream.result())
        await asyncio.sleep(1.0)
        link.blackhole()  # the end is sent, and never arrives

        async def ended() -> bool:
            return (await watcher.explain("r")).state is RequestState.FINISHED

        await eventually(ended, within_s=30, what="the request to end")
        await asyncio.sleep(0.5)  # what is acknowledged at once has been
        fleet.scheduler.kill()
        await fleet.scheduler.ended()
        await link.cut()
        fleet.scheduler.start()
        await link.heal()
        result = await reading
        wanted = await answer(prompt, Sampling(temperature=0, max_tokens=TOKENS, ignore_eos=True))
        assert_tokens(list(result.token_ids), wanted.token_ids, prompt)
        assert result.text == wanted.text
        assert result.attempts == 1, "it did not run again"


async def test_requests_that_waited_keep_their_place(logs: Path, simulated: list[str], tmp_path: Path) -> None:
    flags = ["--state-dir", str(tmp_path / "state"), "--policy", "fifo"]
    async with (
        FleetProcesses(logs, flags, listen=f"127.0.0.1:{free_port()}") as fleet,
        fleet.client() as sessions,
        fleet.client(use_sessions=False) as calls,
    ):
        fleet.launch("a", simulated)
        await fleet.ready("a")
        running = [reader(fleet.address, number) for number in range(12)]
        tasks = [asyncio.create_task(each.run()) for each in running]
        await asyncio.sleep(0.5)
        waiting: list[asyncio.Task[Any]] = []
        for number, client in enumerate((sessions, calls)):
            stream = client.generate(f"number {number}", request_id=f"waits-{number}", max_tokens=3)
            waiting.append(asyncio.create_task(stream.result()))
        raw = reader(fleet.address, 99)
        waiting.append(asyncio.create_task(raw.run()))
        await asyncio.sleep(0.5)
        fleet.scheduler.kill()
        await fleet.scheduler.ended()
        fleet.scheduler.start()
        await asyncio.gather(*tasks, *waiting)
        for request_id in ("waits-0", "waits-1", raw.request.request_id):
            story = await sessions.explain(request_id)
            assert any(entry.event == "returned" for entry in story.history), story.history
