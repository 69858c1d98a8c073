"""Prompts take a bounded amount of memory, in all and of one tenant."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_svc.control.requests.prompt_memory import MIB, REQUEST_BYTES, PromptMemory, PromptMemoryLimits
from scheduler_svc.control.requests.submission import TokenPrompt
from scheduler_svc.domain.errors import InvalidRequest, LimitReached
from scheduler_svc.domain.request import RequestKey
from tests.unit.control.world import World


def key(number: int, tenant: str = "t") -> RequestKey:
    return RequestKey(tenant=tenant, request_id=str(number))


def test_what_does_not_fit_is_refused_with_its_size() -> None:
    memory = PromptMemory(PromptMemoryLimits(total=10 * MIB, tenant=8 * MIB))
    memory.take(key(1), 6 * MIB)
    with pytest.raises(LimitReached, match=r"^this tenant's prompts here take 6\.0 MiB of 8\.0 MiB; this request of 3"):
        memory.take(key(2), 3 * MIB)
    memory.take(key(3, "u"), 3 * MIB)
    with pytest.raises(LimitReached, match=r"^the prompts here take 9\.0 MiB of 10\.0 MiB"):
        memory.take(key(4, "v"), 2 * MIB)
    memory.give_back(key(1))
    memory.take(key(2), 3 * MIB)
    assert memory.total == 6 * MIB


def test_a_request_is_counted_once_and_may_shrink_at_a_full_bound() -> None:
    memory = PromptMemory(PromptMemoryLimits(total=100, tenant=100))
    memory.take(key(1), 100)
    memory.take(key(1), 40)
    assert memory.total == 40
    with pytest.raises(LimitReached):
        memory.take(key(1), 101)
    assert memory.total == 40


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.integers(0, 60))))
def test_the_sum_is_the_sum(steps: list[tuple[int, str, int]]) -> None:
    memory = PromptMemory(PromptMemoryLimits(total=100, tenant=70))
    counted: dict[RequestKey, int] = {}
    for number, tenant, size in steps:
        each = key(number, tenant)
        if not size:
            memory.give_back(each)
            counted.pop(each, None)
            continue
        try:
            memory.take(each, size)
            counted[each] = size
        except LimitReached:
            pass
        assert memory.total == sum(counted.values()) <= 100
        for name in "ab":
            assert sum(found for one, found in counted.items() if one.tenant == name) <= 70
    for each in list(counted):
        memory.give_back(each)
    assert (memory.total, dict(memory._tenants), memory._sizes) == (0, {}, {})


async def test_requests_give_their_memory_back_however_they_end() -> None:
    bound = 10 * REQUEST_BYTES
    async with World(queue={"prompt_memory_bytes": bound, "tenant_prompt_memory_bytes": bound}) as world:
        memory = world.plane.intake._memory
        world.add("a", max_running=1)
        for n in range(9):
            await world.submit(f"r{n}")
        assert memory.total >= 9 * REQUEST_BYTES
        with pytest.raises(LimitReached, match="does not fit"):
            await world.submit("one too many")
        world.plane.intake.cancel(key=world.submission("r8").key, reason="to make room")
        empty = replace(world.submission("empty"), prompt=TokenPrompt(token_ids=()))
        with pytest.raises(InvalidRequest):
            await world.plane.intake.submit(empty)
        for n in range(8):
            world.plane.intake.cancel(key=world.submission(f"r{n}").key, reason="done")
        assert memory.total == 0


async def test_an_ended_request_keeps_nothing_large() -> None:
    async with World() as world:
        world.add("a")
        submission = world.submission("r", max_tokens=1)
        large = {"allowed_token_ids": tuple(range(100)), "stop": ("x" * 100,), "logit_bias": {1: 1.0}}
        large["engine_options"] = {"mine": "1"}
        submission = replace(submission, sampling={**submission.sampling, **large})
        live = (await world.plane.intake.submit(submission)).live
        await world.advance(5.0)
        assert live.state.ended
        sampling = live.request.sampling
        assert (sampling.allowed_token_ids, sampling.stop, sampling.logit_bias) == ((), (), {})
        assert sampling.engine_options == {}
        assert isinstance(live.request.prompt_token_ids, range)
