"""What the policies promise, on modelled engines: who is in time under bursts, what stays unused, whose KV grows."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.report import Summary, summarize
from sage_simulator.simulation import Simulation
from sage_simulator.simulation_settings import SimulationSettings
from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces import RequestClass, with_classes
from sage_simulator.traces.synthetic import (
    LognormalLengths,
    independent_requests,
    on_off_arrivals,
    poisson_arrivals,
)
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.settings import SchedulerSettings

HURRIED = (RequestClass(weight=1, ttft_target_s=1.0), RequestClass(weight=1, ttft_target_s=10.0))
LONG_PROMPTS = LognormalLengths(median=1_500, sigma=0.8, most=8_000)
SHORT_OUTPUTS = LognormalLengths(median=15, sigma=1.0, most=500)
CHAT_OUTPUTS = LognormalLengths(median=150, sigma=0.7, most=1_000)


def run(policy: str, trace: Sequence[TracedRequest], fleet: Sequence[InstanceModel]) -> Summary:
    settings = SimulationSettings(scheduler=SchedulerSettings(policy=policy))
    return summarize(Simulation(trace, fleet, settings).run())


def bursts(count: int = 500) -> list[TracedRequest]:
    """Long prompts at three times what two instances can prefill, for some seconds at a time."""
    rng = random.Random(1)
    arrivals = on_off_arrivals(rng, on_requests_per_s=60, off_requests_per_s=2, mean_on_s=5, mean_off_s=10)
    return with_classes(
        independent_requests(rng, arrivals, count, prompts=LONG_PROMPTS, outputs=SHORT_OUTPUTS), rng, HURRIED
    )


def steady(rate: float, count: int, classes: Sequence[RequestClass]) -> list[TracedRequest]:
    rng = random.Random(2)
    arrivals = poisson_arrivals(rng, rate)
    prompts = LognormalLengths(median=800, sigma=0.6, most=4_000)
    return with_classes(independent_requests(rng, arrivals, count, prompts=prompts, outputs=CHAT_OUTPUTS), rng, classes)


def test_under_bursts_the_ordering_decides_who_is_in_time() -> None:
    trace, fleet = bursts(), (InstanceModel(),) * 2

    by_arrival, by_slack = run("fifo", trace, fleet), run("slo_aware", trace, fleet)

    assert by_slack.in_target_share > 1.3 * by_arrival.in_target_share
    assert by_slack.span_s < 1.05 * by_arrival.span_s, "nothing stands idle for it"
    assert run("adaptive", trace, fleet).in_target_share > 0.95 * by_slack.in_target_share


def test_critical_requests_hardly_notice_an_overload() -> None:
    classes = (
        RequestClass(weight=1, priority=Priority.CRITICAL),
        RequestClass(weight=9, priority=Priority.BACKGROUND),
    )
    fleet = (InstanceModel(),) * 2

    result = Simulation(
        steady(45.0, 800, classes), fleet, SimulationSettings(scheduler=SchedulerSettings(policy="priority"))
    ).run()

    by_class = {
        priority: sorted(o.ttft_s or 0.0 for o in result.outcomes if o.request.priority is priority)
        for priority in (Priority.CRITICAL, Priority.BACKGROUND)
    }
    assert by_class[Priority.BACKGROUND][-1] > 2.0, "an overload it is"
    assert by_class[Priority.CRITICAL][-1] < 0.5


@pytest.mark.parametrize("policy", ["cost_optimized", "adaptive"])
def test_a_light_load_leaves_the_dearest_instance_unused(policy: str) -> None:
    fleet = tuple(InstanceModel(price_per_hour=price) for price in (1.0, 2.0, 9.0))

    summary = run(policy, steady(18.0, 900, (RequestClass(weight=1, ttft_target_s=2.0),)), fleet)

    assert [each.requests > 0 for each in summary.instances] == [True, True, False]
    assert summary.in_target_share >= 0.99


def test_the_cheapest_instances_carry_a_steady_load_within_targets() -> None:
    """The fastest instance costs most for its work: the others carry half of what all can do."""
    fleet = tuple(InstanceModel(speed=s, price_per_hour=p) for s, p in ((2.0, 7.0), (1.0, 2.5), (1.0, 2.5), (1.0, 2.4)))
    trace = steady(42.0, 4_000, (RequestClass(weight=1, ttft_target_s=2.0, tpot_target_s=0.05),))

    everywhere, gathered = run("fifo", trace, fleet), run("cost_optimized", trace, fleet)

    assert gathered.in_target_share >= 0.99
    assert gathered.cost < 0.8 * everywhere.cost


def test_no_policy_lets_an_engine_run_dry_under_load() -> None:
    """A few prompts of many steps among short ones: at the end of each there is another one."""
    rng = random.Random(3)
    prompts = LognormalLengths(median=6_000, sigma=0.5, most=16_000)
    trace = independent_requests(rng, poisson_arrivals(rng, 50.0), 150, prompts=prompts, outputs=SHORT_OUTPUTS)

    for policy in ("fifo", "slo_aware"):
        [instance] = run(policy, trace, (InstanceModel(),)).instances
        least_s = sum(each.prompt_tokens for each in trace) * 4e-5
        assert instance.used_s < 1.25 * least_s, policy
