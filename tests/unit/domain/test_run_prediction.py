"""A run is predicted by the formulas that candidates are scored by."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.capacity.accounts import figures_of
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.placement.run_prediction import predict_run
from tests.contract.policies.modelled_fleet import add_instance, make_facts, make_request, make_scheduler


@pytest.mark.parametrize("load", range(6))
@pytest.mark.parametrize(("prompt", "output"), [(1, 1), (300, 1), (7, 500)])
def test_a_run_is_predicted_as_its_instance_is_scored(load: int, prompt: int, output: int) -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "i0", facts=make_facts(max_running=4), price_per_hour=3.0)
    for n in range(load):
        scheduler.enqueue(make_request(n, prompt=100 + n, output=50), 0.0)
    scheduler.schedule(0.0)
    account, now = scheduler.instance("i0").account, 0.001
    demand = Demand(
        request=make_request("next", prompt=prompt, output=output),
        prompt_tokens=prompt,
        output_tokens=output,
        tokens=prompt + output,
        total_tokens=prompt + output,
        started=False,
        must_leave_reserve=False,
    )

    predicted = predict_run(account, demand, now)

    starts = scorers.start_s([account], now)
    firsts = scorers.first_token_s([account], demand, starts)
    per_token = scorers.token_s([account], demand)
    assert [predicted.start_s, predicted.first_token_s] == [*starts, *firsts]
    assert [predicted.finish_s] == [*scorers.finish_s(demand, firsts, per_token)]
    assert [predicted.cost] == [*scorers.cost([account], demand, per_token)]
    prefills = scorers.prefill_s([account], demand)
    first_steps = scorers.first_step_s(figures_of([account]), now)
    assert first_steps + prefills == pytest.approx([predicted.first_token_s])
