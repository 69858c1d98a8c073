"""Whatever happens to a fleet, decisions are those that are made with nothing kept and without any shorter way."""

from __future__ import annotations

from random import Random

import pytest

from tests.unit.domain.random_fleet import Twins


@pytest.mark.interpreted
@pytest.mark.parametrize("policy", ["fifo", "priority", "slo_aware", "cost_optimized"])
@pytest.mark.parametrize("seed", range(6))
def test_what_is_kept_changes_no_decision(policy: str, seed: int) -> None:
    twins = Twins(Random(f"{policy} {seed}"), policy)

    for _ in range(300):
        twins.step()
        twins.check_bounds()
    while twins.kept:
        twins.check_kept()
    assert twins.decided > 20
