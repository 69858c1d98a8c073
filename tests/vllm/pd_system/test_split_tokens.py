"""A split request says what an unsplit one would, and tells what was done with it."""

from __future__ import annotations

import pytest

from sage_client import Phase
from tests.vllm.pd_system.engine_settings import DECODE, PREFILL
from tests.vllm.pd_system.pd_fleet import PdFleet, is_split

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]


@pytest.mark.parametrize("length", [60, 2048, 3500])
async def test_16_streams_at_once_are_split_and_say_what_unsplit_ones_do(fleet: PdFleet, length: int) -> None:
    fallbacks = await fleet.fallbacks()
    prompts = [fleet.prompt(length + n) for n in range(16)]
    done = await fleet.complete(prompts)
    for each in done:
        assert is_split(each)
        assert each.attempts == 1
        assert each.usage.cached_prompt_tokens == 0
    assert await fleet.fallbacks() == fallbacks
    await fleet.nothing_held()
    await fleet.check(prompts, done)


async def test_the_decision_and_the_times_are_told(fleet: PdFleet) -> None:
    stream = fleet.stream(fleet.prompt(1500))
    done = await stream.complete()
    (decision,) = done.decisions
    assert (decision.phase, decision.phase_reason) == (Phase.DECODING, "every request is split")
    assert (decision.prefill_instance_id, decision.instance_id) == (PREFILL, DECODE)
    assert any(PREFILL in reason for reason in decision.reasons)
    times = done.timings
    parts = [times.queue_s, times.prefill_s, times.transfer_s, times.decode_s]
    assert all(part is not None and part > 0 for part in parts), times
    assert sum(part or 0.0 for part in parts) == pytest.approx(times.total_s, abs=0.2)
    explained = await fleet.client.explain(done.request_id)
    assert (explained.decisions[0].prefill_instance_id, explained.decisions[0].phase) == (PREFILL, Phase.DECODING)
    assert [e.event for e in explained.history if e.event in ("placed", "prefilled", "first_token", "finished")] == [
        "placed",
        "prefilled",
        "first_token",
        "finished",
    ]
