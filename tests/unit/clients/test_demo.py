"""What the demonstration asks and what it makes of the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from sage_client import PolicySwitch, Priority
from sage_local.demo.calibration import Calibration
from sage_local.demo.demo_fleet import deaths
from sage_local.demo.effects import Effect, effects
from sage_local.demo.outcome import Outcome
from sage_local.demo.policy_demo import POLICIES, about_the_load
from sage_local.demo.round import Round, cost_per_1000_tokens, per_instance
from sage_local.demo.workload import burst, expected_burst_s, trickle
from sage_local.fleet.status import FleetPhase, FleetStatus, ProcessStatus

CALIBRATION = Calibration(tokens_per_s=1000.0, stream_tokens_per_s=125.0, has_chat_template=True, burst_s=5.0)
PLAN = burst(CALIBRATION)
PRICES = {"executor-1": 3.0, "executor-2": 1.0}


def outcomes(
    waits: dict[Priority, float] | None = None, *, met: bool = True, instance_id: str = "executor-1", cost: float = 0.3
) -> tuple[Outcome, ...]:
    """Of the whole burst, placed in the order of arrival."""
    waits = waits or {}
    return tuple(
        Outcome(
            planned=planned,
            request_id=planned.name,
            accepted_at=float(number),
            scheduled_at=100.0 + number,
            instance_id=instance_id,
            wait_s=waits.get(planned.priority, 1.0),
            ttft_s=2.0,
            tokens=100,
            cost=cost,
            slo_met=met,
        )
        for number, planned in enumerate(PLAN)
    )


def round_of(policy: str, burst: Sequence[Outcome] = (), trickle: Sequence[Outcome] = (), **more: object) -> Round:
    return Round(policy=policy, burst=tuple(burst), trickle=tuple(trickle), **more)  # type: ignore[arg-type]


def effect(this: Round, fifo: Round | None = None) -> Effect:
    rounds = {each.policy: each for each in (fifo, this) if each is not None}
    return effects(rounds, PRICES)[-1]


def test_the_burst_has_at_least_24_requests_of_every_class_and_kind() -> None:
    assert len(PLAN) >= 24
    assert {each.priority for each in PLAN} == set(Priority)
    assert {each.kind for each in PLAN} == {"interactive", "chat", "batch"}
    assert len({each.output_tokens for each in PLAN}) > 5
    assert len({each.ttft_target_s for each in PLAN}) >= 4


def test_the_burst_takes_as_long_as_it_is_meant_to_at_the_rate_measured() -> None:
    assert expected_burst_s(CALIBRATION) == pytest.approx(5.0, rel=0.2)
    total = sum(each.output_tokens for each in PLAN)
    assert total / CALIBRATION.tokens_per_s == pytest.approx(5.0, rel=0.2)


@pytest.mark.parametrize("rate", [1.0, 1e9])
def test_very_slow_and_very_fast_engines_get_requests_of_sane_length(rate: float) -> None:
    lengths = [each.output_tokens for each in burst(replace(CALIBRATION, tokens_per_s=rate))]

    assert min(lengths) >= 8
    assert max(lengths) <= 1000


def test_what_a_reader_must_know_of_the_load_is_said() -> None:
    text = "\n".join(about_the_load([*PLAN, *trickle(CALIBRATION)], PRICES))

    targets = {each.priority: each.ttft_target_s for each in PLAN}
    assert all(f"{priority.name} {targets[priority]:.1f} s" in text for priority in Priority)
    assert "executor-1 3, executor-2 1" in text
    assert "b01, b02, ... are the burst and t01, t02, ... the trickle" in text


def test_the_urgent_come_last_in_the_burst() -> None:
    after = {p: [each.after_s for each in PLAN if each.priority is p] for p in Priority}

    assert min(after[Priority.CRITICAL]) > max(after[Priority.NORMAL])


def test_the_load_is_the_same_under_every_policy() -> None:
    assert burst(CALIBRATION) == burst(CALIBRATION)
    assert trickle(CALIBRATION) == trickle(CALIBRATION)


def test_a_trickle_leaves_room() -> None:
    """By Little's law fewer run at once than one instance has slots."""
    plan = trickle(CALIBRATION)
    busy_s = sum(each.output_tokens for each in plan) / CALIBRATION.stream_tokens_per_s

    assert busy_s / (plan[-1].after_s - plan[0].after_s) < 4


def test_chats_are_texts_where_the_model_has_no_template() -> None:
    plan = burst(replace(CALIBRATION, has_chat_template=False))
    chat = next(each for each in plan if each.kind == "chat")

    assert not chat.as_chat
    assert "messages" not in chat.options()
    assert "messages" in next(each for each in PLAN if each.kind == "chat").options()


