"""Prompts' hashes at the door, and reports of prefix caches in a session."""

from __future__ import annotations

from typing import Any

import pytest

from sage_common.prefix_hashes import prefix_hashes
from scheduler_svc.domain.prefixes.cache_report import CacheReport
from tests.unit.control.world import MODEL, World

PROMPT = [i % 1000 for i in range(200)]  # as the world makes them


async def hashes_of(world: World, request_id: str = "r", **options: Any) -> tuple[tuple[int, ...], int]:
    request = (await world.submit(request_id, prompt=len(PROMPT), **options)).live.request
    return request.prefix_hashes, request.prefix_block_tokens


async def test_a_prompt_is_hashed_block_by_block() -> None:
    async with World() as world:
        world.add("a", prefix_caching=True)

        assert await hashes_of(world) == (prefix_hashes(PROMPT, 64, model=MODEL), 64)


async def test_blocks_suit_every_engine_of_the_model() -> None:
    async with World() as world:
        world.add("a", prefix_caching=True, kv_block_size=48)
        world.add("b", prefix_caching=True, kv_block_size=16)

        assert (await hashes_of(world))[1] == 192


async def test_blocks_that_would_be_too_long_to_suit_all_suit_the_longest() -> None:
    async with World() as world:
        world.add("a", prefix_caching=True, kv_block_size=4_095)
        world.add("b", prefix_caching=True, kv_block_size=16)

        assert (await hashes_of(world))[1] == 4_095


async def test_nothing_is_hashed_where_placement_does_not_follow_caches() -> None:
    async with World(prefix={"aware": False}) as world:
        world.add("a", prefix_caching=True)
        assert await hashes_of(world) == ((), 0)
    async with World() as world:
        world.add("a", prefix_caching=False)
        assert await hashes_of(world) == ((), 0)


async def test_a_prompt_whose_log_probabilities_are_wanted_is_found_in_no_cache() -> None:
    async with World() as world:
        world.add("a", prefix_caching=True)

        assert await hashes_of(world, sampling={"prompt_logprobs": 1}) == ((), 64)


async def test_a_salted_prompt_is_found_in_no_cache() -> None:
    async with World() as world:
        world.add("a", prefix_caching=True)

        assert await hashes_of(world, sampling={"cache_salt": "mine"}) == ((), 64)


async def test_what_an_executor_reports_is_credited() -> None:
    async with World() as world:
        for name in ("a", "b"):
            world.add(name, prefix_caching=True)
        stored = prefix_hashes(PROMPT, 64, model=MODEL)
        session = world.executors["b"].session
        assert session is not None

        world.plane.instances.reports.cache_report(
            session, 1, CacheReport(block_tokens=64, cleared=True, stored=stored)
        )

        reader = await world.submit("r", prompt=len(PROMPT))
        await world.advance(1)
        decision = reader.live.placements[0].decision
        assert (decision.instance_id, decision.cached_tokens) == ("b", 192)


async def test_after_a_gap_in_the_reports_nothing_before_it_counts(caplog: pytest.LogCaptureFixture) -> None:
    async with World() as world:
        a = world.add("a", prefix_caching=True)
        assert a.session is not None
        first, second, third = prefix_hashes(PROMPT, 64, model=MODEL)

        def report(number: int, *stored: int) -> None:
            assert a.session is not None
            world.plane.instances.reports.cache_report(a.session, number, CacheReport(block_tokens=64, stored=stored))

        report(1, first)
        report(2, second)
        report(4, third)

        reader = await world.submit("r", prompt=len(PROMPT))
        await world.advance(1)
        assert reader.live.placements[0].decision.cached_tokens == 0
        assert "report 4 came after 2" in caplog.text


async def test_a_report_of_a_session_that_was_replaced_is_dropped() -> None:
    async with World() as world:
        a = world.add("a", prefix_caching=True)
        old = a.session
        assert old is not None
        a.disconnect()
        await world.advance(0.1)
        a.connect()

        stored = prefix_hashes(PROMPT, 64, model=MODEL)
        world.plane.instances.reports.cache_report(old, 1, CacheReport(block_tokens=64, stored=stored))

        reader = await world.submit("r", prompt=len(PROMPT))
        await world.advance(1)
        assert reader.live.placements[0].decision.cached_tokens == 0


async def test_hashes_of_an_ended_request_are_not_kept() -> None:
    async with World() as world:
        world.add("a", prefix_caching=True)
        reader = await world.submit("r", prompt=len(PROMPT), max_tokens=2)
        await world.advance(5)

        assert reader.live.state.ended
        assert reader.live.request.prefix_hashes == ()
        assert reader.live.request.prompt_tokens == len(PROMPT)
