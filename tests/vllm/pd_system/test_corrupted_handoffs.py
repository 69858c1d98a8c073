"""A handoff that changes between the executors: refused before anything is fetched, and nobody sees a wrong token."""

from __future__ import annotations

import pytest

from sage_client import Phase
from tests.vllm.pd_system.pd_fleet import PdFleet, is_split

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

ALTERED = 3


async def test_it_is_refused_and_the_request_completes_whole(fleet: PdFleet) -> None:
    fallbacks, before = await fleet.fallbacks(), fleet.proxy.altered
    fleet.proxy.alter(ALTERED)
    prompts = [fleet.prompt(600 + n) for n in range(ALTERED)]
    done = await fleet.complete(prompts)
    assert fleet.proxy.altered == before + ALTERED
    for each in done:
        assert each.attempts == 2
        assert each.decisions[0].prefill_instance_id
        assert each.decisions[1].phase is Phase.HYBRID
        (why,) = await fleet.history(each.request_id, "requeued")
        assert "the handoff was changed" in why
        assert any("runs whole" in reason and "handoff was changed" in reason for reason in each.decisions[1].reasons)
    assert await fleet.fallbacks() >= fallbacks + ALTERED
    await fleet.nothing_held()
    await fleet.check(prompts, done)


async def test_the_pair_is_used_again_once_it_hands_over(fleet: PdFleet) -> None:
    (done,) = await fleet.complete([fleet.prompt(600)])
    assert is_split(done)
