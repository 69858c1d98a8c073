"""Outcomes and their summary."""

from __future__ import annotations

from typing import Any

import pytest

from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.outcome import End, Outcome
from sage_simulator.report import Quantiles, summarize
from sage_simulator.simulation import Simulation
from sage_simulator.simulation_settings import SimulationSettings
from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.targets import Targets

NO_TARGETS = Targets()


def outcome(targets: Targets = NO_TARGETS, *, deadline_s: float | None = None, **changes: Any) -> Outcome:
    """A request that came at 10, had its first of 11 tokens at 11 and its last at 13."""
    request = TracedRequest(arrival_s=10.0, prompt_tokens=5, output_tokens=11, deadline_s=deadline_s)
    values: dict[str, Any] = {"end": End.FINISHED, "placed_at": 10.5, "first_token_at": 11.0, "ended_at": 13.0}
    return Outcome(request=request, targets=targets, output_tokens=11, **values | changes)


def test_times_of_a_request() -> None:
    found = outcome()
    assert (found.queue_wait_s, found.ttft_s) == (0.5, 1.0)
    assert found.tpot_s == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (outcome(), True),
        (outcome(Targets(ttft_s=1.0, tpot_s=0.21)), True),
        (outcome(Targets(ttft_s=0.9)), False),
        (outcome(Targets(tpot_s=0.19)), False),
        (outcome(deadline_s=3.0), True),
        (outcome(deadline_s=2.9), False),
        (outcome(end=End.EXPIRED), False),
        (outcome(end=End.REFUSED, first_token_at=None, placed_at=None), False),
    ],
)
def test_in_target_is_finished_within_every_target(found: Outcome, kept: bool) -> None:
    assert found.in_target is kept


def test_quantiles_are_values_that_were_measured() -> None:
    assert Quantiles.of(float(n) for n in range(100, 0, -1)) == Quantiles(p50_s=50.0, p90_s=90.0, p99_s=99.0)
    assert Quantiles.of([3.0, None]) == Quantiles(p50_s=3.0, p90_s=3.0, p99_s=3.0)
    assert Quantiles.of([None]) == Quantiles(p50_s=None, p90_s=None, p99_s=None)


@pytest.mark.parametrize("requests", [4, 40])
def test_goodput_is_what_is_kept_of_the_arriving_requests_however_short_the_run_is(requests: int) -> None:
    trace = [TracedRequest(arrival_s=9 + n / 2, prompt_tokens=100, output_tokens=500) for n in range(requests)]
    summary = summarize(Simulation(trace, [InstanceModel()], SimulationSettings()).run())
    assert summary.in_target_share == 1.0
    assert summary.arrivals_s == pytest.approx(requests / 2)
    assert summary.span_s > summary.arrivals_s + 2, "the last requests take seconds"
    assert summary.goodput_per_s == pytest.approx(2.0)


def test_requests_of_one_moment_have_no_rate_and_count_by_the_time_that_they_took() -> None:
    trace = [TracedRequest(arrival_s=9, prompt_tokens=100, output_tokens=50)] * 3
    summary = summarize(Simulation(trace, [InstanceModel()], SimulationSettings()).run())
    assert summary.arrivals_s == summary.span_s
    assert summary.goodput_per_s == pytest.approx(3 / summary.span_s)


def test_cost_is_price_by_hours_of_use_and_the_fleets_by_hours_of_the_run() -> None:
    trace = [TracedRequest(arrival_s=100.0, prompt_tokens=100, output_tokens=500)]
    fleet = [InstanceModel(price_per_hour=3_600.0), InstanceModel(price_per_hour=7_200.0)]
    summary = summarize(Simulation(trace, fleet, SimulationSettings(network_delay_s=0.0)).run())
    used, unused = sorted(summary.instances, key=lambda each: -each.requests)
    assert (used.requests, unused.requests, unused.used_s) == (1, 0, 0.0)
    assert used.used_s == pytest.approx(summary.span_s)
    assert summary.cost == pytest.approx(used.price_per_hour / 3_600 * summary.span_s)
    assert summary.fleet_cost == pytest.approx(3 * summary.span_s)
    assert summary.cost_per_million_tokens == pytest.approx(summary.cost * 2_000)
    assert used.utilisation == pytest.approx(1.0)
    assert used.mean_running == pytest.approx(1.0)
    assert summary.ends == {"finished": 1, "expired": 0, "refused": 0, "cancelled": 0, "failed": 0}
    assert (summary.in_target_share, used.in_target) == (1.0, 1)
    assert summary.goodput_per_s == pytest.approx(1 / summary.span_s)
