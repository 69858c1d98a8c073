"""The simulated engines' side channel: the same over TCP and inside one process; and between two processes."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.engine import SimulatedEngine
from executor_svc.engine.simulated.settings import SimulatedKvTransferSettings, SimulatedSettings
from executor_svc.engine.simulated.side_channel import (
    MemorySideChannel,
    Message,
    PeerUnreachable,
    SideChannel,
    TcpSideChannel,
)
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.runtime.engine_port import EngineError, EngineRequest, Sampling
from tests.support.eventually import eventually

HOST = "127.0.0.1"
PROMPT = [300 + n for n in range(100)]
TRANSFER = SimulatedKvTransferSettings(connector="NixlConnector", handshake_s=0.0, pull_base_s=0.0)
MODEL, SETTINGS = ModelSettings(model="sim"), SimulatedSettings(kv_transfer=TRANSFER, step_base_s=0.0)
PREFILL_HOST = """
import asyncio, json
from tests.unit.engine.simulated.test_side_channel import MODEL, PROMPT, SETTINGS, handed_over, started

async def main():
    engine = await started()
    for _ in range(2):
        print(json.dumps(await handed_over(engine)), flush=True)
    while engine.load().kv_used_tokens > 112:
        await asyncio.sleep(0.01)
    print("one is free", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def echo(message: Message) -> Message:
    return {"heard": message}


@pytest.fixture(params=[MemorySideChannel, TcpSideChannel])
def channel(request: pytest.FixtureRequest) -> SideChannel:
    made: SideChannel = request.param()
    return made


async def test_a_message_gets_its_answer(channel: SideChannel) -> None:
    listener = await channel.listen(HOST, 0, echo)
    answers = await asyncio.gather(*(channel.ask(HOST, listener.port, {"n": n}) for n in range(20)))
    assert answers == [{"heard": {"n": n}} for n in range(20)]
    listener.close()


async def test_nobody_answers_once_it_is_closed(channel: SideChannel) -> None:
    listener = await channel.listen(HOST, 0, echo)
    listener.close()
    listener.close()
    with pytest.raises(PeerUnreachable):
        await channel.ask(HOST, listener.port, {})


async def test_a_port_can_be_chosen(channel: SideChannel) -> None:
    free = await channel.listen(HOST, 0, echo)
    free.close()
    listener = await channel.listen(HOST, free.port, echo)
    assert listener.port == free.port
    listener.close()


async def test_a_port_that_is_taken_is_an_error_that_names_it() -> None:
    listener = await TcpSideChannel().listen(HOST, 0, echo)
    with pytest.raises(EngineError, match=str(listener.port)):
        await TcpSideChannel().listen(HOST, listener.port, echo)
    listener.close()


async def test_a_peer_that_talks_nonsense_counts_as_unreachable() -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"[]\n")
        writer.close()

    server = await asyncio.start_server(nonsense, HOST, 0)
    with pytest.raises(PeerUnreachable):
        await TcpSideChannel().ask(HOST, server.sockets[0].getsockname()[1], {})
    server.close()


# --- two processes --------------------------------------------------------------------------------------------


async def started() -> SimulatedEngine:
    return await SimulatedEngineFactory(MODEL, SETTINGS).start(lambda state, fraction, message: None)


async def generated(engine: SimulatedEngine, name: str, **more: object) -> list[int]:
    sampling = Sampling(temperature=0.0, max_tokens=20, ignore_eos=True)
    request = EngineRequest(engine_request_id=name, prompt_token_ids=PROMPT, sampling=sampling, **more)  # type: ignore[arg-type]
    return [token async for output in engine.generate(request) for token in output.token_ids]


async def handed_over(engine: SimulatedEngine) -> object:
    sampling = Sampling(temperature=0.0, max_tokens=1, ignore_eos=True)
    request = EngineRequest(engine_request_id="1", prompt_token_ids=PROMPT, sampling=sampling, prefill_only=True)
    return [output.kv_transfer_params async for output in engine.generate(request)][-1]


@pytest.fixture
async def prefill_host() -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PREFILL_HOST, stdout=PIPE)
    yield process
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def line_of(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode()


async def test_engines_of_two_processes_hand_over_until_one_is_killed(prefill_host: Process) -> None:
    engine = await started()
    fetched, lost = [json.loads(await line_of(prefill_host)) for _ in range(2)]
    right = await generated(engine, "alone")
    assert await generated(engine, "fetched", kv_transfer_params=fetched) == right
    assert (engine.load().kv_pulls, engine.load().kv_pulls_failed) == (1, 0)
    assert await line_of(prefill_host) == "one is free\n"
    prefill_host.kill()
    await prefill_host.wait()
    assert await generated(engine, "lost", kv_transfer_params=lost) == right
    assert (engine.load().kv_pulls, engine.load().kv_pulls_failed) == (1, 1)
    await eventually(lambda: engine.load().kv_used_tokens == 0)
    await engine.shutdown()
