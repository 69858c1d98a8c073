"""One side dies, at every moment of a handoff: the stream goes on with the right tokens, and no KV stays taken."""

from __future__ import annotations

import pytest

from executor_svc.engine.simulated.faults import Fault, FaultKind
from sage_client import InstanceState, NoInstanceError, Phase
from tests.integration.pd.pd_fleet import (
    SHORT_LEASE,
    SHORT_LEASE_S,
    SOON_S,
    PdFleet,
    fetching,
    prefilling,
    prompt,
    until,
)
from tests.integration.system.local_fleet import LocalExecutor
from tests.support.eventually import eventually
from tests.support.network_proxy import NetworkProxy

Pair = tuple[LocalExecutor, LocalExecutor]

DEATH = Fault(kind=FaultKind.DIE)
SLOW_PULLS = Fault(kind=FaultKind.KV_SLOW, factor=30.0)


async def prefilled(fleet: PdFleet, request_id: str) -> None:
    """The prefill leg of a request is over."""

    async def over() -> bool:
        return any(entry.event == "prefilled" for entry in await fleet.history(request_id))

    await eventually(over, what="prefill's end")


# --- prefill --------------------------------------------------------------------------------------


async def test_prefill_dies_while_it_computes(fleet: PdFleet, pair: Pair) -> None:
    stream = fleet.ask(prompt(1))
    await until(prefilling(pair[0]), "prefill to run")
    pair[0].engine.inject(DEATH)
    done = await fleet.complete(stream, prompt(1))
    (told,) = await fleet.fallbacks(done.request_id)
    assert "prefill on p failed" in told
    assert "d computes the prompt itself" in told
    await fleet.assert_fallbacks(prefill_failed=1)
    await fleet.free("d")


async def test_prefill_dies_between_its_end_and_the_transfer(fleet: PdFleet) -> None:
    async with NetworkProxy(fleet.scheduler.port) as network:
        prefill = await fleet.add_leg("p", "prefilling", prefill_tokens_per_s=2000.0)
        await fleet.add_leg("d", "decoding", through=network.address)
        await fleet.proved()
        stream = fleet.ask(prompt(1))
        await until(prefilling(prefill), "prefill to run")
        network.blackhole()
        await prefilled(fleet, stream.request_id)
        prefill.engine.inject(DEATH)
        await prefill.exit_status()
        await network.heal()
        done = await fleet.complete(stream, prompt(1))
        (told,) = await fleet.fallbacks(done.request_id)
        assert told == "d: the KV of its prompt could not be fetched and was computed here"
        await fleet.assert_fallbacks(recomputed=1)
        assert (await fleet.instance("d")).kv_pulls_failed == 1
        await fleet.free("d")


async def test_prefill_dies_while_its_blocks_are_fetched(fleet: PdFleet, pair: Pair) -> None:
    pair[1].engine.inject(SLOW_PULLS)
    stream = fleet.ask(prompt(1))
    await until(fetching(pair[1]), "the transfer")
    pair[0].engine.inject(DEATH)
    done = await fleet.complete(stream, prompt(1))
    (told,) = await fleet.fallbacks(done.request_id)
    assert "could not be fetched and was computed here" in told
    await fleet.assert_fallbacks(recomputed=1)
    await fleet.free("d")


async def test_prefill_dies_after_the_transfer_and_nobody_notices(fleet: PdFleet, pair: Pair) -> None:
    stream = fleet.ask(prompt(1), max_tokens=60)
    async for _ in stream:
        if stream.next_token:
            break
    pair[0].engine.inject(DEATH)
    await pair[0].exit_status()
    done = await fleet.complete(stream, prompt(1))
    assert (done.attempts, len(done.token_ids)) == (1, 60)
    assert await fleet.fallbacks(done.request_id) == []
    await fleet.free("d")


async def test_prefill_that_fails_is_done_by_the_decode_instance(fleet: PdFleet, pair: Pair) -> None:
    pair[0].engine.inject(Fault(kind=FaultKind.ERROR))
    done = await fleet.answered(1)
    (told,) = await fleet.fallbacks(done.request_id)
    assert "d computes the prompt itself" in told
    await fleet.assert_fallbacks(prefill_failed=1)
    await fleet.free("p", "d")


