"""The first token that is predicted at a placement against the one that comes, on a modelled engine."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import median

import pytest

from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.simulation import Simulation
from sage_simulator.simulation_settings import SimulationSettings
from sage_simulator.traces.synthetic import LognormalLengths, independent_requests, poisson_arrivals
from scheduler_svc.domain.prediction.pace import Pace
from scheduler_svc.domain.prediction.predictor import Predictor
from scheduler_svc.domain.settings import SchedulerSettings

#: Many sequences for a small step: output tokens take an eighth of it.
ENGINE = InstanceModel(
    max_running=64,
    max_batched_tokens=512,
    kv_capacity_tokens=128_000,
    pace=Pace(base_s=2e-3, prefill_token_s=4.5e-5, running_s=3e-4, kv_token_s=5e-8),
)
PROMPTS = LognormalLengths(median=900, sigma=0.6, most=3_000)
OUTPUTS = LognormalLengths(median=180, sigma=0.5, most=800)
LEARNING = 200  # requests, until the engine's pace is known


@pytest.mark.interpreted
@pytest.mark.parametrize("rate", [5.0, 12.0], ids=["slots are free", "slots are full"])
def test_first_tokens_come_when_they_were_predicted(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[float] = []
    monkeypatch.setattr(
        Predictor, "first_token_came", lambda _, predicted_s, came_s: errors.append(abs(predicted_s / came_s - 1))
    )
    rng = random.Random(2)
    drawn = independent_requests(rng, poisson_arrivals(rng, rate), 600, prompts=PROMPTS, outputs=OUTPUTS)
    trace = [replace(each, max_tokens=each.output_tokens) for each in drawn]
    Simulation(trace, (ENGINE,), SimulationSettings(scheduler=SchedulerSettings(policy="fifo"))).run()
    assert len(errors) == 600
    assert median(errors[LEARNING:]) < 0.15
