"""The highest load of the last minutes."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.objectives.peak_load import MEMORY_S, RISES_S, PeakLoad


def test_the_highest_is_remembered_until_it_is_too_long_ago() -> None:
    peak = PeakLoad()

    highest = [peak.note(load, at) for load, at in ((1.0, 0.0), (5.0, 10.0), (3.0, 20.0), (2.0, 30.0))]
    later = [peak.note(1.0, 10.0 + MEMORY_S + after) for after in (0.0, 5.0, 15.0, 40.0)]

    assert highest == [1.0, 5.0, 5.0, 5.0]
    assert later == [5.0, 3.0, 2.0, 1.0]


def test_the_usual_load_is_the_mean_over_time() -> None:
    peak = PeakLoad()

    usual = [peak.usual(load, at) for load, at in ((4.0, 0.0), (2.0, 10.0), (2.0, 20.0))]
    later = [peak.usual(6.0, 20.0 + at) for at in range(20, int(10 * MEMORY_S), 20)]

    assert usual == [4.0, 2.0, 2.0]
    assert later[0] == pytest.approx(4.0, abs=0.1)
    assert later[-1] == pytest.approx(6.0, abs=0.01)


def test_what_was_usual_before_a_pause_is_forgotten_and_so_is_the_pause() -> None:
    """A load that is averaged tells of the pause for a while."""
    peak = PeakLoad()
    for at in range(400):
        peak.usual(8.0, float(at))

    rising = [peak.usual(0.1 + at, 4_000.0 + at) for at in range(int(RISES_S))]
    later = [peak.usual(30.0, 4_000.0 + RISES_S + at) for at in range(60)]

    assert rising == [0.1 + at for at in range(int(RISES_S))]
    assert later == pytest.approx([30.0] * 60)