async def test_without_any_prefill_instance_the_decode_instance_does_it_and_that_is_loud(
    fleet: PdFleet, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    await fleet.health_says(serving=True)
    pair[0].engine.inject(DEATH)
    await pair[0].exit_status()
    await until(lambda: not fleet.scheduler.control.scheduler.ready_instances("sim")[1:], "p to be gone")
    done = await fleet.answered(1)
    assert (done.decisions[0].instance_id, done.decisions[0].phase) == ("d", Phase.HYBRID)
    assert "no instance of 'sim' that takes prefill legs is ready" in " ".join(done.decisions[0].reasons)
    await fleet.assert_fallbacks(no_pair=1)
    (condition,) = (await fleet.client.get_prefill_decode()).conditions
    assert condition == "no instance of 'sim' that takes prefill legs is ready"
    await until(lambda: condition in caplog.text, "the log to say it")
    assert (await fleet.page()).total("sage_pd_conditions") == 1
    await fleet.health_says(serving=False)


async def test_a_prefill_instance_that_comes_back_is_used_again(fleet: PdFleet, pair: Pair) -> None:
    pair[0].engine.inject(DEATH)
    await pair[0].exit_status()
    pair[0].start()
    await fleet.until("p", InstanceState.READY)
    await fleet.proved()
    done = await fleet.answered(1)
    assert done.decisions[0].prefill_instance_id == "p"
    assert await fleet.fallbacks(done.request_id) == []


# --- decode ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("general", [True, False], ids=["on a general one", "on the prefill instance in need"])
async def test_decode_dies_mid_stream_and_the_request_goes_on_whole(fleet: PdFleet, pair: Pair, general: bool) -> None:
    if general:
        await fleet.add("g")
    stream = fleet.ask(prompt(1), max_tokens=80)
    async for _ in stream:
        if stream.next_token > 4:
            break
    pair[1].engine.inject(DEATH)
    done = await fleet.complete(stream, prompt(1))
    first, second = done.decisions
    assert (first.phase, first.instance_id, first.prefill_instance_id) == (Phase.DECODING, "d", "p")
    assert (second.phase, second.instance_id) == (Phase.HYBRID, "g" if general else "p")
    assert "goes on from tokens that were delivered already" in second.phase_reason
    assert len(done.token_ids) == 80
    assert "requeued" in [entry.event for entry in await fleet.history(done.request_id)]
    assert (await fleet.page()).total("sage_failovers_total", model="sim") == 1
    await fleet.free("p")


async def test_decode_dies_while_prefill_runs(fleet: PdFleet) -> None:
    pair = await fleet.add_pair(kv=SHORT_LEASE)
    stream = fleet.ask(prompt(1))
    await until(prefilling(pair[0]), "prefill to run")
    pair[1].engine.inject(DEATH)
    done = await fleet.complete(stream, prompt(1))
    assert done.decisions[-1].instance_id == "p", "the only one left"
    await fleet.free("p", within_s=SHORT_LEASE_S + SOON_S)


async def test_decode_dies_while_it_fetches_and_the_lease_frees_the_blocks(fleet: PdFleet) -> None:
    pair = await fleet.add_pair(kv=SHORT_LEASE)
    await fleet.add("g")
    pair[1].engine.inject(SLOW_PULLS)
    stream = fleet.ask(prompt(1))
    await until(fetching(pair[1]), "the transfer")
    pair[1].engine.inject(DEATH)
    done = await fleet.complete(stream, prompt(1))
    assert done.instance_id == "g"
    assert "requeued" in [entry.event for entry in await fleet.history(done.request_id)]
    # Of the leg's own end and its instance's, the scheduler goes by the one it hears of first.
    await fleet.assert_fallbacks(no_pair=1, perhaps="not_fetched")
    await fleet.free("p", within_s=SHORT_LEASE_S + SOON_S)


async def test_with_both_sides_gone_the_client_is_told() -> None:
    async with PdFleet(queue={"orphan_timeout_s": 0.3}) as fleet:
        pair = await fleet.add_pair()
        stream = fleet.ask(prompt(1), max_tokens=400)
        async for _ in stream:
            if stream.next_token:
                break
        for executor in pair:
            executor.engine.inject(DEATH)
        with pytest.raises(NoInstanceError, match="no instance can serve 'sim' now"):
            await stream.result()
