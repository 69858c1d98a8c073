"""What comes between prefill's end and decode's first token: leases that run out, peers that cannot be reached,
cancels, drains.  Nothing of it shows in the tokens."""

from __future__ import annotations

import pytest

from executor_svc.engine.simulated.faults import Fault, FaultKind
from sage_client import AsyncStream, InstanceState, Phase, RequestCancelledError
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

CANNOT_CONNECT = Fault(kind=FaultKind.KV_CONNECT)
PATIENCE = {"lease_s": 6.0}  # an executor may be silent longer than KV is kept


async def held_back(fleet: PdFleet, network: NetworkProxy, pair: Pair) -> AsyncStream:
    """A request whose prefill is over, and whose decode leg does not reach its executor."""
    stream = fleet.ask(prompt(1))
    await until(prefilling(pair[0]), "prefill to run")
    network.blackhole()

    async def over() -> bool:
        return any(entry.event == "prefilled" for entry in await fleet.history(stream.request_id))

    await eventually(over, what="prefill's end")
    return stream


async def pair_behind(fleet: PdFleet, network: NetworkProxy, **kv: float) -> Pair:
    prefill = await fleet.add_leg("p", "prefilling", kv=kv, prefill_tokens_per_s=2000.0)
    decode = await fleet.add_leg("d", "decoding", kv=kv, through=network.address)
    await fleet.proved()
    return prefill, decode


# --- leases ---------------------------------------------------------------------------------------


async def test_the_lease_runs_out_before_the_decode_leg_arrives() -> None:
    async with PdFleet(instance=PATIENCE) as fleet, NetworkProxy(fleet.scheduler.port) as network:
        pair = await pair_behind(fleet, network, **SHORT_LEASE)
        stream = await held_back(fleet, network, pair)
        await until(lambda: pair[0].engine.load().kv_leases_expired, "the lease to end")
        await network.heal()
        done = await fleet.complete(stream, prompt(1))
        (told,) = await fleet.fallbacks(done.request_id)
        assert "prefill runs again" in told
        assert [each.prefill_instance_id for each in done.decisions] == ["p", "p"]
        await fleet.assert_fallbacks(lease_expired=1)
        await fleet.free("p", "d")
        assert (await fleet.instance("p")).kv_leases_expired == 1


async def test_an_executor_refuses_what_it_could_not_fetch_in_time(fleet: PdFleet) -> None:
    """Leases below an executor's margin: no handoff ever works, and the pair says so."""
    await fleet.add_leg("p", "prefilling", kv={"lease_s": 0.5})
    await fleet.add_leg("d", "decoding", kv={"lease_s": 0.5})

    async def failed() -> str:
        return "".join(each.reason for each in await fleet.pairs())

    reason = await eventually(failed, what="the warm-up to fail")
    assert "kv_lease_expired" in reason
    done = await fleet.answered(1)
    assert done.decisions[0].phase is Phase.HYBRID
    assert reason in " ".join(done.decisions[0].reasons)
    await fleet.assert_fallbacks(no_pair=1)
    await fleet.free("p", "d", within_s=0.5 + SOON_S)


# --- connectors that cannot connect -----------------------------------------------------------------


async def test_a_connector_that_cannot_connect_computes_the_prompt_there(fleet: PdFleet) -> None:
    pair = await fleet.add_pair(kv=SHORT_LEASE)
    pair[1].engine.inject(CANNOT_CONNECT)
    done = await fleet.answered(1)
    assert await fleet.fallbacks(done.request_id) == [
        "d: the KV of its prompt could not be fetched and was computed here"
    ]
    await fleet.assert_fallbacks(recomputed=1)
    decode = await fleet.instance("d")
    assert (decode.kv_pulls, decode.kv_pulls_failed) == (1, 1), "the warm-up's, and this one"
    await fleet.free("p", "d", within_s=SHORT_LEASE_S + SOON_S)


