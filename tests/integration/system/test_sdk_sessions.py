"""The SDK's sessions with a real scheduler: every token exact over breaks, slow readers, and a scheduler's end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

import sage_client as sage
from executor_svc.runtime.engine_port import Sampling
from sage_client import AsyncClient, Reconnect
from scheduler_svc.transport.client_sessions import client_session
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.integration.system.test_ending_early import LONG, assert_let_go
from tests.support.eventually import eventually
from tests.support.network_proxy import NetworkProxy
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

QUICK = Reconnect(attempts=10, first_delay_s=0.02, max_delay_s=0.2)


class Output:
    """A sink that keeps the output."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.text = ""
        self.end: asyncio.Future[sage.Finished] = asyncio.get_running_loop().create_future()

    def accepted(self, event: sage.Accepted, /) -> None: ...

    def scheduled(self, event: sage.Scheduled, /) -> None: ...

    def tokens(
        self,
        choice: int,
        first_index: int,
        token_ids: list[int],
        text_offset: int,
        text: str,
        logprobs: Sequence[tuple[sage.TokenLogprob, ...]],
        /,
    ) -> None:
        assert (first_index, text_offset) == (len(self.token_ids), len(self.text))
        self.token_ids += token_ids
        self.text += text

    def prompt_read(self, event: sage.PromptRead, /) -> None: ...

    def choice_finished(self, event: sage.ChoiceFinished, /) -> None: ...

    def finished(self, event: sage.Finished, /) -> None:
        self.end.set_result(event)

    def failed(self, error: sage.SageError, /) -> None:
        self.end.set_exception(error)


async def check(output: Output, text: str, max_tokens: int) -> None:
    finished = await asyncio.wait_for(output.end, 20)
    wanted = await answer(text, Sampling(temperature=0, max_tokens=max_tokens))
    assert_tokens(output.token_ids, wanted.token_ids)
    assert output.text == wanted.text
    assert finished.usage.completion_tokens == len(wanted.token_ids)


async def test_many_requests_are_exact_over_broken_connections() -> None:
    async with LocalFleet() as fleet, NetworkProxy(fleet.scheduler.port) as proxy:
        await fleet.add("one", max_running=32)
        client = fleet.new_client(address=proxy.address, reconnect=QUICK)
        texts = [f"Story {number}" for number in range(24)]
        outputs = [Output() for _ in texts]
        for number, (text, output) in enumerate(zip(texts, outputs, strict=True)):
            client.start(text, sink=output, temperature=0, max_tokens=60 + number)
        for wanted in (5, 20, 40):
            await eventually(lambda: max(len(each.token_ids) for each in outputs) >= wanted)  # noqa: B023
            await proxy.cut()
        for number, (text, output) in enumerate(zip(texts, outputs, strict=True)):
            await check(output, text, 60 + number)

    assert proxy.connections >= 2


@pytest.mark.parametrize("pause_limit_s", [30.0, 0.05])
async def test_a_slow_reader_gets_everything_and_a_fast_one_beside_it_too(
    fleet: LocalFleet, one: LocalExecutor, monkeypatch: pytest.MonkeyPatch, pause_limit_s: float
) -> None:
    """With the short limit the scheduler gives up the slow one's handle, which is attached to again."""
    monkeypatch.setattr(client_session, "PAUSE_LIMIT_S", pause_limit_s)
    client = fleet.new_client(buffer_bytes=2000)
    slow = client.generate("Once", temperature=0, max_tokens=400)
    fast = Output()
    client.start("Twice", sink=fast, temperature=0, max_tokens=100)
    await check(fast, "Twice", 100)
    await eventually(lambda: slow._call.paused)
    await eventually(lambda: not len(fleet.scheduler.control.requests))
    await asyncio.sleep(2 * pause_limit_s if pause_limit_s < 1 else 0)
    result = await slow.result()

    wanted = await answer("Once", Sampling(temperature=0, max_tokens=400))
    assert_tokens(result.token_ids, wanted.token_ids)
    assert result.text == wanted.text


async def test_log_probabilities_travel_on_a_session(client: AsyncClient) -> None:
    result = await client.generate("Once", temperature=0, max_tokens=20, logprobs=2).result()

    assert len(result.logprobs) == len(result.token_ids) == 20
    assert all(entry[0].token_id == token for entry, token in zip(result.logprobs, result.token_ids, strict=True))


async def test_leaving_a_sinks_request_frees_its_kv(fleet: LocalFleet, one: LocalExecutor) -> None:
    output = Output()
    call = fleet.client.start("Once", sink=output, max_tokens=LONG)
    await eventually(lambda: bool(output.token_ids))
    call.leave()
    await assert_let_go(fleet, one)


async def test_a_detached_request_that_was_not_accepted_yet_can_be_taken_back(fleet: LocalFleet) -> None:
    stream = fleet.client.generate("Once", detached=True, no_instance="wait")
    assert (await stream.cancel()).cancelled
    with pytest.raises(sage.RequestCancelledError):
        await stream.result()
    await eventually(lambda: not len(fleet.scheduler.control.requests))


async def test_a_scheduler_that_starts_anew_has_lost_what_was_delivered_in_part() -> None:
    async with LocalFleet() as first, LocalFleet() as second, NetworkProxy(first.scheduler.port) as proxy:
        await first.add("one")
        await second.add("one")
        client = first.new_client(address=proxy.address, reconnect=QUICK)
        output, fresh = Output(), Output()
        client.start("Once", sink=output, max_tokens=LONG)
        await eventually(lambda: bool(output.token_ids))
        proxy.lead_to(second.scheduler.port)
        await proxy.cut()
        with pytest.raises(sage.StreamLostError, match="no longer knew the request"):
            await asyncio.wait_for(output.end, 20)
        client.start("Once", sink=fresh, temperature=0, max_tokens=30)
        await check(fresh, "Once", 30)


async def test_many_requests_of_many_parts_travel_in_one_message(client: AsyncClient) -> None:
    """Each of them is within the limits; together they have more parts than one request may have."""
    bias = dict.fromkeys(range(1000), 0.0)
    async with asyncio.timeout(30):
        streams = [client.generate("Once", max_tokens=3, logit_bias=bias) for _ in range(40)]
        done = [await stream.result() for stream in streams]
    assert all(len(each.token_ids) == 3 for each in done)
