"""A request that is held back from the decode instances does not tell that these lack room."""

from __future__ import annotations

from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.pd.fallbacks import Fallback
from scheduler_svc.domain.pd.router import PhaseChoice
from scheduler_svc.domain.placement.split_planner import SplitPlan
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import (
    MEASURED,
    MODEL,
    add_instance,
    make_facts,
    make_request,
    make_scheduler,
)
from tests.unit.domain.pd.test_behind_the_head import PD, THRESHOLD

HELD = 40


def with_a_tight_stream(*, general: bool) -> Scheduler:
    """Make a scheduler with a pair, on whose decode instance one more would make a stream late."""
    scheduler = make_scheduler("slo_aware", pd=THRESHOLD)
    facts = make_facts(max_running=64, measured=MEASURED, **PD)
    add_instance(scheduler, "p", facts=facts, role=InstanceRole.PREFILLING)
    add_instance(scheduler, "d", facts=facts, role=InstanceRole.DECODING)
    (pair,) = scheduler.pairs()
    scheduler.handed_over(pair, 0.01)
    if general:
        add_instance(scheduler, "g", facts=make_facts(max_running=64, measured=MEASURED))
    scheduler.enqueue(make_request("tight", prompt=600, output=1_000, ttft_target_s=5.0, tpot_target_s=0.025), 0.0)
    (tight,) = scheduler.schedule(0.0)
    assert tight.prefill is not None
    for number in (1, 2):
        scheduler.first_token(number, 0.3)
    return scheduler


def loose(scheduler: Scheduler, name: str) -> None:
    """Have a request come that can wait."""
    request = make_request(name, prompt=600, priority=Priority.LOW, arrived_at=1.0, ttft_target_s=20.0)
    scheduler.enqueue(request, 1.0)


def test_one_that_runs_whole_instead_is_counted_as_held_back() -> None:
    scheduler = with_a_tight_stream(general=True)
    loose(scheduler, "loose")

    (decision,) = scheduler.schedule(1.0)

    assert decision.instance_id == "g"
    assert scheduler.split_counts().fallback_causes == {Fallback.HELD_BACK: 1}


def test_it_is_no_lack_of_room() -> None:
    phase = PhaseChoice(phase=Phase.DECODING, split=True, reason="")

    def lacks_room(cause: Fallback) -> bool:
        return SplitPlan(phase=phase, fallback="", fallback_cause=cause).lacks_room

    assert lacks_room(Fallback.NO_ROOM)
    assert not lacks_room(Fallback.HELD_BACK)


def test_where_only_a_pair_can_serve_them_they_wait_in_their_places() -> None:
    scheduler = with_a_tight_stream(general=False)
    for n in range(HELD):
        loose(scheduler, f"loose{n}")

    assert scheduler.schedule(1.0) == []
    (pool,) = scheduler._registry.pools()
    assert pool.queue is not None
    assert pool.queue.placeable == scheduler.waiting(MODEL) == HELD, "none is set aside"
