"""What varies by the seed, clients that cancel, and several models."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sage_simulator.fleet_capacity import load_capacity
from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.outcome import End
from sage_simulator.report import summarize
from sage_simulator.simulation import Simulation, SimulationResult
from sage_simulator.simulation_settings import SimulationError, SimulationSettings
from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.synthetic.poisson_trace import poisson_trace

TRACE = poisson_trace(requests=200, rate=10.0, seed=1)
FLEET = [InstanceModel()] * 2


def played(settings: SimulationSettings, trace: list[TracedRequest] = TRACE) -> SimulationResult:
    return Simulation(trace, FLEET, settings).run()


def test_noise_changes_times_by_its_seed_and_keeps_their_mean() -> None:
    calm, noisy, same, other = (
        played(SimulationSettings(noise=noise, seed=seed)) for noise, seed in ((0, 1), (0.3, 1), (0.3, 1), (0.3, 2))
    )
    assert noisy.outcomes == same.outcomes
    assert noisy.outcomes != other.outcomes
    assert noisy.outcomes != calm.outcomes
    step_s = [sum(each.engine.busy_s for each in run.executors) / sum(each.engine.steps for each in run.executors)
              for run in (calm, noisy)]  # fmt: skip
    assert step_s[1] == pytest.approx(step_s[0], rel=0.05)


def test_noise_has_bounds() -> None:
    with pytest.raises(SimulationError, match="noise"):
        SimulationSettings(noise=-0.1)


def test_a_cancelled_request_frees_its_slot_and_counts_neither_as_kept_nor_as_missed() -> None:
    one_slot = [InstanceModel(max_running=1)]
    trace = [
        TracedRequest(arrival_s=0.0, prompt_tokens=10, output_tokens=2_000, cancel_after_s=1.0),
        TracedRequest(arrival_s=0.1, prompt_tokens=10, output_tokens=2_000, cancel_after_s=0.5),
        TracedRequest(arrival_s=0.2, prompt_tokens=10, output_tokens=10, cancel_after_s=100.0),
    ]
    result = Simulation(trace, one_slot, SimulationSettings()).run()
    assert [each.end for each in result.outcomes] == [End.CANCELLED, End.CANCELLED, End.FINISHED]
    assert result.outcomes[1].first_token_at is None
    assert 1.0 < (result.outcomes[2].first_token_at or 0) < 1.1
    summary = summarize(result)
    assert (summary.in_target_share, summary.ends["cancelled"]) == (1.0, 2)


def mixed() -> list[TracedRequest]:
    return [replace(each, model="small" if n % 2 else "large") for n, each in enumerate(TRACE)]


def test_each_model_has_its_instances() -> None:
    fleet = [InstanceModel(model="small"), InstanceModel(model="large", speed=0.5)]
    result = Simulation(mixed(), fleet, SimulationSettings()).run()
    assert {(each.request.model, each.instance_id) for each in result.outcomes} == {
        ("small", "i000"),
        ("large", "i001"),
    }
    assert all(each.end is End.FINISHED for each in result.outcomes)


def test_an_instance_without_a_model_is_refused_where_there_are_several() -> None:
    with pytest.raises(SimulationError, match="requests for large, small"):
        Simulation(mixed(), [InstanceModel(model="small"), InstanceModel()], SimulationSettings())


def test_requests_for_a_model_without_an_instance_are_refused() -> None:
    result = Simulation(mixed(), [InstanceModel(model="small")], SimulationSettings()).run()
    assert {each.end for each in result.outcomes if each.request.model == "large"} == {End.REFUSED}


def test_the_capacity_for_several_models_is_set_by_the_one_that_is_full_first() -> None:
    small, large = InstanceModel(model="small"), InstanceModel(model="large")
    requests = [
        TracedRequest(arrival_s=0.0, prompt_tokens=500, output_tokens=100, model=model)
        for model in ("small", "small", "small", "large")
    ]
    alone = load_capacity([small], [each for each in requests if each.model == "small"])
    assert load_capacity([small, large], requests) == pytest.approx(alone * 4 / 3)
    assert load_capacity([small], requests) == 0.0
