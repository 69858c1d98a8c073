"""The scheduler as control sees it."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.errors import InstanceNotFound, LimitReached, NoInstance, QueueFull, UnknownPolicy
from scheduler_svc.domain.expected_wait import UNKNOWN_WAIT_S
from scheduler_svc.domain.instance_spec import InstanceRole, InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.request import Priority, RequestKey, Sampling, StructuredOutput
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import MODEL, add_instance, make_facts, make_request, make_scheduler

REGEX = StructuredOutput(kind="regex", value="a")


def key(request_id: object) -> RequestKey:
    return RequestKey(tenant="t", request_id=str(request_id))


def because(scheduler: Scheduler, request_id: object, now: float = 0.0) -> str:
    view = scheduler.position(key(request_id), now)
    assert view is not None
    return view.because


# --- instances --------------------------------------------------------------------------------------


def test_an_engine_that_is_ready_serves() -> None:
    scheduler = make_scheduler()
    scheduler.register(InstanceSpec(instance_id="i0", model=MODEL, engine_start_id="1"), 0.0)
    assert scheduler.ready_instances(MODEL) == []

    scheduler.engine_ready("i0", make_facts(), 1.0)

    assert [i.instance_id for i in scheduler.ready_instances(MODEL)] == ["i0"]


def test_an_instance_that_drains_stays_so_when_its_engine_says_ready() -> None:
    scheduler = make_scheduler(instances=1)
    scheduler.transition("i0", InstanceState.DRAINING, "", 1.0)

    assert scheduler.engine_ready("i0", make_facts(), 2.0).state is InstanceState.DRAINING

    scheduler.transition("i0", InstanceState.SUSPECT, "", 3.0)
    assert scheduler.engine_ready("i0", make_facts(), 4.0).state is InstanceState.DRAINING


def test_a_stalled_instance_does_not_become_ready_by_saying_so() -> None:
    scheduler = make_scheduler(instances=1)
    scheduler.transition("i0", InstanceState.STALLED, "", 1.0)

    assert scheduler.engine_ready("i0", make_facts(), 2.0).state is InstanceState.STALLED


def test_a_new_engine_is_learned_anew_and_the_same_one_is_not() -> None:
    scheduler = make_scheduler(instances=1)
    predictor = scheduler.instance("i0").predictor

    scheduler.engine_ready("i0", make_facts(), 1.0)
    assert scheduler.instance("i0").predictor is predictor

    scheduler.register(InstanceSpec(instance_id="i0", model=MODEL, engine_start_id="2"), 2.0)
    scheduler.engine_ready("i0", make_facts(), 3.0)
    assert scheduler.instance("i0").predictor is not predictor


def test_what_a_lost_instance_ran_is_told_and_its_room_is_free() -> None:
    scheduler = make_scheduler(instances=2)
    for n in range(4):
        scheduler.enqueue(make_request(n), 0.0)
    decisions = scheduler.schedule(0.0)

    lost = scheduler.lose("i0", "its executor died", 1.0)

    assert lost == [d.attempt_number for d in decisions if d.instance_id == "i0"]
    assert scheduler.live_attempts() == 2
    assert not scheduler.release(lost[0], 2.0, output_tokens=None, finished=False)


def test_room_that_a_loss_freed_is_used_at_the_next_pass() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "i0", facts=make_facts(max_running=1))
    for n in range(3):
        scheduler.enqueue(make_request(n), 0.0)
    assert len(scheduler.schedule(0.0)) == 2

    scheduler.lose("i0", "its work was abandoned", 1.0)

    assert [d.key for d in scheduler.schedule(1.0)] == [key(2)]


def test_an_unknown_instance_is_an_error() -> None:
    scheduler = make_scheduler()
    load = LoadReport(number=1, last_assign=0, running=0, waiting=0, unfinished=0, kv_used_tokens=0, iterations=0)
    for call in (
        lambda: scheduler.report("nobody", load, 0.0),
        lambda: scheduler.lose("nobody", "", 0.0),
        lambda: scheduler.engine_ready("nobody", make_facts(), 0.0),
        lambda: scheduler.accuracy("nobody"),
    ):
        with pytest.raises(InstanceNotFound):
            call()


# --- queueing ---------------------------------------------------------------------------------------


def test_a_full_queue_refuses_what_is_new_and_takes_what_was_accepted_before() -> None:
    scheduler = make_scheduler(queue_limit_per_model=2)
    for n in range(2):
        scheduler.enqueue(make_request(n), 0.0)

    with pytest.raises(QueueFull) as full:
        scheduler.enqueue(make_request("new"), 0.0)
    assert full.value.expected_wait_s == UNKNOWN_WAIT_S
    scheduler.enqueue(make_request("resumed"), 0.0, emitted_tokens=1, resumed=True)

    assert scheduler.waiting(MODEL) == 3


def test_one_model_s_full_queue_does_not_concern_another() -> None:
    scheduler = make_scheduler(queue_limit_per_model=1)
    scheduler.enqueue(make_request(1, model="a"), 0.0)

    scheduler.enqueue(make_request(2, model="b"), 0.0)

    assert {model: view.waiting for model, view in scheduler.queues().items()} == {"a": 1, "b": 1}


def test_no_more_models_than_the_bound() -> None:
    scheduler = make_scheduler(max_models=1)
    scheduler.enqueue(make_request(1, model="a"), 0.0)

    with pytest.raises(LimitReached):
        scheduler.enqueue(make_request(2, model="b"), 0.0)


def test_a_request_waits_once() -> None:
    scheduler = make_scheduler()
    scheduler.enqueue(make_request(1), 0.0)

    with pytest.raises(ValueError, match="waits already"):
        scheduler.enqueue(make_request(1), 0.0)
    assert scheduler.waiting(MODEL) == 1


def test_a_withdrawn_request_is_not_placed() -> None:
    scheduler = make_scheduler(instances=1)
    scheduler.enqueue(make_request(1), 0.0)

    assert scheduler.withdraw(key(1), 1.0)
    assert not scheduler.withdraw(key(1), 1.0)
    assert scheduler.schedule(0.0) == []


def test_a_queue_counts_its_classes() -> None:
    scheduler = make_scheduler()
    for n, priority in enumerate((Priority.LOW, Priority.LOW, Priority.HIGH)):
        scheduler.enqueue(make_request(n, priority=priority), 0.0)

    view = scheduler.queues()[MODEL]

    assert (view.waiting, view.limit) == (3, 10_000)
    assert view.by_priority[Priority.LOW] == 2
    assert view.by_priority[Priority.CRITICAL] == 0


# --- scheduling -------------------------------------------------------------------------------------


def test_a_pass_stops_at_its_bound_and_says_that_there_is_more() -> None:
    scheduler = make_scheduler(max_decisions_per_pass=3)
    add_instance(scheduler, "i0", facts=make_facts(max_running=64))
    for n in range(7):
        scheduler.enqueue(make_request(n), 0.0)

    sizes = []
    while True:
        sizes.append(len(scheduler.schedule(0.0)))
        if not scheduler.more:
            break

    assert sizes == [3, 3, 1]


def test_models_take_turns_when_a_pass_is_too_short_for_all() -> None:
    scheduler = make_scheduler(max_decisions_per_pass=1)
    for model in ("a", "b", "c"):
        add_instance(scheduler, model, model=model)
        for n in range(3):
            scheduler.enqueue(make_request(f"{model}{n}", model=model), 0.0)

    first = [scheduler.schedule(0.0)[0].instance_id for _ in range(3)]

    assert sorted(first) == ["a", "b", "c"]


def test_nothing_is_looked_at_while_nothing_changed() -> None:
    scheduler = make_scheduler(instances=1)
    add_instance(scheduler, "i1", facts=make_facts(max_running=1))
    for n in range(20):
        scheduler.enqueue(make_request(n), 0.0)
    scheduler.schedule(0.0)

    assert scheduler.schedule(1.0) == []
    assert not scheduler.more


def test_each_model_goes_to_its_own_instances() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "a", model="a")
    add_instance(scheduler, "b", model="b")
    scheduler.enqueue(make_request(1, model="a"), 0.0)
    scheduler.enqueue(make_request(2, model="b"), 0.0)

    assert {d.key.request_id: d.instance_id for d in scheduler.schedule(0.0)} == {"1": "a", "2": "b"}


def test_a_decision_says_what_was_reserved_and_predicted() -> None:
    scheduler = make_scheduler(instances=1)
    scheduler.enqueue(make_request(1, prompt=30, output=40, arrived_at=1.0), 1.0)
    scheduler.enqueue(make_request(2, arrived_at=2.0), 2.0)

    decision = scheduler.schedule(3.5)[0]

    assert decision.reserved_tokens == 80, "70 tokens in blocks of 16"
    assert decision.waited_s == 2.5
    assert decision.decided_at == 3.5
    assert decision.queue_length == 1
    assert decision.prediction.output_tokens == 40
    assert 0 == decision.prediction.start_s < decision.prediction.first_token_s < decision.prediction.finish_s


def test_a_resumed_request_reserves_its_emitted_tokens_as_prompt() -> None:
    scheduler = make_scheduler(instances=1)

    scheduler.enqueue(make_request(1, prompt=30, output=40), 0.0, emitted_tokens=10, resumed=True)
    (decision,) = scheduler.schedule(0.0)

    assert decision.prediction.output_tokens == 30
    assert decision.reserved_tokens == 80, "30 + 10 + 30 in blocks of 16"


def test_after_enough_requests_the_learned_length_is_reserved() -> None:
    scheduler = make_scheduler(instances=1, output_min_samples=3)
    for n in range(4):
        scheduler.enqueue(make_request(n, prompt=16, output=1_000), 0.0)
        (decision,) = scheduler.schedule(0.0)
        scheduler.release(decision.attempt_number, 1.0, output_tokens=100, finished=True)

    assert decision.reserved_tokens == 128
    assert scheduler.output_coverage().count == 4


def test_what_ends_otherwise_teaches_no_length() -> None:
    scheduler = make_scheduler(instances=1, output_min_samples=1)
    scheduler.enqueue(make_request(1, output=1_000), 0.0)
    (decision,) = scheduler.schedule(0.0)

    scheduler.release(decision.attempt_number, 1.0, output_tokens=3, finished=False)

    assert scheduler.output_coverage().count == 0


def test_a_request_that_writes_more_than_predicted_takes_more_room() -> None:
    scheduler = make_scheduler(instances=1, output_min_samples=1)
    for n, output in enumerate((10, None)):
        scheduler.enqueue(make_request(n, prompt=16, output=1_000), 0.0)
        (decision,) = scheduler.schedule(0.0)
        if output is not None:
            scheduler.release(decision.attempt_number, 0.0, output_tokens=output, finished=True)
    account = scheduler.instance("i0").account
    assert account.kv.reserved_tokens == 32

    scheduler.progress(decision.attempt_number, 500)

    assert account.kv.reserved_tokens == 544, "in whole blocks, with the next tokens"
    scheduler.progress(decision.attempt_number, 501)
    assert account.kv.reserved_tokens == 544, "in whole blocks, with the next tokens"


def test_predictions_are_checked_against_what_came() -> None:
    scheduler = make_scheduler(instances=1)
    scheduler.enqueue(make_request(1, output=11), 0.0)
    (decision,) = scheduler.schedule(0.0)
    scheduler.first_token(decision.attempt_number, decision.prediction.first_token_s + 0.5)
    scheduler.first_token(decision.attempt_number, 99.0)
    scheduler.release(decision.attempt_number, decision.prediction.finish_s - 0.01, output_tokens=11, finished=True)

    accuracy = scheduler.accuracy("i0")

    assert (accuracy["first_token"].count, accuracy["finish"].count) == (1, 1)
    assert accuracy["first_token"].bias_s == pytest.approx(-0.5)
    assert accuracy["finish"].bias_s == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("first_token_s", "end_s", "late"),
    [(0.9, 1.9, 0), (1.1, 2.0, 1), (0.9, 2.1, 1)],
    ids=["in time", "late first token", "slow tokens"],
)
def test_requests_that_miss_a_target_are_counted(first_token_s: float, end_s: float, late: int) -> None:
    scheduler = make_scheduler(instances=1)
    scheduler.enqueue(make_request(1, output=11, ttft_target_s=1.0, tpot_target_s=0.11), 0.0)
    (decision,) = scheduler.schedule(0.0)

    scheduler.first_token(decision.attempt_number, first_token_s)
    scheduler.release(decision.attempt_number, end_s, output_tokens=11, finished=True)

    assert scheduler.instance("i0").account.late == late


def test_calls_about_attempts_that_are_over_change_nothing() -> None:
    scheduler = make_scheduler(instances=1)

    scheduler.first_token(7, 0.0)
    scheduler.progress(7, 10)

    assert not scheduler.assigned(7, 1)
    assert not scheduler.release(7, 0.0, output_tokens=None, finished=True)


# --- why it waits -----------------------------------------------------------------------------------


def test_without_a_ready_instance_it_says_what_there_is() -> None:
    scheduler = make_scheduler()
    scheduler.register(InstanceSpec(instance_id="i0", model=MODEL), 0.0)
    scheduler.transition("i0", InstanceState.LOADING, "", 0.0)
    scheduler.enqueue(make_request(1), 0.0)
    scheduler.schedule(0.0)

    assert because(scheduler, 1) == "no READY instance of 'tiny': 1 loading"


def test_where_all_are_full_it_says_so() -> None:
    scheduler = make_scheduler(instances=3)
    for n in range(16):
        scheduler.enqueue(make_request(n), 0.0)
    scheduler.schedule(0.0)

    assert because(scheduler, 15) == "all 3 instances full: no slot free"


def test_where_kv_tokens_are_short_it_says_how_many_are_needed() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "i0", facts=make_facts(kv_capacity_tokens=1_024, max_model_len=1_024))
    scheduler.enqueue(make_request(1, prompt=600, output=100), 0.0)
    scheduler.enqueue(make_request(2, prompt=600, output=100), 0.0)
    scheduler.schedule(0.0)

    assert because(scheduler, 2) == "instance i0 full: 700 KV tokens needed, at most 320 free"


def test_behind_a_claim_it_says_whose() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "i0", facts=make_facts(kv_capacity_tokens=1_024, max_model_len=1_024))
    scheduler.enqueue(make_request("runs", prompt=600, output=100), 0.0)
    scheduler.enqueue(make_request("big", prompt=900, output=100), 0.0)
    scheduler.enqueue(make_request("small", prompt=20, output=280), 0.0)
    scheduler.schedule(0.0)

    assert because(scheduler, "small") == "t/big is ahead and claims capacity on i0"


def test_what_fits_beside_the_claim_goes_ahead_and_says_so() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "i0", facts=make_facts(kv_capacity_tokens=2_048, max_model_len=2_048))
    scheduler.enqueue(make_request("runs", prompt=1_200, output=100), 0.0)
    scheduler.enqueue(make_request("big", prompt=900, output=100), 0.0)
    scheduler.enqueue(make_request("small", prompt=20, output=280), 0.0)

    runs, small = scheduler.schedule(0.0)

    assert (runs.key, small.key) == (key("runs"), key("small"))
    assert "backfilled ahead of t/big, which waits for capacity on i0" in small.reasons


@pytest.mark.parametrize(("policy", "overtakes"), [("fifo", False), ("slo_aware", True)])
def test_a_short_prompt_goes_before_a_long_one_that_waits_for_a_slot_unless_the_policy_keeps_order(
    policy: str, overtakes: bool
) -> None:
    """All slots are taken, and of the prompts that queue at the engine a long one does not fit beside the first."""
    scheduler = make_scheduler(policy)
    for instance_id in ("i0", "i1"):
        add_instance(scheduler, instance_id, facts=make_facts(max_running=16, max_batched_tokens=512))
    for n in range(34):
        scheduler.enqueue(make_request(n, prompt=16, output=8), 0.0)
    assert len(scheduler.schedule(0.0)) == 34
    scheduler.enqueue(make_request("long", prompt=510, output=8), 0.0)
    scheduler.enqueue(make_request("short", prompt=16, output=8), 0.0)

    placed = [decision.key.request_id for decision in scheduler.schedule(0.0)]

    assert placed == (["short"] if overtakes else [])


def theirs(request_id: str) -> RequestKey:
    return RequestKey(tenant="theirs", request_id=request_id)


def test_what_waits_behind_another_tenants_request_is_not_told_its_id() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "i0", facts=make_facts(kv_capacity_tokens=1_024, max_model_len=1_024))
    scheduler.enqueue(make_request("runs", prompt=600, output=100), 0.0)
    scheduler.enqueue(make_request("big", prompt=900, output=100, key=theirs("big")), 0.0)
    scheduler.enqueue(make_request("small", prompt=20, output=280), 0.0)
    scheduler.schedule(0.0)

    assert because(scheduler, "small") == "a request of another tenant is ahead and claims capacity on i0"


def test_what_goes_ahead_of_another_tenants_request_is_not_told_its_id() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "i0", facts=make_facts(kv_capacity_tokens=2_048, max_model_len=2_048))
    scheduler.enqueue(make_request("runs", prompt=1_200, output=100), 0.0)
    scheduler.enqueue(make_request("big", prompt=900, output=100, key=theirs("big")), 0.0)
    scheduler.enqueue(make_request("small", prompt=20, output=280), 0.0)

    _, small = scheduler.schedule(0.0)

    assert "backfilled ahead of a request of another tenant, which waits for capacity on i0" in small.reasons


def test_a_position_counts_from_one_and_none_is_told_of_who_does_not_wait() -> None:
    scheduler = make_scheduler()
    for n in range(3):
        scheduler.enqueue(make_request(n, arrived_at=float(n)), float(n))

    assert [scheduler.position(key(n), 3.0).position for n in range(3)] == [1, 2, 3]  # type: ignore[union-attr]
    assert scheduler.position(key("nobody"), 3.0) is None


# --- who can serve ----------------------------------------------------------------------------------


def test_what_no_instance_can_ever_serve_is_refused_with_reasons() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "i0", facts=make_facts(max_model_len=100, kv_capacity_tokens=64))

    assert scheduler.admit(make_request(1), 0.0) == ""
    with pytest.raises(NoInstance, match=r"no instance of 'other' is ready \(none registered\)"):
        scheduler.admit(make_request(2, model="other"), 0.0)
    for changes, words in (
        ({"adapter": "x"}, "adapter 'x'"),
        ({"prompt": 60, "output": 60}, "100 tokens of prompt and output; the request asks for 120"),
        ({"prompt": 60, "output": 20}, "KV capacity for 64 tokens; the request may take 80"),
        ({"sampling": Sampling(structured_output=REGEX)}, "does not constrain output by regex"),
    ):
        with pytest.raises(NoInstance, match=words):
            scheduler.admit(make_request(2, wait_for_instance=True, **changes), 0.0)
    assert scheduler.waiting(MODEL) == 1


def test_an_instance_that_is_still_loading_is_waited_for_by_those_who_asked_to_wait() -> None:
    scheduler = make_scheduler()
    scheduler.register(InstanceSpec(instance_id="i0", model=MODEL), 0.0)

    with pytest.raises(NoInstance, match=r"no instance of 'tiny' is ready \(1 downloading\)"):
        scheduler.admit(make_request(1, adapter="x"), 0.0)
    ahead = scheduler.admit(make_request(1, adapter="x", wait_for_instance=True), 0.0)

    assert ahead == "no instance is ready"
    assert scheduler.waiting(MODEL) == 1


def test_a_full_instance_is_waited_for_behind_the_others() -> None:
    scheduler = make_scheduler(instances=1)
    assert [scheduler.admit(make_request(n), 0.0) for n in range(3)] == ["", "1 others wait", "2 others wait"]
    for n in range(3, 5):
        scheduler.admit(make_request(n), 0.0)
    assert len(scheduler.schedule(0.0)) == 5

    ahead = scheduler.admit(make_request("x"), 0.0)

    assert ahead == "no slot is free on the instances that run whole requests (1)"


def test_what_is_refused_for_a_full_queue_is_told_how_long_to_wait() -> None:
    scheduler = make_scheduler(instances=1, queue_limit_per_model=1)
    scheduler.admit(make_request(1), 0.0)

    with pytest.raises(QueueFull):
        scheduler.admit(make_request(2), 0.0)


@pytest.mark.parametrize("state", [InstanceState.LOST, InstanceState.FAILED, InstanceState.DRAINING])
def test_an_instance_that_is_gone_or_going_serves_nothing(state: InstanceState) -> None:
    scheduler = make_scheduler(instances=1)
    scheduler.transition("i0", state, "", 0.0)

    with pytest.raises(NoInstance, match=f"1 {state.value}"):
        scheduler.admit(make_request(1), 0.0)


def test_an_embedding_instance_serves_no_generation() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "e", role=InstanceRole.EMBEDDING)

    with pytest.raises(NoInstance, match="e does not generate"):
        scheduler.admit(make_request(1), 0.0)


# --- how long ---------------------------------------------------------------------------------------


def test_with_a_free_slot_no_wait_is_expected() -> None:
    assert make_scheduler(instances=1).expected_wait(MODEL, 0.0) == 0


def test_the_expected_wait_grows_with_the_queue_and_is_learned() -> None:
    scheduler = make_scheduler(instances=2)
    for n in range(30):
        scheduler.enqueue(make_request(n), 0.0)
    running = scheduler.schedule(0.0)
    for decision in running[:4]:
        scheduler.release(decision.attempt_number, 8.0, output_tokens=32, finished=True)

    # twenty wait, eight slots, eight seconds each
    assert scheduler.waiting(MODEL) == 20
    assert scheduler.expected_wait(MODEL, 8.0) == pytest.approx(21.0)


# --- policy -----------------------------------------------------------------------------------------


def test_a_switch_keeps_everybody_and_is_remembered() -> None:
    scheduler = make_scheduler("fifo")
    for n in range(5):
        scheduler.enqueue(make_request(n, priority=Priority(5 - n)), 0.0)

    assert scheduler.set_policy("priority", 1.0, "operator") == ("fifo", 5)

    assert scheduler.policy == "priority"
    assert scheduler.delegate == ""
    assert scheduler.position(key(4), 1.0).position == 1  # type: ignore[union-attr]
    (switch,) = scheduler.switches
    assert (switch.from_policy, switch.to_policy, switch.reason, switch.at) == ("fifo", "priority", "operator", 1.0)


def test_an_unknown_policy_is_refused_and_changes_nothing() -> None:
    scheduler = make_scheduler("fifo")

    with pytest.raises(UnknownPolicy):
        scheduler.set_policy("best", 0.0, "")
    assert scheduler.policy == "fifo"
    assert not scheduler.switches


def test_setting_the_policy_in_force_is_no_switch() -> None:
    scheduler = make_scheduler("fifo")
    assert scheduler.set_policy("fifo", 1.0, "again") == ("fifo", 0)
    assert not scheduler.switches


def test_the_latest_switches_are_remembered() -> None:
    scheduler = make_scheduler("fifo", max_switches=3)
    for n in range(10):
        scheduler.set_policy(("fifo", "priority")[n % 2], float(n), str(n))

    assert [s.reason for s in scheduler.switches] == ["7", "8", "9"]


def test_a_queue_that_comes_after_a_switch_has_the_new_order() -> None:
    scheduler = make_scheduler("fifo")
    scheduler.set_policy("priority", 0.0, "")

    scheduler.enqueue(make_request("low", priority=Priority.LOW), 0.0)
    scheduler.enqueue(make_request("critical", priority=Priority.CRITICAL), 0.0)

    assert scheduler.position(key("critical"), 0.0).position == 1  # type: ignore[union-attr]


def test_a_quarantined_request_that_nobody_can_serve_holds_up_no_other() -> None:
    scheduler = make_scheduler(instances=1)
    scheduler.enqueue(make_request("unserved", adapter="unknown"), 0.0, alone=True)
    scheduler.enqueue(make_request("served"), 0.0, alone=True)

    assert [d.key.request_id for d in scheduler.schedule(0.0)] == ["served"]
    assert [o.key.request_id for o in scheduler.orphans(100.0, 60.0)] == ["unserved"]
