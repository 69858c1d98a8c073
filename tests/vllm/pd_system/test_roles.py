"""Roles change while the engines run; nothing is drained for it."""

from __future__ import annotations

import pytest

from sage_client import InstanceRole, PairState, Phase
from tests.vllm.pd_system.engine_settings import DECODE, PREFILL
from tests.vllm.pd_system.pd_fleet import PdFleet, is_split

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]


@pytest.mark.parametrize("role", [InstanceRole.GENERAL, InstanceRole.DECODING])
async def test_without_a_prefill_instance_requests_run_whole_and_that_is_loud(
    fleet: PdFleet, role: InstanceRole
) -> None:
    fallbacks = await fleet.fallbacks()
    await fleet.client.set_instance_role(PREFILL, role)
    prompts = [fleet.prompt(500 + n) for n in range(4)]
    done = await fleet.complete(prompts)
    for each in done:
        (decision,) = each.decisions
        assert (decision.phase, decision.prefill_instance_id) == (Phase.HYBRID, "")
        assert any("should be split and runs whole" in reason for reason in decision.reasons)
    assert await fleet.fallbacks() == fallbacks + 4
    conditions = (await fleet.client.get_prefill_decode()).conditions
    assert any("takes prefill legs" in condition for condition in conditions)
    await fleet.client.set_instance_role(PREFILL, InstanceRole.PREFILLING)
    await fleet.pair_is(PairState.USABLE)
    again = await fleet.complete([fleet.prompt(500)])
    assert is_split(again[0])
    assert not (await fleet.client.get_prefill_decode()).conditions
    await fleet.check(prompts, done)


async def test_a_hybrid_instance_takes_prefill_legs_beside_whole_requests(fleet: PdFleet) -> None:
    await fleet.client.set_instance_role(PREFILL, InstanceRole.HYBRID)
    prompts = [fleet.prompt(500 + n) for n in range(4)]
    done = await fleet.complete(prompts)
    assert all(is_split(each) for each in done)
    await fleet.client.set_prefill_decode("never")
    (whole,) = await fleet.complete([fleet.prompt(500)])
    assert whole.instance_id == PREFILL, "the only one that is meant for whole requests"
    await fleet.check(prompts, done)


async def test_the_decode_instance_computes_the_prompt_itself_where_nobody_else_does(fleet: PdFleet) -> None:
    await fleet.client.drain_instance(PREFILL, reason="maintenance")
    prompts = [fleet.prompt(2100)]
    done = await fleet.complete(prompts)
    assert done[0].instance_id == DECODE
    assert any("takes prefill legs" in reason for reason in done[0].decisions[0].reasons)
    await fleet.client.resume_instance(PREFILL)
    await fleet.pair_is(PairState.USABLE)
    again = await fleet.complete([fleet.prompt(500)])
    assert is_split(again[0])
    await fleet.check(prompts, done)


async def test_streams_that_run_while_the_role_changes_notice_nothing(fleet: PdFleet) -> None:
    prompts = [fleet.prompt(1000 + n) for n in range(8)]
    streams = [fleet.stream(each) for each in prompts]
    await streams[0].until_token(0)
    await fleet.client.set_instance_role(PREFILL, InstanceRole.GENERAL)
    done = [await stream.complete() for stream in streams]
    assert all(each.attempts == 1 for each in done)
    await fleet.check(prompts, done)
