"""Which states may follow which: the table, and what takes an instance from one to the next."""

from __future__ import annotations

from itertools import permutations

import pytest

from scheduler_svc.domain.errors import InvalidTransition, NoInstance
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import GONE, STARTING, TRANSITIONS, InstanceState
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import make_facts, make_request, make_scheduler, put_in_state

S = InstanceState

#: Every allowed pair, and what asks for it.
REASONS: dict[tuple[InstanceState, InstanceState], str] = {
    **dict.fromkeys(permutations(STARTING, 2), "its executor reports where its engine is"),
    **{(before, S.READY): "its engine is up" for before in STARTING},
    (S.READY, S.SUSPECT): "a stream breaks, its lease is half over, or attempts fail in a row",
    (S.READY, S.STALLED): "it holds work and does no iteration",
    (S.READY, S.DRAINING): "an operator or its executor drains it",
    (S.SUSPECT, S.READY): "it recovers",
    (S.SUSPECT, S.DRAINING): "it recovers to its drain, or is drained meanwhile",
    (S.STALLED, S.READY): "it recovers",
    (S.STALLED, S.DRAINING): "it recovers to its drain, or is drained meanwhile",
    (S.DRAINING, S.READY): "the drain is lifted",
    (S.DRAINING, S.DRAINED): "nothing is in flight any more",
    (S.DRAINING, S.SUSPECT): "a stream breaks",
    (S.DRAINING, S.STALLED): "it holds work and does no iteration",
    (S.DRAINED, S.READY): "the drain is lifted",
    (S.DRAINED, S.SLEEPING): "its engine is put to sleep",
    **{(before, S.SLEEPING): "its executor comes back with an engine that sleeps" for before in (S.READY, S.SUSPECT)},
    (S.SLEEPING, S.READY): "its engine is awake",
    (S.SLEEPING, S.DRAINED): "its engine is awake, and an operator's drain holds",
    **{(before, S.LOST): "its executor is gone" for before in S if before not in GONE},
    **{(before, S.FAILED): "its executor reports that its engine died" for before in S if before not in GONE},
    (S.LOST, S.DOWNLOADING): "it registers again",
    **{(S.FAILED, after): "it registers again or starts its engine again" for after in STARTING},
}


def test_every_allowed_pair_has_its_reason_and_no_other_is_allowed() -> None:
    allowed = {(before, after) for before, afters in TRANSITIONS.items() for after in afters}

    assert set(TRANSITIONS) == set(InstanceState)
    assert allowed == set(REASONS)
    assert len(allowed) == 48, "the number that the table's comment gives"


@pytest.mark.parametrize("before", InstanceState)
@pytest.mark.parametrize("after", InstanceState)
def test_a_transition_follows_the_table(before: InstanceState, after: InstanceState) -> None:
    instance = Instance(InstanceSpec(instance_id="i0", model="m"), 0.0)
    instance._state = before

    if after is before or (before, after) in REASONS:
        instance.transition(after, "why", 2.0)
        assert instance.state is after
        assert instance.state_reason == "why"
    else:
        with pytest.raises(InvalidTransition, match=rf"{before.value}.*{after.value}"):
            instance.transition(after, "why", 2.0)
        assert (instance.state, instance.state_reason, instance.state_since) == (before, "registered", 0.0)


@pytest.mark.parametrize("state", InstanceState)
def test_every_state_is_reached_from_every_other(state: InstanceState) -> None:
    for before in InstanceState:
        scheduler = make_scheduler(instances=1)
        put_in_state(scheduler, "i0", before)
        put_in_state(scheduler, "i0", state)
        assert scheduler.instance("i0").state is state


@pytest.mark.parametrize("before", InstanceState)
def test_what_becomes_of_an_instance_whose_engine_says_it_is_ready(before: InstanceState) -> None:
    scheduler = make_scheduler(instances=1)
    put_in_state(scheduler, "i0", before)
    if before is S.LOST:
        with pytest.raises(InvalidTransition, match="lost"):
            scheduler.engine_ready("i0", make_facts(), 1.0)
        return
    stays = {S.DRAINING, S.DRAINED, S.STALLED, S.SLEEPING}

    assert scheduler.engine_ready("i0", make_facts(), 1.0).state is (before if before in stays else S.READY)


@pytest.mark.parametrize("before", InstanceState)
def test_a_new_engine_starts_over_whatever_became_of_the_old_one(before: InstanceState) -> None:
    scheduler = make_scheduler(instances=1)
    put_in_state(scheduler, "i0", before)

    instance = register(scheduler, engine_start_id="2")

    assert (instance.state, instance.facts) == (S.DOWNLOADING, None)


@pytest.mark.parametrize("before", InstanceState)
def test_a_reconnect_of_the_same_engine_changes_the_state_only_of_an_instance_that_was_gone(
    before: InstanceState,
) -> None:
    scheduler = make_scheduler(instances=1)
    put_in_state(scheduler, "i0", before)

    assert register(scheduler, engine_start_id="1").state is (S.DOWNLOADING if before in GONE else before)


def test_an_instance_that_sleeps_counts_for_nothing_and_is_hoped_for() -> None:
    scheduler = make_scheduler(instances=1)
    now_or_never, patient = make_request("now"), make_request("later", wait_for_instance=True)
    put_in_state(scheduler, "i0", S.SLEEPING)

    with pytest.raises(NoInstance, match="1 sleeping"):
        scheduler.admit(now_or_never, 1.0)
    scheduler.admit(patient, 1.0)
    assert scheduler.schedule(1.0) == []

    scheduler.transition("i0", S.READY, "its engine is awake", 2.0)
    assert [each.instance_id for each in scheduler.schedule(2.0)] == ["i0"]


def test_an_instance_that_stalls_and_does_iterations_again_goes_there_and_back() -> None:
    scheduler = make_scheduler(instances=1)
    for now, iterations, expected in ((1.0, 5, S.READY), (12.0, 5, S.STALLED), (13.0, 6, S.READY)):
        scheduler.report("i0", busy(iterations), now)
        scheduler.check_health(now)
        assert scheduler.instance("i0").state is expected


def register(scheduler: Scheduler, *, engine_start_id: str) -> Instance:
    return scheduler.register(InstanceSpec(instance_id="i0", model="tiny", engine_start_id=engine_start_id), 1.0)


def busy(iterations: int) -> LoadReport:
    """A heartbeat of an engine that holds one request."""
    return LoadReport(
        number=1,
        last_assign=0,
        running=1,
        waiting=0,
        unfinished=1,
        kv_used_tokens=0,
        iterations=iterations,
    )
