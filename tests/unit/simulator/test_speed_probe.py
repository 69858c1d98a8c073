"""What a modelled executor measures of its engine before its first request."""

from __future__ import annotations

import pytest

from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.speed_probe import measured
from scheduler_svc.domain.prediction.pace import prior_pace
from scheduler_svc.domain.prediction.predictor import Predictor


@pytest.mark.parametrize("speed", [0.4, 1.0, 2.0])
def test_from_what_a_modelled_executor_measures_its_pace_is_known(speed: float) -> None:
    instance = InstanceModel(speed=speed)
    facts, pace = instance.facts(), instance.pace_here

    found = Predictor(prior_pace(facts), forgetting=0.995, measured=measured(facts, pace)).pace

    for step in ((0, 1, 2_000), (2_048, 1, 2_048), (1_024, 40, 50_000), (0, 64, 64_000)):
        assert found.iteration_s(*step) == pytest.approx(pace.iteration_s(*step), rel=0.06)
