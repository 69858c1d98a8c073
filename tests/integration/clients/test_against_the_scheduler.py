"""The SDK and the real scheduler, over a connection that breaks."""

from __future__ import annotations

import pytest

import sage_client as sage
from executor_svc.runtime.engine_port import Sampling
from sage_client import Reconnect
from tests.integration.system.local_fleet import LocalFleet
from tests.support.network_proxy import NetworkProxy
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

pytestmark = pytest.mark.usefixtures("transport")

PROMPT = "Once upon a time"
QUICK = Reconnect(attempts=10, first_delay_s=0.02, max_delay_s=0.2)


@pytest.mark.parametrize("detached", [True, False])
async def test_a_stream_goes_on_over_broken_connections(transport: str, detached: bool) -> None:
    if transport == "generate" and not detached:
        pytest.skip("without a session the scheduler cancels the request at once")
    async with LocalFleet() as fleet, NetworkProxy(fleet.scheduler.port) as proxy:
        await fleet.add("one")
        client = fleet.new_client(address=proxy.address, reconnect=QUICK)
        stream = client.generate(PROMPT, temperature=0, max_tokens=300, detached=detached)
        cuts = 0
        async for event in stream:
            connected = proxy.connections > cuts  # what is read may have come before the last cut
            if isinstance(event, sage.Tokens) and stream.next_token > 30 * (cuts + 1) and cuts < 3 and connected:
                cuts += 1
                await proxy.cut()
        result = await stream.result()

    wanted = await answer(PROMPT, Sampling(temperature=0, max_tokens=300))
    assert proxy.connections == 1 + cuts == 4
    assert_tokens(result.token_ids, wanted.token_ids)
    assert result.usage.completion_tokens == 300
    assert len(result.decisions) == 1


async def test_a_stream_that_is_not_detached_says_that_it_was_given_up(
    transport: str,
) -> None:
    slow = Reconnect(attempts=10, first_delay_s=0.5, max_delay_s=0.5)
    async with LocalFleet() as fleet, NetworkProxy(fleet.scheduler.port) as proxy:
        fleet.scheduler.control.intake.grace.seconds = 0.0
        await fleet.add("one")
        client = fleet.new_client(address=proxy.address, reconnect=slow if transport == "session" else QUICK)
        stream = client.generate(PROMPT, temperature=0, max_tokens=2000)
        while not isinstance(await anext(stream), sage.Tokens):
            pass
        await proxy.cut()
        with pytest.raises(sage.UnavailableError, match="the scheduler cancelled the request"):
            await stream.result()
