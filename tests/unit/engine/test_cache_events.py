"""Events of prefix caches that wait to be taken."""

from __future__ import annotations

import pytest

from executor_svc.engine import cache_events
from executor_svc.engine.cache_events import CacheEvents
from executor_svc.runtime.engine_port import BlocksRemoved, BlocksStored, CacheCleared


def test_events_are_taken_once_in_their_order() -> None:
    events = CacheEvents()
    stored, removed = BlocksStored(hashes=(1,), parent=None, token_ids=(5, 6)), BlocksRemoved(hashes=(1,))
    events.add(stored)
    events.add(removed)

    assert events.take() == [stored, removed]
    assert events.take() == []


def test_what_came_before_the_cache_was_emptied_is_not_kept() -> None:
    events = CacheEvents()
    events.add(BlocksRemoved(hashes=(1,)))
    events.add(CacheCleared())
    events.add(BlocksRemoved(hashes=(2,)))

    assert events.take() == [CacheCleared(), BlocksRemoved(hashes=(2,))]


def test_events_that_nobody_takes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_events, "MOST_TOKENS_KEPT", 10)
    events = CacheEvents()
    for n in range(4):
        events.add(BlocksStored(hashes=(n,), parent=None, token_ids=(1, 2)))

    assert events.take() == [CacheCleared(), BlocksStored(hashes=(3,), parent=None, token_ids=(1, 2))]
