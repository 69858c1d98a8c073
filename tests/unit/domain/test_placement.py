"""Where a request goes, and what is said of the instances it did not go to."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler_svc.domain.decision import Candidate, Decision
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.load_report import IterationSample
from scheduler_svc.domain.objectives.picker import pick
from scheduler_svc.domain.placement.candidates import CandidateTable
from scheduler_svc.domain.prediction.fading import FADES_AFTER_S
from scheduler_svc.domain.request import Embedding, Priority, Sampling, StructuredOutput
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.targets import DEFAULT_TARGETS
from tests.contract.policies.modelled_fleet import (
    MODEL,
    add_instance,
    make_facts,
    make_load,
    make_request,
    make_scheduler,
)

C, H, N, L, B = Priority


def place(scheduler: Scheduler, request_id: str = "r", now: float = 0.0, **changes: Any) -> Decision:
    scheduler.enqueue(make_request(request_id, arrived_at=now, **changes), now)
    (decision,) = scheduler.schedule(now)
    return decision


def row(decision: Decision, instance_id: str) -> Candidate:
    return next(c for c in decision.candidates if c.instance_id == instance_id)


def teach(scheduler: Scheduler, instance_id: str, *, token_s: float, prefill_token_s: float = 1e-4) -> None:
    """The engine reports iterations of this pace."""
    for beat in range(10):
        samples = tuple(
            IterationSample(
                prefill_tokens=p,
                decode_tokens=r,
                running=r,
                kv_used_tokens=100 * r,
                elapsed_s=token_s + prefill_token_s * p,
            )
            for n in range(16)
            for p, r in [(n % 5 * 100, 1 + n % 7)]
        )
        scheduler.report(instance_id, make_load(beat, samples), 0.0)


# --- filters ----------------------------------------------------------------------------------------


def test_only_an_instance_with_the_adapter_will_do() -> None:
    scheduler = make_scheduler(instances=2)
    add_instance(scheduler, "lora", facts=make_facts(adapters=frozenset({"x"})))

    decision = place(scheduler, adapter="x")

    assert decision.instance_id == "lora"
    assert row(decision, "i0").filtered_by == "adapter"
    assert "'x'" in row(decision, "i0").filter_reason


def test_only_an_engine_that_constrains_output_so_will_do() -> None:
    scheduler = make_scheduler(instances=1)
    add_instance(scheduler, "guided", facts=make_facts(structured_output_kinds=frozenset({"regex"})))

    decision = place(scheduler, sampling=Sampling(structured_output=StructuredOutput(kind="regex", value="a+")))

    assert decision.instance_id == "guided"
    assert row(decision, "i0").filtered_by == "structured_output"


def test_only_an_instance_of_sufficient_length_will_do() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "short", facts=make_facts(max_model_len=100))
    add_instance(scheduler, "small", facts=make_facts(kv_capacity_tokens=112))
    add_instance(scheduler, "large")

    decision = place(scheduler, prompt=100, output=20)

    assert decision.instance_id == "large"
    assert row(decision, "short").filtered_by == "model_length"
    assert row(decision, "small").filtered_by == "kv_capacity"


def test_an_instance_that_failed_the_request_is_avoided() -> None:
    scheduler = make_scheduler(instances=2)

    scheduler.enqueue(make_request(1), 0.0, excluded=frozenset({"i0"}), resumed=True)
    (decision,) = scheduler.schedule(0.0)

    assert decision.instance_id == "i1"
    assert row(decision, "i0").filtered_by == "excluded"


def test_the_only_instance_is_taken_though_it_failed_the_request() -> None:
    scheduler = make_scheduler(instances=1)

    scheduler.enqueue(make_request(1), 0.0, excluded=frozenset({"i0"}), resumed=True)

    assert [d.instance_id for d in scheduler.schedule(0.0)] == ["i0"]


def test_an_avoided_instance_is_not_taken_because_the_others_are_full() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "failed")
    add_instance(scheduler, "other", facts=make_facts(max_running=1))
    for n in range(2):
        place(scheduler, f"filler{n}", preferred_instance="other")

    scheduler.enqueue(make_request(1), 0.0, excluded=frozenset({"failed"}), resumed=True)

    assert scheduler.schedule(0.0) == []


@pytest.mark.parametrize("role", [InstanceRole.PREFILLING, InstanceRole.DECODING, InstanceRole.EMBEDDING])
def test_whole_requests_go_to_instances_meant_for_them(role: InstanceRole) -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "a", role=role)
    add_instance(scheduler, "b")

    decision = place(scheduler)

    assert decision.instance_id == "b"
    assert row(decision, "a").filtered_by == "role"


def test_for_want_of_others_a_decoding_instance_runs_whole_requests_and_says_so() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "d", role=InstanceRole.DECODING)

    decision = place(scheduler)

    assert any("for want of" in r or "meant for legs" in r for r in decision.reasons)


@pytest.mark.parametrize("dimensions", [0, 64])
def test_an_embedding_instance_never_generates(dimensions: int) -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "e", facts=make_facts(embedding_dimensions=dimensions), role=InstanceRole.EMBEDDING)
    scheduler.enqueue(make_request(1), 0.0)

    assert scheduler.schedule(0.0) == []


def test_an_input_goes_to_an_instance_that_embeds() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "short", facts=make_facts(embedding_dimensions=32), role=InstanceRole.EMBEDDING)
    add_instance(scheduler, "long", facts=make_facts(embedding_dimensions=64), role=InstanceRole.EMBEDDING)
    scheduler.enqueue(make_request(1, embedding=Embedding(dimensions=48)), 0.0)

    assert [decision.instance_id for decision in scheduler.schedule(0.0)] == ["long"]


def test_where_others_generate_under_the_same_name_nothing_is_embedded_and_it_is_said() -> None:
    scheduler = make_scheduler(instances=1)
    add_instance(scheduler, "e", facts=make_facts(embedding_dimensions=64), role=InstanceRole.EMBEDDING)
    scheduler.enqueue(make_request(1, embedding=Embedding()), 0.0)

    assert scheduler.schedule(0.0) == []
    assert any("get nothing under this name: e" in said for said in scheduler.model_conditions())


def test_a_role_changed_at_run_time_is_in_force_at_once() -> None:
    scheduler = make_scheduler(instances=2)

    scheduler.set_role("i0", InstanceRole.PREFILLING)

    assert {place(scheduler, str(n)).instance_id for n in range(3)} == {"i1"}


@pytest.mark.parametrize(
    ("facts", "name", "words"),
    [
        ({"max_running": 1}, "slots", "no slot free"),
        ({"kv_capacity_tokens": 8_192, "max_running": 9}, "kv_tokens", "KV tokens free"),
    ],
)
def test_a_full_instance_is_explained_with_its_figures(facts: dict[str, Any], name: str, words: str) -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "full", facts=make_facts(**facts))
    place(scheduler, "filler", prompt=4_000, output=4_000, preferred_instance="full")
    if name == "slots":
        place(scheduler, "filler2", prompt=4_000, output=100, preferred_instance="full")
    add_instance(scheduler, "free")

    decision = place(scheduler, prompt=300, output=100)
    scheduler.release(decision.attempt_number, 0.0, output_tokens=None, finished=False)

    assert row(decision, "full").filtered_by == name
    assert words in row(decision, "full").filter_reason


# --- objectives -------------------------------------------------------------------------------------


def test_fifo_takes_the_instance_that_finishes_it_first() -> None:
    scheduler = make_scheduler(instances=2)
    place(scheduler, "long prompt", prompt=4_000, preferred_instance="i0")
    place(scheduler, "short prompt", prompt=10, preferred_instance="i1")
    place(scheduler, "short prompt 2", prompt=10, preferred_instance="i1")

    decision = place(scheduler)

    assert decision.instance_id == "i1", "though it has more requests"
    assert decision.reasons[0].startswith("earliest predicted finish 0.")
    assert decision.reasons[0].endswith("2 of 2 candidates")


def test_equal_instances_take_turns() -> None:
    scheduler = make_scheduler(instances=3)
    chosen = []
    for n in range(6):
        decision = place(scheduler, str(n))
        scheduler.release(decision.attempt_number, 0.0, output_tokens=None, finished=False)
        chosen.append(decision.instance_id)

    assert chosen == ["i0", "i1", "i2"] * 2


@pytest.mark.parametrize(
    ("starts", "chosen"),
    [
        ([0.0, 0.0019], 1),  # 2 ms are noise: the one with less to do
        ([0.0, 0.0021], 0),
        ([1.0, 1.04], 1),  # so are 5 %
        ([1.0, 1.06], 0),
    ],
)
def test_differences_that_are_noise_do_not_decide(starts: list[float], chosen: int) -> None:
    scheduler = make_scheduler(instances=2)
    place(scheduler, "more to do", preferred_instance="i0")
    accounts = [i.account for i in scheduler.instances()]

    assert pick(accounts, starts) == chosen


def test_a_request_that_queues_at_the_engine_is_predicted_to_start_later() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "i0", facts=make_facts(max_running=1))

    first, second = place(scheduler, "a"), place(scheduler, "b")

    assert first.prediction.start_s == 0
    assert second.prediction.start_s > 0
    assert second.prediction.start_s < second.prediction.first_token_s < second.prediction.finish_s


@pytest.mark.parametrize("policy", ["fifo", "priority"])
def test_a_fast_instance_gets_more_than_a_slow_one(policy: str) -> None:
    """Until the fast one is as full of work as to take equally long."""
    scheduler = make_scheduler(policy)
    for name in ("fast", "slow"):
        add_instance(scheduler, name, facts=make_facts(max_running=128, max_batched_tokens=8_192))
    teach(scheduler, "fast", token_s=0.01, prefill_token_s=5e-5)
    teach(scheduler, "slow", token_s=0.05, prefill_token_s=25e-5)

    placed = [place(scheduler, str(n), priority=N, prompt=400, output=10).instance_id for n in range(40)]

    assert placed.count("fast") >= 4 * placed.count("slow") > 0


def test_an_engine_that_has_not_learned_its_pace_is_scored_by_one_that_has() -> None:
    scheduler = make_scheduler(instances=2)
    teach(scheduler, "i0", token_s=0.05)
    add_instance(scheduler, "i2")

    paces = [i.account.pace for i in scheduler.instances()]
    assert [pace.base_s for pace in paces] == pytest.approx([paces[0].base_s] * 3, rel=0.1)

    teach(scheduler, "i1", token_s=0.005)
    assert scheduler.instance("i1").account.pace.base_s < paces[0].base_s / 2


def test_priority_keeps_a_slot_for_critical() -> None:
    scheduler = make_scheduler("priority")
    add_instance(scheduler, "i0", facts=make_facts(max_running=2))
    place(scheduler, "normal")
    scheduler.enqueue(make_request("waits", priority=H), 0.0)
    assert scheduler.schedule(0.0) == []

    decision = place(scheduler, "critical", priority=C)

    assert decision.instance_id == "i0"
    assert "takes the slot that is reserved for CRITICAL" in decision.reasons
    view = scheduler.position(make_request("waits").key, 0.0)
    assert view is not None
    assert view.because == "instance i0 full: no slot free"


def prompts_ahead(*, supports_priority: bool = True, priority: Priority = N) -> Scheduler:
    """One instance under ``priority`` with as many prompts ahead as keep a further one of the class out."""
    scheduler = make_scheduler("priority")
    facts = make_facts(max_running=128, max_batched_tokens=512, supports_priority=supports_priority)
    add_instance(scheduler, "i0", facts=facts)
    teach(scheduler, "i0", token_s=0.02)
    scheduler.enqueue(make_request("first", priority=priority, prompt=600), 0.0)
    number = 0
    while scheduler.schedule(0.0):
        number += 1
        scheduler.enqueue(make_request(str(number), priority=priority, prompt=600), 0.0)
    assert 1 < number < 20
    return scheduler


def test_critical_is_not_kept_out_by_prompts_that_it_goes_before() -> None:
    decision = place(prompts_ahead(), "critical", priority=C)

    assert decision.instance_id == "i0"
    assert decision.rule == "earliest_first_token"


@pytest.mark.parametrize(
    "changes", [{"supports_priority": False}, {"priority": C}], ids=["no priorities", "as urgent ones ahead"]
)
def test_critical_waits_where_it_would_go_behind(changes: dict[str, Any]) -> None:
    scheduler = prompts_ahead(**changes)
    scheduler.enqueue(make_request("critical", priority=C), 0.0)

    assert scheduler.schedule(0.0) == []


@pytest.mark.parametrize(("priority", "chosen"), [(C, "soon"), (H, "quick")])
def test_critical_goes_where_its_first_token_comes_first(priority: Priority, chosen: str) -> None:
    scheduler = make_scheduler("priority", instances=0)
    for name in ("quick", "soon"):
        add_instance(scheduler, name, facts=make_facts(max_running=128, max_batched_tokens=8_192))
    teach(scheduler, "quick", token_s=0.01, prefill_token_s=5e-4)
    teach(scheduler, "soon", token_s=0.02, prefill_token_s=1e-4)

    assert place(scheduler, priority=priority, prompt=400, output=200).instance_id == chosen


@pytest.mark.parametrize("policy", ["fifo", "slo_aware"])
def test_a_policy_without_engine_classes_sends_all_as_normal(policy: str) -> None:
    """So that after a switch none of them outranks a CRITICAL request inside an engine."""
    assert {place(make_scheduler(policy, instances=1), priority=p).engine_priority for p in Priority} == {3}


def test_the_class_goes_to_the_engine() -> None:
    assert place(make_scheduler("priority", instances=1), priority=L).engine_priority == 4


def test_an_engine_without_priorities_is_said_aloud() -> None:
    scheduler = make_scheduler("priority")
    add_instance(scheduler, "i0", facts=make_facts(supports_priority=False))

    assert any("no priorities" in reason for reason in place(scheduler).reasons)


def test_slo_aware_takes_the_instance_that_uses_the_least_of_the_targets() -> None:
    scheduler = make_scheduler("slo_aware", instances=3)
    teach(scheduler, "i0", token_s=0.05)
    teach(scheduler, "i1", token_s=0.01)
    teach(scheduler, "i2", token_s=0.03)

    decision = place(scheduler, tpot_target_s=0.1)

    shares = [row(decision, f"i{n}").scores["target_share"] for n in range(3)]
    assert decision.instance_id == "i1"
    assert decision.rule == "least_target_used"
    assert shares[1] < shares[2] < shares[0] < 1
    assert f"uses {shares[1]:.0%} of its targets, the least" in decision.reasons[0]


def test_slo_aware_does_not_herd() -> None:
    """Equal instances get equal numbers, though each could take all within the targets."""
    scheduler = make_scheduler("slo_aware")
    for n in range(4):
        add_instance(scheduler, f"i{n}", facts=make_facts(max_running=128))

    placed = [place(scheduler, str(n), tpot_target_s=60.0, ttft_target_s=60.0).instance_id for n in range(40)]

    assert {name: placed.count(name) for name in placed} == {f"i{n}": 10 for n in range(4)}


def test_slo_aware_passes_over_those_predicted_to_miss() -> None:
    scheduler = make_scheduler("slo_aware", instances=2)
    teach(scheduler, "i0", token_s=0.5)
    teach(scheduler, "i1", token_s=0.01)

    decision = place(scheduler, tpot_target_s=0.1)

    assert decision.instance_id == "i1"
    assert row(decision, "i0").filtered_by == "targets"
    assert "1 of 2 candidates" in decision.reasons[0]


def test_slo_aware_takes_the_earliest_finish_where_none_meets_the_target() -> None:
    scheduler = make_scheduler("slo_aware", instances=2)
    teach(scheduler, "i0", token_s=0.5)
    teach(scheduler, "i1", token_s=0.4)

    decision = place(scheduler, tpot_target_s=0.1)

    assert decision.instance_id == "i1"
    assert "no candidate is predicted to meet its targets" in decision.reasons[0]


def test_a_first_token_that_is_too_late_leaves_the_deadline_its_say() -> None:
    """The earliest finish is not asked for: what uses least of the deadline and keeps the time per token is."""
    scheduler = make_scheduler("slo_aware", instances=2)
    teach(scheduler, "i0", token_s=0.01)
    teach(scheduler, "i1", token_s=0.02)

    decision = place(scheduler, ttft_target_s=1e-6, tpot_target_s=0.1, deadline_at=60.0)

    assert decision.rule == "least_target_used"
    assert row(decision, "i0").scores["target_share"] < 1
    assert row(decision, "i0").filtered_by == ""
    assert place(scheduler, "without", ttft_target_s=1e-6).rule == "none_meets_targets"


def test_a_resumed_request_has_had_its_first_token() -> None:
    scheduler = make_scheduler("slo_aware", instances=1)

    scheduler.enqueue(make_request(1, ttft_target_s=0.001), 9.0, emitted_tokens=5, resumed=True)
    (decision,) = scheduler.schedule(9.0)

    assert decision.rule == "least_target_used"


def test_cost_optimized_takes_the_cheapest_and_fills_it() -> None:
    scheduler = make_scheduler("cost_optimized")
    for name, price in (("dear", 9.0), ("cheap", 1.0), ("cheap2", 1.0)):
        add_instance(scheduler, name, price_per_hour=price)

    assert [place(scheduler, str(n)).instance_id for n in range(4)] == ["cheap"] * 4
    assert place(scheduler, "in a hurry", ttft_target_s=0.3).instance_id == "cheap2"


def test_cost_optimized_has_a_request_wait_for_a_slot_that_is_free_in_time() -> None:
    """All slots of the instance in use are taken for 0.3 s; the other one stays unused."""
    scheduler = make_scheduler("cost_optimized")
    for name, price in (("cheap", 1.0), ("dear", 9.0)):
        add_instance(scheduler, name, price_per_hour=price)
    placed = [place(scheduler, str(n)) for n in range(4)]

    scheduler.enqueue(make_request("mine"), 0.0)
    assert not scheduler.schedule(0.0)
    scheduler.release(placed[0].attempt_number, 0.3, output_tokens=32, finished=True)
    (decision,) = scheduler.schedule(0.3)

    assert decision.instance_id == "cheap"


def test_cost_optimized_pays_more_where_the_deadline_asks_for_it() -> None:
    scheduler = make_scheduler("cost_optimized")
    add_instance(scheduler, "cheap", price_per_hour=1.0)
    add_instance(scheduler, "fast", price_per_hour=9.0)
    teach(scheduler, "cheap", token_s=0.05)
    teach(scheduler, "fast", token_s=0.01)

    assert place(scheduler, "no hurry", output=100).instance_id == "cheap"
    decision = place(scheduler, "hurry", output=100, deadline_at=3.0)

    assert decision.instance_id == "fast"
    assert row(decision, "cheap").filtered_by == "targets"


@pytest.mark.parametrize("target", [{"ttft_target_s": 1.0}, {"tpot_target_s": 0.1}])
def test_cost_optimized_pays_more_where_a_target_asks_for_it(target: dict[str, Any]) -> None:
    scheduler = make_scheduler("cost_optimized")
    add_instance(scheduler, "cheap", price_per_hour=1.0)
    add_instance(scheduler, "fast", price_per_hour=90.0)
    teach(scheduler, "cheap", token_s=0.12, prefill_token_s=4e-3)
    teach(scheduler, "fast", token_s=0.01, prefill_token_s=2e-4)

    decision = place(scheduler, prompt=400, **target)

    assert decision.instance_id == "fast"
    assert row(decision, "cheap").filtered_by == "targets"
    assert row(decision, "cheap").scores["cost"] < row(decision, "fast").scores["cost"]


def test_cost_optimized_gathers_no_more_than_the_targets_allow() -> None:
    """The instance in use has slots for all; another is taken before requests use two thirds of their targets."""
    scheduler = make_scheduler("cost_optimized")
    for n in range(4):
        add_instance(scheduler, f"i{n}", facts=make_facts(max_running=128), price_per_hour=1.0)
    placed: list[Decision] = []
    for n in range(12):
        now = n / 3
        for decision in placed:
            if decision.decided_at + decision.prediction.first_token_s <= now:
                scheduler.first_token(decision.attempt_number, now)
        scheduler.enqueue(make_request(n, prompt=2_000, ttft_target_s=3.0, arrived_at=now), now)
        placed += scheduler.schedule(now)

    assert placed[0].instance_id == placed[1].instance_id == "i0"
    assert {d.instance_id for d in placed} == {"i0", "i1"}
    assert all(d.waited_s + d.prediction.first_token_s <= 1.5 for d in placed)


def test_cost_optimized_has_one_that_can_wait_make_nobody_late() -> None:
    """What runs on the instance in use has next to nothing left of its time per token."""
    scheduler = make_scheduler("cost_optimized")
    for name, price in (("cheap", 1.0), ("dear", 9.0)):
        add_instance(scheduler, name, price_per_hour=price)
        teach(scheduler, name, token_s=0.045)
    tight = place(scheduler, "tight", prompt=400, tpot_target_s=0.05)
    scheduler.first_token(tight.attempt_number, 1.0)

    scheduler.enqueue(make_request("can wait", ttft_target_s=60.0, arrived_at=1.0), 1.0)
    assert not scheduler.schedule(1.0)
    scheduler.enqueue(make_request("cannot", ttft_target_s=1.0, arrived_at=1.0), 1.0)
    (decision,) = scheduler.schedule(1.6)
    assert (decision.key.request_id, decision.instance_id) == ("cannot", "cheap")

    scheduler.release(tight.attempt_number, 2.0, output_tokens=32, finished=True)
    (decision,) = scheduler.schedule(2.0)

    assert (decision.key.request_id, decision.instance_id) == ("can wait", "cheap")


def test_nobody_waits_for_one_that_is_late_whatever_else_runs() -> None:
    """The engine takes longer for a token than that request wants, also with nothing else."""
    scheduler = make_scheduler("cost_optimized")
    add_instance(scheduler, "cheap", price_per_hour=1.0)
    teach(scheduler, "cheap", token_s=0.045)
    hopeless = place(scheduler, "hopeless", prompt=400, tpot_target_s=0.001)
    scheduler.first_token(hopeless.attempt_number, 1.0)

    scheduler.enqueue(make_request("can wait", ttft_target_s=60.0, arrived_at=1.0), 1.0)

    assert [d.key.request_id for d in scheduler.schedule(1.0)] == ["can wait"]


def test_one_that_can_wait_does_so_for_half_of_its_target() -> None:
    scheduler = make_scheduler("cost_optimized")
    add_instance(scheduler, "cheap", price_per_hour=1.0)
    teach(scheduler, "cheap", token_s=0.045)
    place(scheduler, "tight", prompt=400, tpot_target_s=0.05)
    scheduler.first_token(1, 1.0)
    scheduler.enqueue(make_request("without a TTFT target", tpot_target_s=10.0, arrived_at=1.0), 1.0)
    assert not scheduler.schedule(1.0)

    scheduler.enqueue(make_request("later", ttft_target_s=60.0, arrived_at=3.0), 3.0)  # a pass is due
    ttft_s = DEFAULT_TARGETS[N].ttft_s
    assert ttft_s is not None
    (decision,) = scheduler.schedule(1.0 + ttft_s / 2)

    assert decision.key.request_id == "without a TTFT target"


def test_cost_optimized_keeps_to_the_budget() -> None:
    scheduler = make_scheduler("cost_optimized")
    add_instance(scheduler, "free")
    add_instance(scheduler, "dear", price_per_hour=3_600.0)
    decision = place(scheduler, cost_budget=0.001)

    assert decision.instance_id == "free"
    assert row(decision, "dear").filtered_by == "budget"


def test_a_budget_that_is_too_small_everywhere_is_said_aloud() -> None:
    scheduler = make_scheduler("cost_optimized")
    add_instance(scheduler, "dear", price_per_hour=3_600.0)

    decision = place(scheduler, cost_budget=0.001)

    assert any(reason.startswith("over budget everywhere") for reason in decision.reasons)
    assert decision.prediction.cost > 0.001


def test_nobody_queues_at_a_full_engine_while_another_is_free() -> None:
    scheduler = make_scheduler("slo_aware")
    for n in range(2):
        add_instance(scheduler, f"i{n}", facts=make_facts(max_running=1), price_per_hour=1.0 + 9 * n)

    assert [place(scheduler, str(n)).instance_id for n in range(2)] == ["i0", "i1"]


def full_of_prompts() -> tuple[Scheduler, float]:
    """Make a scheduler whose instance in use has enough prompts ahead, with another one idle; and the time."""
    scheduler = make_scheduler("cost_optimized")
    for name, price in (("cheap", 1.0), ("dear", 9.0)):
        add_instance(scheduler, name, facts=make_facts(max_running=64), price_per_hour=price)
    now = 0.0
    while not scheduler.waiting(MODEL):
        now += 0.01
        scheduler.enqueue(make_request(f"patient{now}", prompt=2_000, ttft_target_s=60.0, arrived_at=now), now)
        assert all(d.instance_id == "cheap" for d in scheduler.schedule(now))
    return scheduler, now


def test_one_that_cannot_wait_goes_before_one_that_waits_for_an_instance_in_use() -> None:
    scheduler, now = full_of_prompts()
    scheduler.enqueue(make_request("urgent", prompt=2_000, output=64, ttft_target_s=0.6, arrived_at=now), now)

    decision, *_ = scheduler.schedule(now)

    assert decision.key.request_id == "urgent"
    assert decision.instance_id == "dear"


def test_a_request_waits_no_longer_for_an_instance_in_use_than_another_meets_its_targets() -> None:
    scheduler, now = full_of_prompts()
    scheduler.withdraw(make_request(f"patient{now}").key, now)
    scheduler.enqueue(make_request("mine", prompt=2_000, ttft_target_s=1.5, arrived_at=now), now)
    assert not scheduler.schedule(now)

    scheduler.enqueue(make_request("later", ttft_target_s=60.0, arrived_at=now), now)  # a pass is due
    decision, *_ = scheduler.schedule(now + 0.8)

    assert decision.key.request_id == "mine"
    assert decision.instance_id == "dear"
    assert decision.waited_s + decision.prediction.first_token_s < 1.5


def test_a_request_waits_for_no_instance_in_use_that_lacks_kv_memory_for_it() -> None:
    """Prompts that are computed there free no KV tokens: shorter requests might take those that others leave."""
    scheduler = make_scheduler("cost_optimized")
    for name, price in (("cheap", 1.0), ("dear", 9.0)):
        add_instance(scheduler, name, facts=make_facts(max_running=64, kv_capacity_tokens=8_192), price_per_hour=price)
    now = 0.0
    while not scheduler.waiting(MODEL):
        now += 0.01
        scheduler.enqueue(make_request(f"patient{now}", prompt=1_000, ttft_target_s=60.0, arrived_at=now), now)
        assert all(d.instance_id == "cheap" for d in scheduler.schedule(now))
    scheduler.withdraw(make_request(f"patient{now}").key, now)

    scheduler.enqueue(make_request("big", prompt=7_500, ttft_target_s=600.0, arrived_at=now), now)
    (decision,) = scheduler.schedule(now)

    assert decision.instance_id == "dear"


def test_a_request_waits_for_no_instance_in_use_that_is_over_its_budget() -> None:
    """Before the speeds count, the cheapest by the hour is in use; a long prompt takes ten times as long there."""
    scheduler = make_scheduler("cost_optimized")
    for name, price, prefill_token_s in (("slow", 1.0, 1e-3), ("fast", 2.0, 1e-4)):
        add_instance(scheduler, name, facts=make_facts(max_running=64), price_per_hour=price)
        teach(scheduler, name, token_s=0.01, prefill_token_s=prefill_token_s)
    count = 0
    while not scheduler.waiting(MODEL):
        count += 1
        scheduler.enqueue(make_request(count, prompt=2_000, ttft_target_s=600.0), 0.0)
        assert all(d.instance_id == "slow" for d in scheduler.schedule(0.0))
    scheduler.withdraw(make_request(count).key, 0.0)

    budget = 3e-4  # of 5.6e-4 on the slow one, 1.1e-4 on the fast one
    scheduler.enqueue(make_request("mine", prompt=2_000, ttft_target_s=600.0, cost_budget=budget), 0.0)
    (decision,) = scheduler.schedule(0.0)

    assert decision.instance_id == "fast"
    assert decision.prediction.cost < budget


def test_a_quarantined_request_waits_for_no_instance_in_use() -> None:
    scheduler, now = full_of_prompts()
    scheduler.enqueue(make_request("alone", prompt=2_000, ttft_target_s=60.0, arrived_at=now), now, alone=True)

    decision, *_ = scheduler.schedule(now)

    assert (decision.key.request_id, decision.instance_id, decision.rule) == ("alone", "dear", "kept")
    assert decision.reasons[0].startswith("an instance was emptied for it")


# --- explanations -----------------------------------------------------------------------------------


def test_an_explanation_keeps_the_figures_of_its_moment() -> None:
    scheduler = make_scheduler(instances=2)
    first = place(scheduler, "a", prompt=4_000)
    second = place(scheduler, "b")

    assert set(row(first, "i0").scores) == {"finish_s"}
    assert row(second, "i0").scores["finish_s"] > row(second, "i1").scores["finish_s"]
    assert row(second, "i1").chosen


def test_an_instance_that_is_away_is_explained_by_its_state_and_why() -> None:
    scheduler = make_scheduler(instances=2)
    scheduler.transition("i1", InstanceState.SUSPECT, "its stream broke", 0.0)

    candidate = row(place(scheduler), "i1")

    assert candidate.filtered_by == "state"
    assert candidate.filter_reason == "is suspect: its stream broke"


def test_the_first_rows_are_the_same_without_the_others() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "full", facts=make_facts(max_running=1))
    for n in range(2):
        place(scheduler, f"filler{n}", prompt=4_000, output=100, preferred_instance="full")
    for name in ("i0", "i1", "away"):
        add_instance(scheduler, name)
    scheduler.transition("away", InstanceState.SUSPECT, "its stream broke", 0.0)
    rows = place(scheduler).candidates

    assert isinstance(rows, CandidateTable)
    assert [each.filtered_by for each in rows] == ["", "", "slots", "state"]
    for count in range(6):
        assert list(rows.head(count)) == list(rows)[:count]
        assert len(rows.head(count)) == min(4, count)


def test_rows_are_read_by_index_and_slice() -> None:
    decision = place(make_scheduler(instances=3))

    assert len(decision.candidates) == 3
    assert decision.candidates[-1] == list(decision.candidates)[-1]
    assert isinstance(decision.candidates, CandidateTable)
    assert [decision.candidates.choice] == [each for each in decision.candidates if each.chosen]
    assert list(decision.candidates[:2]) == list(decision.candidates)[:2]
    with pytest.raises(IndexError):
        decision.candidates[3]


def test_an_engine_that_looked_slow_while_it_warmed_up_is_tried_again() -> None:
    scheduler = make_scheduler("fifo")
    for name in ("a", "b"):
        add_instance(scheduler, name)
    teach(scheduler, "a", token_s=0.002)
    teach(scheduler, "b", token_s=0.008)
    tried_after = None
    for second in range(1, 300):
        now = float(second)
        scheduler.report("b", make_load(100 + second), now)
        decision = place(scheduler, f"r{second}", now)
        scheduler.release(decision.attempt_number, now, output_tokens=8, finished=True)
        if decision.instance_id == "b":
            tried_after = now
            break
    assert tried_after is not None, "an idle engine is never asked what it can do now"
    assert tried_after > FADES_AFTER_S
    assert place(scheduler, "next", tried_after).instance_id == "a", "one request is enough to tell"
    teach(scheduler, "b", token_s=0.001)
    assert place(scheduler, "again", tried_after).instance_id == "b"
