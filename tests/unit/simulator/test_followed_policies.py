"""Which policies a simulation followed, from when to when, and why."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sage_simulator.fleet_spec import parse_instances
from sage_simulator.followed_policies import FollowedPolicy, shares
from sage_simulator.simulation import Simulation, SimulationResult
from sage_simulator.simulation_settings import SimulationSettings
from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.synthetic.lengths import FixedLength
from sage_simulator.traces.synthetic.stretches import Stretch, stretched_trace
from scheduler_svc.domain.settings import SchedulerSettings

QUIET_S, BUSY_S = 70.0, 20.0  # the dwell, 60 s, lies between two switches
FLEET = "1xspeed=1,price=5,slots=16;1xspeed=1,price=1,slots=16"


def quiet_then_busy() -> list[TracedRequest]:
    lengths = {"prompts": FixedLength(300), "outputs": FixedLength(60)}
    return stretched_trace(
        [Stretch(length_s=QUIET_S, rate=2, **lengths), Stretch(length_s=BUSY_S, rate=70, **lengths)], seed=1
    )


def simulated(policy: str, trace: list[TracedRequest], fleet: str = FLEET) -> SimulationResult:
    settings = SimulationSettings(scheduler=SchedulerSettings(policy=policy))
    return Simulation(trace, parse_instances(fleet), settings).run()


@pytest.fixture(scope="module")
def adapted() -> SimulationResult:
    return simulated("adaptive", quiet_then_busy())


def test_what_adaptive_follows_changes_with_the_load_at_the_times_of_its_switches(adapted: SimulationResult) -> None:
    first, *others = adapted.followed
    assert (first.policy, others[0].policy) == ("cost_optimized", "fifo")
    assert [each.at for each in adapted.switches] == [each.from_s for each in adapted.followed]
    assert all(each.reason and "model" not in each.reason for each in adapted.followed)
    assert others[0].from_s > QUIET_S


def test_the_times_of_a_model_follow_one_another_to_the_end(adapted: SimulationResult) -> None:
    assert all(before.until_s == after.from_s for before, after in pairwise(adapted.followed))
    assert adapted.followed[0].from_s == min(each.request.arrival_s for each in adapted.outcomes)
    assert adapted.followed[-1].until_s == adapted.ended_at


def test_a_policy_that_decides_itself_is_followed_throughout() -> None:
    result = simulated("fifo", quiet_then_busy()[:20])
    [only] = result.followed
    assert (only.policy, only.reason, only.until_s) == ("fifo", "", result.ended_at)


def test_each_model_follows_its_own() -> None:
    trace = [
        TracedRequest(arrival_s=n / 10, prompt_tokens=100, output_tokens=10, model=model)
        for n in range(20)
        for model in ("a", "b")
    ]
    priced = "1xmodel=a,price=5;1xmodel=a,price=1;2xmodel=b,price=2"
    assert {each.model: each.policy for each in simulated("adaptive", trace, priced).followed} == {
        "a": "cost_optimized",
        "b": "fifo",
    }


def test_shares_of_the_time_are_over_all_models_the_largest_first() -> None:
    def times(model: str, policy: str, from_s: float, until_s: float) -> FollowedPolicy:
        return FollowedPolicy(model=model, policy=policy, from_s=from_s, until_s=until_s, reason="")

    followed = [times("a", "fifo", 0, 10), times("b", "fifo", 0, 2), times("b", "slo_aware", 2, 30)]
    assert shares(followed) == {"slo_aware": pytest.approx(0.7), "fifo": pytest.approx(0.3)}
    assert shares([]) == {}
