"""Instances that change between prefill and decode while the shape of the load shifts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.outcome import End
from sage_simulator.simulation import Simulation, SimulationResult
from sage_simulator.simulation_settings import SimulationSettings, splitting
from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.synthetic.lengths import FixedLength
from sage_simulator.traces.synthetic.poisson_trace import poisson_trace
from scheduler_svc.domain.instance_spec import InstanceRole

STRETCH_S = 100.0
FLEET = [
    InstanceModel(speed=0.25, role=role) for role in (InstanceRole.PREFILLING, InstanceRole.DECODING) for _ in range(2)
]


def stretch(begin_s: float, rate: float, prompt: int, output: int, seed: int) -> list[TracedRequest]:
    requests = poisson_trace(
        requests=round(rate * STRETCH_S),
        rate=rate,
        seed=seed,
        prompts=FixedLength(tokens=prompt),
        outputs=FixedLength(tokens=output),
    )
    return [
        replace(each, arrival_s=begin_s + each.arrival_s, ttft_target_s=4.0, tpot_target_s=0.12) for each in requests
    ]


def played(trace: Sequence[TracedRequest], *, automatic: bool) -> SimulationResult:
    settings = SimulationSettings(scheduler=splitting("always"))
    return Simulation(trace, FLEET, settings.with_automatic_roles() if automatic else settings).run()


def in_target(result: SimulationResult) -> float:
    return sum(each.in_target for each in result.outcomes) / len(result.outcomes)


def test_a_load_whose_shape_shifts_is_served_in_target_where_roles_follow_it() -> None:
    trace = [*stretch(0.0, 4.0, 3_000, 40, seed=1), *stretch(STRETCH_S + 20.0, 6.0, 300, 300, seed=2)]
    trace.sort(key=lambda each: each.arrival_s)
    fixed, automatic = played(trace, automatic=False), played(trace, automatic=True)
    assert not fixed.role_changes
    assert [each.role for each in automatic.role_changes][:1] == [InstanceRole.PREFILLING]
    assert {each.end for each in automatic.outcomes} == {End.FINISHED}
    assert in_target(automatic) > in_target(fixed) + 0.1


def test_a_load_that_both_sides_carry_changes_nothing() -> None:
    trace = stretch(0.0, 2.0, 1_500, 150, seed=3)
    result = played(trace, automatic=True)
    assert not result.role_changes
    assert in_target(result) == 1.0
