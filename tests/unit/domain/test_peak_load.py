"""The highest load of the last minutes."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.objectives.peak_load import MEMORY_S, PeakLoad


def test_the_highest_is_remembered_until_it_is_too_long_ago() -> None:
    peak = PeakLoad()

    highest = [peak.note(load, at) for load, at in ((1.0, 0.0), (5.0, 10.0), (3.0, 20.0), (2.0, 30.0))]
    later = [peak.note(1.0, 10.0 + MEMORY_S + after) for after in (0.0, 5.0, 15.0, 40.0)]

    assert highest == [1.0, 5.0, 5.0, 5.0]
    assert later == [5.0, 3.0, 2.0, 1.0]


def test_the_usual_load_is_the_mean_over_time() -> None:
    peak = PeakLoad()

    usual = [peak.usual(load, at) for load, at in ((4.0, 0.0), (2.0, 10.0), (2.0, 20.0))]
    later = [peak.usual(6.0, 20.0 + at) for at in (20.0, 10 * MEMORY_S)]

    assert usual == [4.0, 2.0, 2.0]
    assert later[0] == pytest.approx(4.0, abs=0.1)
    assert later[1] == pytest.approx(6.0, abs=0.01)
