"""Two real engines under conversations: what their prefix caches hold is found again."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.eventually import eventually
from tests.vllm.prefixes.conversations import converse
from tests.vllm.prefixes.prefix_fleet import NAMES, PrefixFleet

pytestmark = [pytest.mark.vllm]


def test_conversations_find_their_history_in_the_cache(prefix_fleet: PrefixFleet) -> None:
    async def both() -> None:
        # In turns: under ``fifo`` conversations keep to one engine by themselves while the other one is slow.
        await prefix_fleet.restart_scheduler("--policy", "round_robin", "--no-prefix.aware")
        async with prefix_fleet.client() as client:
            without = await converse(client, seed=1)
        await prefix_fleet.restart_scheduler("--policy", "fifo")
        async with prefix_fleet.client() as client:
            aware = await converse(client, seed=2)

        print(f"cached share {without.cached_share:.3f} -> {aware.cached_share:.3f}")
        print(f"mean time to first token {without.mean_ttft_s:.3f} -> {aware.mean_ttft_s:.3f} s")
        print(f"believed {aware.believed_tokens} of {aware.prompt_tokens}, found {aware.cached_tokens}")
        assert without.believed_tokens == 0
        assert aware.cached_share > without.cached_share + 0.15
        assert aware.believed_tokens == pytest.approx(aware.cached_tokens, rel=0.2)
        assert set(aware.instances) == set(NAMES), "both took part"

    asyncio.run(both())


def test_a_new_scheduler_is_told_what_engines_hold(prefix_fleet: PrefixFleet) -> None:
    """It has placed nothing yet: whatever it believes, executors have told it."""

    async def told() -> None:
        await prefix_fleet.restart_scheduler("--policy", "fifo")
        prompt = [1_000 + n % 977 for n in range(1_500)]
        async with prefix_fleet.client() as client:
            first = await client.generate(token_ids=prompt, temperature=0, max_tokens=4).result()
        await prefix_fleet.restart_scheduler("--policy", "fifo")

        async def found_again() -> bool:
            answer = await client.generate(token_ids=prompt, temperature=0, max_tokens=4).result()
            decision = answer.decisions[-1]
            return decision.cached_tokens > 1_000 and answer.instance_id == first.instance_id

        async with prefix_fleet.client() as client:
            await eventually(found_again, within_s=10.0, what="the scheduler to know of the prompt", every_s=0.5)

    asyncio.run(told())
