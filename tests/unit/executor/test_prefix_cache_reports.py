"""Reports of an engine's prefix cache, under the hashes that the scheduler computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from executor_svc.runtime.engine_port import BlocksRemoved, BlocksStored, CacheCleared, CacheEvent
from executor_svc.runtime.messages.reports import PrefixCacheReport
from executor_svc.runtime.session import prefix_cache_reports
from executor_svc.runtime.session.prefix_cache_reports import PrefixCacheReports
from sage_common.prefix_hashes import prefix_hashes

KV_BLOCK = 32
PROMPT = list(range(500, 500 + 8 * KV_BLOCK))


class EngineWithEvents:
    """Tells what the test wants told."""

    def __init__(self, *, reports_cache: bool = True, kv_capacity_tokens: int = 64 * KV_BLOCK) -> None:
        self.facts: Any = type(
            "Facts",
            (),
            {"reports_cache": reports_cache, "kv_block_size": KV_BLOCK, "kv_capacity_tokens": kv_capacity_tokens},
        )
        self.events: list[CacheEvent] = []

    def take_cache_events(self) -> Sequence[CacheEvent]:
        taken, self.events = self.events, []
        return taken

    def store(self, first: int, last: int, *, prompt: Sequence[int] = PROMPT, adapter: str = "") -> None:
        """Have it store some blocks of a prompt; it names them by the prompt's first token and their number."""
        names = [(prompt[0], adapter, n) for n in range(first, last)]
        self.events.append(
            BlocksStored(
                hashes=names,
                parent=(prompt[0], adapter, first - 1) if first else None,
                token_ids=prompt[first * KV_BLOCK : last * KV_BLOCK],
                adapter=adapter,
            )
        )

    def remove(self, *blocks: int) -> None:
        self.events.append(BlocksRemoved(hashes=[(PROMPT[0], "", n) for n in blocks]))


def started(engine: EngineWithEvents) -> PrefixCacheReports:
    reports = PrefixCacheReports("m")
    reports.watch(engine)  # type: ignore[arg-type]
    reports.restart()
    return reports


def all_of(reports: PrefixCacheReports) -> list[PrefixCacheReport]:
    return list(iter(reports.next, None))


def expected(prompt: Sequence[int] = PROMPT, *, adapter: str = "") -> tuple[int, ...]:
    return prefix_hashes(prompt, 64, model="m", adapter=adapter)


def test_stored_blocks_have_the_hashes_that_the_scheduler_computes() -> None:
    engine = EngineWithEvents()
    reports = started(engine)
    engine.store(0, 3)
    engine.store(3, 8)

    assert all_of(reports) == [
        PrefixCacheReport(number=1, block_tokens=64, reset=True, removed=(), stored=expected()),
    ]


def test_adapters_have_hashes_of_their_own() -> None:
    engine = EngineWithEvents()
    reports = started(engine)
    engine.store(0, 8, adapter="french")

    (report,) = all_of(reports)

    assert report.stored == expected(adapter="french")


def test_removed_blocks_are_told_and_what_came_and_went_is_told_as_gone() -> None:
    engine = EngineWithEvents()
    reports = started(engine)
    engine.store(0, 4)
    all_of(reports)

    engine.store(4, 8)
    engine.remove(7, 6, 3)

    _, second, third, fourth = expected()
    assert all_of(reports) == [
        PrefixCacheReport(number=2, block_tokens=64, reset=False, removed=(fourth, second), stored=(third,))
    ]


def test_nothing_new_is_nothing_to_tell() -> None:
    engine = EngineWithEvents()
    reports = started(engine)
    assert [report.reset for report in all_of(reports)] == [True], "the scheduler learns that nothing is there"

    assert all_of(reports) == []


def test_a_block_that_is_there_twice_is_gone_when_both_are() -> None:
    engine = EngineWithEvents()
    reports = started(engine)
    engine.store(0, 2)
    engine.store(0, 2)
    engine.remove(1)
    assert [report.removed for report in all_of(reports)] == [()]

    engine.remove(1)
    assert [report.removed for report in all_of(reports)] == [expected()[:1]]


def test_what_follows_an_unknown_block_is_left_out() -> None:
    engine = EngineWithEvents()
    reports = started(engine)
    engine.store(2, 4)

    assert [report.stored for report in all_of(reports)] == [()]


def test_a_cleared_cache_is_told_and_so_is_what_came_after() -> None:
    engine = EngineWithEvents()
    reports = started(engine)
    engine.store(0, 8)
    all_of(reports)

    engine.events.append(CacheCleared())
    other = PROMPT[::-1]
    engine.store(0, 2, prompt=other)

    (report,) = all_of(reports)
    assert (report.reset, report.stored) == (True, expected(other)[:1])


def test_a_new_session_is_told_everything_again() -> None:
    engine = EngineWithEvents()
    reports = started(engine)
    engine.store(0, 4)
    all_of(reports)
    engine.store(4, 6)
    engine.remove(5)

    reports.restart()

    (report,) = all_of(reports)
    assert (report.number, report.reset, set(report.stored)) == (1, True, set(expected()[:2]))


def test_a_large_cache_is_told_in_bounded_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_cache_reports, "HASHES_SENT", 3)
    engine = EngineWithEvents()
    reports = started(engine)
    engine.store(0, 8)

    found = all_of(reports)

    assert [(each.number, each.reset, len(each.stored)) for each in found] == [(1, True, 3), (2, False, 1)]
    assert tuple(h for each in found for h in each.stored) == expected()


def test_more_blocks_than_the_cache_can_hold_are_not_believed() -> None:
    engine = EngineWithEvents(kv_capacity_tokens=2 * KV_BLOCK)
    reports = started(engine)
    engine.store(0, 8)

    (report,) = all_of(reports)

    assert (report.reset, report.stored) == (True, ())


def test_an_engine_that_tells_nothing_is_not_reported() -> None:
    engine = EngineWithEvents(reports_cache=False)
    reports = started(engine)
    engine.store(0, 8)

    assert all_of(reports) == []
