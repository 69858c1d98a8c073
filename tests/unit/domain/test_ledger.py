"""Room is counted once: what is promised, what the engine reports, and what the report has not seen."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.capacity.prefill_rate import PREFILL_MEMORY_S
from scheduler_svc.domain.capacity.reservation import Reservation
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.prediction.margin import Margins
from scheduler_svc.domain.prediction.pace import GPU_PRIOR, Pace
from scheduler_svc.domain.request import RequestKey
from tests.contract.policies.modelled_fleet import make_facts, make_load


def make_account(**facts: Any) -> Account:
    account = Account("i0")
    values: dict[str, Any] = {"max_running": 2, "kv_capacity_tokens": 1_000, "kv_block_size": 10}
    account.open(make_facts(**values | facts), GPU_PRIOR)
    return account


def make_reservation(tokens: int = 100, *, prompt: int = 50, finish_in_s: float = 1.0, **changes: Any) -> Reservation:
    values: dict[str, Any] = {
        "key": RequestKey(tenant="t", request_id="r"),
        "tokens": tokens,
        "prompt_tokens": prompt,
        "output_tokens": 50,
        "emitted_tokens": 0,
        "max_tokens": 50,
        "critical": False,
        "made_at": 0.0,
        "first_token_in_s": 0.1,
        "instance_id": "i0",
        "token_s": 0.01,
        "finish_in_s": finish_in_s,
    }
    return Reservation(**values | changes)


def heartbeat(*, kv_used: int = 0, last_assign: int = 0) -> LoadReport:
    return make_load(kv_used_tokens=kv_used, last_assign=last_assign)


def test_a_reservation_takes_tokens_and_a_slot_until_it_leaves() -> None:
    account, ledger = make_account(), Ledger()

    number = ledger.enter(account, make_reservation(300), 0.0)
    assert (account.free_tokens, account.free_slots) == (700, 1)

    assert ledger.release(number, 1.0) is not None
    assert (account.free_tokens, account.free_slots) == (1_000, 2)
    assert ledger.release(number, 1.0) is None
    assert (account.free_tokens, account.free_slots) == (1_000, 2)


def test_numbers_of_attempts_are_never_used_again() -> None:
    account, ledger = make_account(), Ledger()
    first = ledger.enter(account, make_reservation(), 0.0)
    ledger.release(first, 0.0)

    assert ledger.enter(account, make_reservation(), 0.0) > first


def test_what_the_report_has_not_seen_is_added_to_it() -> None:
    account, ledger = make_account(), Ledger()
    ledger.enter(account, make_reservation(300), 0.0)

    account.report(heartbeat(kv_used=400), 0.0)

    assert account.free_tokens == 1_000 - 400 - 300


def test_what_the_report_has_seen_is_not_counted_twice() -> None:
    account, ledger = make_account(), Ledger()
    number = ledger.enter(account, make_reservation(300), 0.0)
    reservation = ledger.find(number)
    assert reservation is not None
    reservation.assign_number = 7

    account.report(heartbeat(kv_used=120, last_assign=6), 0.0)
    assert account.free_tokens == 1_000 - 120 - 300

    account.report(heartbeat(kv_used=120, last_assign=7), 0.0)
    assert account.free_tokens == 1_000 - 300, "the promise is larger than what is in use"

    account.report(heartbeat(kv_used=450, last_assign=7), 0.0)
    assert account.free_tokens == 1_000 - 450, "more is in use than was promised"


def test_a_reservation_that_was_not_sent_is_not_seen_by_any_report() -> None:
    account, ledger = make_account(), Ledger()
    ledger.enter(account, make_reservation(300), 0.0)

    account.report(heartbeat(kv_used=100, last_assign=1_000), 0.0)

    assert account.free_tokens == 1_000 - 100 - 300


def test_what_ended_since_the_report_is_free_at_once() -> None:
    account, ledger = make_account(), Ledger()
    number = ledger.enter(account, make_reservation(300), 0.0)
    reservation = ledger.find(number)
    assert reservation is not None
    reservation.assign_number = 1
    account.report(heartbeat(kv_used=500, last_assign=1), 0.0)

    ledger.release(number, 1.0, used_tokens=200)

    assert account.free_tokens == 1_000 - (500 - 200)


def test_room_is_counted_in_whole_blocks() -> None:
    account = make_account(kv_block_size=128)

    account.report(heartbeat(kv_used=100), 0.0)

    assert account.free_tokens == 896, "seven blocks of 128"


def test_a_request_that_writes_more_than_predicted_grows_its_reservation() -> None:
    account, ledger = make_account(), Ledger()
    reservation = make_reservation(100)
    ledger.enter(account, reservation, 0.0)

    account.grow(reservation, 250)

    assert account.free_tokens == 750
    ledger.release(reservation.attempt_number, 0.0)
    assert account.free_tokens == 1_000


def test_a_lookahead_may_queue_at_the_engine_and_no_more() -> None:
    account, ledger = make_account(max_running=2, max_batched_tokens=100), Ledger()
    for _ in range(2):
        ledger.enter(account, make_reservation(10), 0.0)
    assert account.prompt_limit == inf, "the first of the lookahead may be of any length"

    ledger.enter(account, make_reservation(10, prompt=500), 0.0)

    assert account.prompt_limit == -1


def test_the_lookahead_holds_one_chunk_of_prompts() -> None:
    account, ledger = make_account(max_running=16, max_batched_tokens=100), Ledger()
    assert account.lookahead == 2
    for _ in range(16):
        runs = make_reservation(10)
        ledger.enter(account, runs, 0.0)
        ledger.first_token(runs, 0.0)

    ledger.enter(account, make_reservation(10, prompt=70), 0.0)
    assert account.prompt_limit == 30

    ledger.release(1, 1.0)
    assert account.prompt_limit == inf, "the one that queued runs now"


def test_one_slot_is_kept_for_critical_and_its_use_does_not_keep_another() -> None:
    account, ledger = make_account(max_running=3), Ledger()
    ledger.enter(account, make_reservation(10), 0.0)
    assert account.prompt_limit_leaving_reserve == inf
    critical = make_reservation(10, critical=True)
    ledger.enter(account, critical, 0.0)
    ledger.first_token(critical, 0.0)
    assert account.prompt_limit_leaving_reserve == inf
    ledger.release(2, 0.0)

    ledger.enter(account, make_reservation(10), 0.0)

    assert account.prompt_limit_leaving_reserve == -1
    assert account.prompt_limit == inf


def test_an_instance_that_runs_one_at_a_time_keeps_no_slot() -> None:
    account = make_account(max_running=1)

    assert account.prompt_limit_leaving_reserve == inf


def test_prompts_that_wait_for_prefill_put_off_the_next_start() -> None:
    account, ledger = make_account(), Ledger()
    reservation = make_reservation(prompt=1_000)

    ledger.enter(account, reservation, 10.0)
    assert account.ready_at == pytest.approx(10.0 + reservation.prefill_s)

    account.first_token(reservation, 10.01)
    assert account.ready_at == pytest.approx(10.01)
    assert account.start_floor == 0


def test_an_instance_whose_first_tokens_are_overdue_does_not_look_idle() -> None:
    account, ledger = make_account(), Ledger()
    reservation = make_reservation(prompt=1_000)

    ledger.enter(account, reservation, 0.0)

    assert account.ready_at < 1_000
    assert account.start_floor == pytest.approx(reservation.prefill_s / 2)


def test_a_start_comes_later_by_what_first_tokens_were_late() -> None:
    account, ledger = make_account(), Ledger()
    on_time = account.first_step_floor, account.start_floor

    account.learn(GPU_PRIOR, 1.0, Margins(alone_delay_s=0.02, behind_delay_s=0.05))

    assert (account.first_step_floor, account.start_floor) == on_time, "noise is no reason to prefer an idle instance"
    assert account.start_delay_s == pytest.approx(0.02)
    first, second = make_reservation(), make_reservation()
    for each in (first, second):
        ledger.enter(account, each, 10.0)
    assert account.ready_at == pytest.approx(10.05 + first.prefill_s + second.prefill_s)
    assert (first.goes_first, first.goes_behind, first.start_delay_s) == (True, False, 0.02)
    assert (second.goes_first, second.goes_behind, second.start_delay_s) == (False, True, 0.05)


def test_a_prompt_without_a_slot_goes_neither_first_nor_behind() -> None:
    account, ledger = make_account(max_running=1), Ledger()
    ledger.enter(account, make_reservation(), 0.0)
    queued = make_reservation()
    ledger.enter(account, queued, 0.0)
    assert (queued.goes_first, queued.goes_behind) == (False, False)


def test_without_a_free_slot_the_next_start_is_the_next_predicted_end() -> None:
    account, ledger = make_account(max_running=2), Ledger()
    ledger.enter(account, make_reservation(finish_in_s=5.0), 0.0)
    ledger.enter(account, make_reservation(finish_in_s=3.0), 0.0)
    assert account.ready_at == 3.0

    ledger.enter(account, make_reservation(finish_in_s=9.0), 0.0)
    assert account.ready_at == 5.0, "the first end is for the one that queues already"
    assert account.start_floor > 0


def test_a_step_that_computes_prompts_also_computes_a_token_of_each_sequence() -> None:
    account, ledger = make_account(max_running=64, kv_capacity_tokens=100_000), Ledger()
    alone = account.prefill_token_s
    for _ in range(40):
        runs = make_reservation()
        ledger.enter(account, runs, 0.0)
        ledger.first_token(runs, 0.0)

    assert account.prefill_token_s * account.chunk == pytest.approx(
        alone * account.chunk + 40 * account.pace.running_s, rel=0.01
    )


def decoding(sequences: int, chunk: int) -> Account:
    """An account with so many sequences past their first token, and one whose prompt is being computed."""
    account, ledger = make_account(max_running=64, kv_capacity_tokens=100_000, max_batched_tokens=chunk), Ledger()
    for _ in range(sequences):
        runs = make_reservation()
        ledger.enter(account, runs, 0.0)
        ledger.first_token(runs, 0.0)
    ledger.enter(account, make_reservation(prompt=200), 0.0)
    return account


def test_prompts_get_what_output_tokens_leave_of_a_step() -> None:
    account = decoding(40, chunk=512)
    assert account.chunk_s == pytest.approx(account.pace.prefill_token_s * (512 - 40) + account.decode_token_s)
    assert account.computed_token_s == pytest.approx(account.chunk_s / (512 - 40))


def test_prompts_are_expected_to_get_an_eighth_of_a_step_at_least() -> None:
    account = decoding(63, chunk=64)
    assert account.computed_token_s == pytest.approx(account.chunk_s / 8)


# --- prefill ahead ----------------------------------------------------------------------------------


def deep_account(**facts: Any) -> Account:
    """Slots and KV tokens for any number; a step takes 1,000 prompt tokens."""
    return make_account(max_running=64, kv_capacity_tokens=10_000_000, max_batched_tokens=1_000, **facts)


def test_an_engine_with_two_steps_of_prompts_ahead_is_full() -> None:
    account, ledger = deep_account(), Ledger()
    reservations = [make_reservation(prompt=500) for _ in range(5)]
    for n, reservation in enumerate(reservations):
        assert account.prompt_limit == inf, f"{n} prompts of half a step are ahead"
        ledger.enter(account, reservation, 0.0)

    assert account.prefill_full
    assert account.prompt_limit == account.prompt_limit_leaving_reserve == -1
    assert not account.only_reserve_left

    ledger.first_token(reservations[0], 0.0)
    ledger.first_token(reservations[1], 0.0)
    assert account.prompt_limit == inf


def test_no_prompt_of_another_class_joins_a_critical_one_before_its_first_token() -> None:
    """It would fill up the last step of the CRITICAL one."""
    account, ledger = deep_account(), Ledger()
    critical = make_reservation(prompt=100, critical=True)
    ledger.enter(account, critical, 0.0)

    assert account.prompt_limit_leaving_reserve == -1
    assert account.prompt_limit == account.urgent_limit == inf
    assert not account.only_reserve_left

    ledger.first_token(critical, 0.1)
    assert account.prompt_limit_leaving_reserve == inf


def test_eight_critical_requests_in_a_row_keep_others_away_at_most() -> None:
    account, ledger = deep_account(), Ledger()
    for _ in range(8):
        ledger.enter(account, make_reservation(prompt=10, critical=True), 0.0)
        assert account.prompt_limit_leaving_reserve == -1

    ledger.enter(account, make_reservation(prompt=10, critical=True), 0.0)
    assert account.prompt_limit_leaving_reserve == inf

    ledger.enter(account, make_reservation(prompt=10), 0.0)
    ledger.enter(account, make_reservation(prompt=10, critical=True), 0.0)
    assert account.prompt_limit_leaving_reserve == -1, "the others had their turn"


def test_a_quiet_instance_takes_prompts_of_critical_requests_only() -> None:
    account = deep_account()

    account.keep_quiet(True)
    assert account.prompt_limit_leaving_reserve == -1
    assert account.prompt_limit == account.urgent_limit == account.slot_limit_leaving_reserve == inf
    assert not account.only_reserve_left

    account.keep_quiet(False)
    assert account.prompt_limit_leaving_reserve == inf


def test_an_idle_engine_takes_a_prompt_of_any_length_and_one_behind_it() -> None:
    """However long the prompt that is computed takes: at its end there is another one."""
    account, ledger = deep_account(), Ledger()

    ledger.enter(account, make_reservation(prompt=9_000), 0.0)
    assert account.prompt_limit == inf

    ledger.enter(account, make_reservation(prompt=1_100), 0.0)
    assert account.prompt_limit == -1


def test_an_engine_of_short_steps_has_prompts_for_a_round_trip_ahead() -> None:
    account, ledger = deep_account(), Ledger()
    account.learn(Pace(base_s=1e-4, prefill_token_s=1e-6, running_s=0.0, kv_token_s=0.0))
    for _ in range(40):
        assert account.prompt_limit == inf
        ledger.enter(account, make_reservation(prompt=1_000), 0.0)

    ledger.enter(account, make_reservation(prompt=9_000), 0.0)
    assert account.prompt_limit == -1


def test_prompts_that_are_computed_elsewhere_are_not_ahead() -> None:
    account, ledger = deep_account(), Ledger()
    for _ in range(5):
        ledger.enter(account, make_reservation(prompt=5_000, prefills=False), 0.0)

    assert account.prompt_limit == inf


def test_all_that_is_on_an_instance_leaves_with_it() -> None:
    account, other, ledger = make_account(), make_account(), Ledger()
    ledger.enter(account, make_reservation(), 0.0)
    ledger.enter(other, make_reservation(), 0.0)
    ledger.enter(account, make_reservation(), 0.0)

    assert ledger.release_all(account, 1.0) == [1, 3]

    assert account.free_tokens == 1_000
    assert len(ledger) == 1


def test_prefill_that_shares_the_iterations_makes_tokens_slower() -> None:
    account, ledger = make_account(max_running=64, kv_capacity_tokens=100_000), Ledger()
    idle = account.output_token_s
    assert idle == account.decode_token_s

    reservation = make_reservation(prompt=40_000)
    ledger.enter(account, reservation, 0.0)

    share = 40_000 * account.pace.prefill_token_s / PREFILL_MEMORY_S
    assert account.output_token_s == pytest.approx(account.decode_token_s / (1 - share))
    account.report(heartbeat(), 10 * PREFILL_MEMORY_S)
    assert account.output_token_s == pytest.approx(account.decode_token_s, rel=1e-3)


def test_the_tightest_target_of_what_runs_here_is_known() -> None:
    account, ledger = make_account(max_running=8), Ledger()
    assert account.tightest_token_s == inf

    ledger.enter(account, make_reservation(), 0.0)
    tight = ledger.enter(account, make_reservation(tpot_target_s=0.05), 0.0)
    ledger.enter(account, make_reservation(tpot_target_s=0.2), 0.0)
    assert account.tightest_token_s == 0.05

    ledger.release(tight, 1.0)
    assert account.tightest_token_s == 0.2


def test_a_target_that_the_engine_misses_without_others_does_not_count() -> None:
    account, ledger = make_account(max_running=8), Ledger()
    alone_s = account.decode_token_s

    hopeless = ledger.enter(account, make_reservation(tpot_target_s=alone_s / 2), 0.0)
    assert account.tightest_token_s == inf
    ledger.release(hopeless, 1.0)
    assert account.token_targets == []


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])
def test_a_steady_stream_of_prompts_takes_its_share_of_engine_time(share: float) -> None:
    account, ledger = make_account(max_running=64, kv_capacity_tokens=1_000_000), Ledger()
    gap_s = account.pace.prefill_token_s * 1_000 / share
    for n in range(int(8 * PREFILL_MEMORY_S / gap_s)):
        ledger.release(ledger.enter(account, make_reservation(prompt=1_000), n * gap_s), n * gap_s)

    assert 1 - account.decode_token_s / account.output_token_s == pytest.approx(share, rel=0.1)


def test_a_burst_of_prompts_leaves_tokens_some_time() -> None:
    account, ledger = make_account(max_running=64, kv_capacity_tokens=10_000_000), Ledger()
    ledger.enter(account, make_reservation(prompt=9_000_000), 0.0)

    assert account.output_token_s == pytest.approx(10 * account.decode_token_s)
