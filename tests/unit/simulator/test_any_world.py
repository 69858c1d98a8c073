"""Whatever the fleet, the trace and the events: each request ends once, and nothing stays taken."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from sage_simulator.fleet_event import FleetChange, FleetEvent, instance_id_of
from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.kv_transfer import KvTransfer
from sage_simulator.outcome import End
from sage_simulator.report import summarize
from sage_simulator.simulation import Simulation
from sage_simulator.simulation_settings import SimulationSettings, splitting
from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.policies.builtin import BUILTIN
from scheduler_svc.domain.request import Priority

ROLES = [role for role in InstanceRole if not role.embeds]
times = st.integers(0, 3_000).map(lambda ms: ms / 1_000)
instances = st.builds(
    InstanceModel,
    role=st.sampled_from(ROLES),
    speed=st.sampled_from([0.3, 1.0, 2.0]),
    kv_capacity_tokens=st.sampled_from([2_000, 8_000]),
    max_running=st.sampled_from([1, 2, 8]),
    max_batched_tokens=st.sampled_from([64, 512]),
)
requests = st.builds(
    TracedRequest,
    arrival_s=times,
    prompt_tokens=st.integers(1, 1_500),
    output_tokens=st.integers(1, 200),
    block_hashes=st.sampled_from([(), (1,), (1, 2), (3,)]),
    block_tokens=st.just(100),
    priority=st.sampled_from(Priority),
    ttft_target_s=st.sampled_from([None, 0.1]),
    deadline_s=st.sampled_from([None, 0.2, 5.0]),
    cancel_after_s=st.none() | times,
    max_tokens=st.just(250),
)


def events(fleet: int) -> st.SearchStrategy[FleetEvent]:
    names = st.integers(0, fleet - 1).map(instance_id_of)
    leaving = st.sampled_from([FleetChange.FAIL, FleetChange.DRAIN])
    joining = st.builds(FleetEvent, at_s=times, change=st.just(FleetChange.ADD), added=st.tuples(instances))
    return st.builds(FleetEvent, at_s=times, change=leaving, instance_id=names) | joining


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_request_ends_once_and_nothing_stays_taken(data: st.DataObject) -> None:
    fleet = data.draw(st.lists(instances, min_size=1, max_size=5))
    trace = data.draw(st.lists(requests, min_size=1, max_size=25))
    trace = [replace(each, block_hashes=each.block_hashes[: each.prompt_tokens // 100]) for each in trace]
    trace.sort(key=lambda each: each.arrival_s)
    mode = data.draw(st.sampled_from(["never", "always", "threshold", "adaptive"]))
    world = SimulationSettings(
        scheduler=replace(splitting(mode), policy=data.draw(st.sampled_from(sorted(BUILTIN)))),
        kv_transfer=KvTransfer(latency_s=data.draw(st.sampled_from([0.0, 0.05])), bytes_per_s=2e9),
        noise=data.draw(st.sampled_from([0.0, 0.5])),
        events=tuple(data.draw(st.lists(events(len(fleet)), max_size=4))),
        default_deadline_s=100.0,
    )
    simulation = Simulation(trace, fleet, world)

    result = simulation.run()

    assert [each.request for each in result.outcomes] == trace
    assert simulation.scheduler.live_attempts() == 0
    assert simulation.scheduler.waiting("model") == 0
    for executor in result.executors:
        if executor.up:
            engine = executor.engine
            assert (engine.running, engine.waiting, engine.kv_used_tokens) == (0, 0, 0)
    for each in result.outcomes:
        assert (each.end is End.FINISHED) == (each.output_tokens == each.request.output_tokens)
        assert each.attempts <= 5
        assert each.end is not End.CANCELLED or each.request.cancel_after_s is not None
    summary = summarize(result)
    assert sum(summary.ends.values()) == summary.requests
    assert 0 <= summary.in_target_share <= 1
    assert all(0 <= each.utilisation <= 1 for each in summary.instances)
