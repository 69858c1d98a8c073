"""Durations on the wire."""

from __future__ import annotations

import pytest

from sage_wire import durations


@pytest.mark.parametrize("seconds", [0.0, 0.001, 1.5, 3_600.25, 1e9])
def test_durations_there_and_back(seconds: float) -> None:
    assert durations.from_wire(durations.to_wire(seconds)) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    ("seconds", "sent"),
    [(-1.0, 0.0), (float("inf"), durations.LIMIT_S), (float("-inf"), 0.0), (1e300, durations.LIMIT_S)],
)
def test_durations_that_cannot_be_sent_become_the_nearest_that_can(seconds: float, sent: float) -> None:
    wire = durations.to_wire(seconds)
    assert durations.from_wire(wire) == sent
    wire.ToJsonString()  # refuses what the contract does not allow
