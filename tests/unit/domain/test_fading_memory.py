"""How much of what was counted before still counts."""

from __future__ import annotations

from math import e

import pytest

from scheduler_svc.domain.prediction.fading_memory import FadingMemory


def test_after_its_seconds_a_count_weighs_a_share_of_a_new_one() -> None:
    memory = FadingMemory(20.0)
    memory.kept(100.0)

    assert memory.kept(120.0) == pytest.approx(1 / e)
    assert memory.kept(140.0) == pytest.approx(1 / e), "it counts from the last call"


def test_steps_fade_as_one_stretch_does() -> None:
    memory, steps = FadingMemory(20.0), 1.0
    memory.kept(0.0)
    for now in range(1, 21):
        steps *= memory.kept(float(now))

    assert steps == pytest.approx(1 / e)


def test_what_was_counted_before_the_first_call_is_gone() -> None:
    assert FadingMemory(20.0).kept(5.0) == 0.0


def test_without_time_nothing_fades() -> None:
    memory = FadingMemory(20.0)
    memory.kept(100.0)

    assert memory.kept(100.0) == 1.0
    assert memory.kept(90.0) == 1.0
    assert memory.kept(120.0) == pytest.approx(1 / e), "an earlier time does not put it back"


def test_reading_a_weight_changes_nothing() -> None:
    memory = FadingMemory(20.0)
    memory.kept(100.0)

    assert memory.weight(120.0) == memory.weight(120.0) == pytest.approx(1 / e)
    assert memory.weight(90.0) == 1.0
    assert memory.kept(120.0) == pytest.approx(1 / e)


def test_counts_stand_for_the_time_since_the_first_and_in_the_end_for_the_memory() -> None:
    memory = FadingMemory(20.0)

    assert memory.seconds(0.1) == pytest.approx(0.1, rel=0.01)
    assert memory.seconds(20.0) == pytest.approx(20.0 * (1 - 1 / e))
    assert memory.seconds(1_000.0) == pytest.approx(20.0)


def test_a_steady_rate_is_found_at_any_time() -> None:
    memory, count = FadingMemory(20.0), 0.0
    for tick in range(2_000):
        count = count * memory.kept(tick * 0.01) + 1
        if tick in (100, 500, 1_999):
            rate = count * memory.weight(tick * 0.01) / memory.seconds((tick + 1) * 0.01)
            assert rate == pytest.approx(100.0, rel=0.01)