def test_fifo_is_shown_by_the_order_of_starts() -> None:
    in_order = outcomes()
    reversed_ = tuple(replace(each, scheduled_at=-(each.scheduled_at or 0)) for each in in_order)

    assert effect(round_of("fifo", in_order)).shown
    assert "100.0% of pairs" in effect(round_of("fifo", in_order)).sentence
    assert not effect(round_of("fifo", reversed_)).shown
    assert not effect(round_of("fifo")).shown


def test_priority_is_shown_by_who_waits() -> None:
    right = outcomes({Priority.CRITICAL: 0.1, Priority.BACKGROUND: 3.0})
    wrong = outcomes({Priority.CRITICAL: 3.0, Priority.BACKGROUND: 0.1})
    nobody_waits = outcomes({Priority.CRITICAL: 0.001, Priority.BACKGROUND: 0.002})

    shown = effect(round_of("priority", right), round_of("fifo", wrong))
    assert shown.shown
    assert "CRITICAL waited 0.10 s, BACKGROUND 3.00 s (median); under fifo 3.00 s and 0.10 s" in shown.sentence
    assert not effect(round_of("priority", wrong)).shown
    assert not effect(round_of("priority", nobody_waits)).shown


def test_slo_aware_is_shown_by_more_targets_met_than_under_fifo() -> None:
    good, bad = outcomes(met=True), outcomes(met=False)

    assert effect(round_of("slo_aware", good), round_of("fifo", bad)).shown
    assert not effect(round_of("slo_aware", good), round_of("fifo", good)).shown
    assert not effect(round_of("slo_aware", good)).shown


def test_cost_optimized_is_shown_by_a_lower_cost_than_under_fifo() -> None:
    cheap = round_of("cost_optimized", trickle=outcomes(instance_id="executor-2", cost=0.1))
    dear = round_of("fifo", trickle=outcomes(instance_id="executor-1", cost=0.3))

    shown = effect(cheap, dear)
    assert shown.shown
    assert "ran on executor-2, the cheapest (0 under fifo)" in shown.sentence
    assert "-67%" in shown.sentence
    assert not effect(replace(cheap, trickle=dear.trickle), dear).shown


def test_adaptive_is_shown_by_a_switch_and_its_reason() -> None:
    switch = PolicySwitch(from_policy="fifo", to_policy="priority", reason="a queue", ago_s=1.0)

    assert "fifo -> priority because a queue" in effect(round_of("adaptive", outcomes(), switches=(switch,))).sentence
    assert not effect(round_of("adaptive", outcomes())).shown


def test_an_effect_that_does_not_show_is_said_loudly() -> None:
    said = "adaptive: NO EFFECT SHOWN: it followed one policy throughout; 0 of 0 met their targets"
    assert str(effect(round_of("adaptive"))) == said


def test_there_is_a_sentence_for_every_policy() -> None:
    rounds = {policy: round_of(policy, outcomes(), outcomes()) for policy in POLICIES}

    assert [each.policy for each in effects(rounds, PRICES)] == list(POLICIES)


def test_the_numbers_of_a_class() -> None:
    row = round_of("fifo", outcomes({Priority.HIGH: 0.5}, met=False)).by_class()[1]

    assert (row.priority, row.requests, row.wait_median_s, row.ttft_median_s) == (Priority.HIGH, 4, 0.5, 2.0)
    assert (row.slo_met, row.slo_asked) == (0, 4)


def test_failures_are_found_and_do_not_spoil_the_numbers() -> None:
    good = outcomes()
    failed = Outcome(planned=PLAN[0], request_id="x", error="it broke")
    this = round_of("fifo", (failed, *good[1:]))

    assert this.failures == (failed,)
    assert this.in_order_share() == 1.0
    assert per_instance(this.burst) == {"executor-1": len(PLAN) - 1}
    assert cost_per_1000_tokens([failed]) is None
    assert cost_per_1000_tokens(good) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("restarts", "state", "died"), [(0, "running", False), (1, "running", True), (0, "ended", True)]
)
def test_a_process_that_died_is_told_even_if_it_runs_again(restarts: int, state: str, died: bool) -> None:
    process = ProcessStatus(
        name="executor-1", state=state, pid=1, restarts=restarts, last_exit=-9, where="", warning=""
    )
    status = FleetStatus(
        phase=FleetPhase.READY,
        reason="",
        culprit="",
        address="a:1",
        supervisor_pid=1,
        processes=(process,),
        instances=(),
    )

    assert deaths(status) == (["executor-1 died (status -9) while requests ran"] if died else [])
