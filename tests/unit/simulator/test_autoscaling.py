"""Modelled instances that are started and drained as the scheduler desires."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import islice

import pytest

from sage_simulator.fleet_event import FleetChange, FleetEvent
from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.outcome import End
from sage_simulator.simulation import Simulation, SimulationResult
from sage_simulator.simulation_settings import SimulationError, SimulationSettings
from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.synthetic.day import HOURS, MEAN, day_arrivals
from sage_simulator.workload import Workload
from scheduler_svc.domain.instance_spec import InstanceRole

ONE = InstanceModel(max_running=4)


def autoscaled(trace: list[TracedRequest], *, most: int = 3, warm_up_s: float = 20.0) -> SimulationResult:
    settings = SimulationSettings().autoscaled(1, most, warm_up_s=warm_up_s, down_delay_s=30.0)
    return Simulation(trace, [ONE], settings).run()


def burst() -> list[TracedRequest]:
    """A minute and a half of load for three instances, then a request every 5 s for four minutes."""
    busy = [TracedRequest(arrival_s=0.25 * n, prompt_tokens=100, output_tokens=250) for n in range(360)]
    return busy + [TracedRequest(arrival_s=90.0 + 5 * n, prompt_tokens=100, output_tokens=250) for n in range(48)]


def test_instances_follow_the_load_and_nothing_is_lost() -> None:
    result = autoscaled(burst())
    numbers = [point.instances for point in result.timeline]
    assert (max(numbers), numbers[-1]) == (3, 1)
    assert {each.end for each in result.outcomes} == {End.FINISHED}
    assert result.failovers == 0, "those that left had finished what they ran"


def test_hybrid_instances_are_joined_by_hybrid_ones_like_them() -> None:
    """Desired numbers count them as general."""
    fleet = [replace(ONE, role=InstanceRole.DECODING, price_per_hour=9.0), replace(ONE, role=InstanceRole.HYBRID)]
    settings = SimulationSettings().autoscaled(1, 3, warm_up_s=20.0, down_delay_s=30.0)
    result = Simulation(burst(), fleet, settings).run()
    started = [
        each.model for each in result.executors if each.up_from_s and each.model.role is not InstanceRole.DECODING
    ]
    assert started
    assert {(each.role, each.price_per_hour) for each in started} == {(InstanceRole.HYBRID, 1.0)}


def test_an_instance_is_there_and_paid_for_from_its_start_and_serves_after_its_warm_up() -> None:
    result = autoscaled(burst(), warm_up_s=20.0)
    second = result.executors[1]
    assert second.first_used_at is not None
    assert second.first_used_at >= second.up_from_s + 20.0


@pytest.mark.parametrize("at_s", [5.0, 15.0, 25.0, 45.0])
def test_events_name_the_instances_of_the_fleet_and_of_events_whatever_was_started_meanwhile(at_s: float) -> None:
    added = FleetEvent(at_s=at_s, change=FleetChange.ADD, added=(replace(ONE, price_per_hour=7.0),))
    failed = FleetEvent(at_s=at_s + 1.0, change=FleetChange.FAIL, instance_id="i001")
    settings = SimulationSettings(events=(added, failed)).autoscaled(1, 3, warm_up_s=20.0, down_delay_s=30.0)
    result = Simulation(burst(), [ONE], settings).run()
    (dear,) = [each for each in result.executors if each.model.price_per_hour == 7.0]
    assert (dear.instance_id, dear.up_from_s) == ("i001", at_s)
    assert dear.up_until_s is not None
    assert dear.up_until_s <= at_s + 1.0, "unless the dearest had to go already"


def test_the_same_run_gives_the_same_result() -> None:
    assert autoscaled(burst()).timeline == autoscaled(burst()).timeline


def test_a_warm_up_below_zero_is_refused() -> None:
    with pytest.raises(SimulationError, match="warm_up_s"):
        SimulationSettings(warm_up_s=-1.0)


def test_the_rate_follows_the_hours_of_a_day() -> None:
    arrivals = list(islice(day_arrivals(random.Random(1), 10.0, 2_400.0), 24_000))
    assert arrivals[-1] == pytest.approx(2_400.0, rel=0.05)
    by_hour = [sum(100.0 * h <= at < 100.0 * (h + 1) for at in arrivals) for h in range(24)]
    between = [(HOURS[h] + HOURS[(h + 1) % 24]) / 2 / MEAN * 1_000 for h in range(24)]
    assert by_hour == pytest.approx(between, rel=0.2)


@pytest.mark.parametrize(("rate", "day_s"), [(0.0, 100.0), (1.0, 0.0), (float("inf"), 1.0)])
def test_a_day_without_length_or_requests_is_refused(rate: float, day_s: float) -> None:
    with pytest.raises(ValueError, match="both must be above 0"):
        next(day_arrivals(random.Random(1), rate, day_s))


def test_a_workload_follows_a_day_only_where_it_makes_the_trace() -> None:
    made = Workload(requests=100, day_s=50.0).trace(rate=2.0, seed=1)
    assert made != Workload(requests=100).trace(rate=2.0, seed=1)
    with pytest.raises(ValueError, match="its own times of day"):
        Workload(replayed=tuple(made), day_s=50.0)
    with pytest.raises(ValueError, match="not above 0"):
        Workload(requests=1, day_s=0.0)