async def test_a_connector_that_is_not_to_recompute_has_the_request_run_whole(fleet: PdFleet) -> None:
    pair = await fleet.add_pair(kv={"load_failure_policy": "fail", **SHORT_LEASE})
    pair[1].engine.inject(CANNOT_CONNECT)
    done = await fleet.answered(1)
    assert [each.phase for each in done.decisions] == [Phase.DECODING, Phase.HYBRID]
    page = await fleet.page()
    assert page.total("sage_pd_fallbacks_total", reason="not_fetched") == 1
    await fleet.free("p", "d", within_s=SHORT_LEASE_S + SOON_S)


async def test_wrong_blocks_would_be_noticed(fleet: PdFleet, pair: Pair) -> None:
    """The comparison these tests rest on can fail."""
    pair[1].engine.inject(Fault(kind=FaultKind.KV_CORRUPT))
    with pytest.raises(AssertionError, match="wanted"):
        await fleet.answered(1)
    await fleet.answered(2)


# --- cancels --------------------------------------------------------------------------------------


async def test_a_cancel_between_prefills_end_and_decodes_admission() -> None:
    async with PdFleet(instance=PATIENCE) as fleet, NetworkProxy(fleet.scheduler.port) as network:
        pair = await pair_behind(fleet, network)
        stream = await held_back(fleet, network, pair)
        assert (await stream.cancel()).cancelled
        with pytest.raises(RequestCancelledError):
            await stream.result()
        await network.heal()
        await fleet.free("p", "d")
        assert pair[0].engine.load().kv_leases_expired == 0, "it was told, and did not wait for the lease"


@pytest.mark.parametrize("moment", ["prefill", "transfer"])
async def test_a_cancel_during_either_leg(fleet: PdFleet, pair: Pair, moment: str) -> None:
    pair[1].engine.inject(Fault(kind=FaultKind.KV_SLOW, factor=30.0))
    stream = fleet.ask(prompt(1))
    await until(prefilling(pair[0]) if moment == "prefill" else fetching(pair[1]), moment)
    await stream.cancel()
    with pytest.raises(RequestCancelledError):
        await stream.result()
    await fleet.free("p", "d")
    assert pair[0].engine.load().kv_leases_expired == 0


# --- drains ---------------------------------------------------------------------------------------


async def test_the_prefill_side_drains(fleet: PdFleet, pair: Pair) -> None:
    before = fleet.ask(prompt(1))
    await until(prefilling(pair[0]), "prefill to run")
    await fleet.client.drain_instance("p")
    assert (await fleet.complete(before, prompt(1))).decisions[0].prefill_instance_id == "p", "it finishes what it has"
    await fleet.until("p", InstanceState.DRAINED)
    during = await fleet.answered(2)
    assert (during.decisions[0].phase, during.instance_id) == (Phase.HYBRID, "d")
    await fleet.assert_fallbacks(no_pair=1)
    await fleet.client.resume_instance("p")
    await fleet.proved()
    assert (await fleet.answered(3)).decisions[0].prefill_instance_id == "p"
    await fleet.free("p", "d")


async def test_the_decode_side_drains(fleet: PdFleet, pair: Pair) -> None:
    before = fleet.ask(prompt(1))
    await until(prefilling(pair[0]), "prefill to run")
    drained = await fleet.client.drain_instance("d")
    assert drained.state is InstanceState.DRAINING, "room is reserved there for what prefill computes"
    async for _ in before:
        if before.next_token:
            break
    assert (await fleet.instance("d")).state is InstanceState.DRAINING
    done = await fleet.complete(before, prompt(1))
    assert (done.attempts, done.instance_id, done.decisions[0].prefill_instance_id) == (1, "d", "p")
    assert await fleet.fallbacks(done.request_id) == []
    await fleet.until("d", InstanceState.DRAINED)
    during = await fleet.answered(2)
    assert (during.decisions[0].phase, during.instance_id) == (Phase.HYBRID, "p")
    assert "no instance of 'sim' that takes decode legs is ready" in " ".join(during.decisions[0].reasons)
    await fleet.free("p", "d")
