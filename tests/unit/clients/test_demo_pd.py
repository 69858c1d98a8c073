"""What the demonstration of prefill/decode separation makes of the numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sage.controlplane.v1 import decision_pb2
from sage_client import Decision, Timings
from sage_client._decode import decision as decode_decision
from sage_local.demo.interference import FEWEST, MOST, PREFILL_SHARE, Load, Turn, figures
from sage_local.demo.prefill_decode_demo import not_split, wrongly_placed
from sage_local.demo.prompts import Prompts
from sage_local.demo.split_request import SplitRequest

TIMES = Timings(queue_s=0.0, time_to_first_token_s=0.5, prefill_s=0.4, transfer_s=0.1, decode_s=1.0, total_s=1.5)


def decision(*, prefill: str = "", reasons: tuple[str, ...] = ()) -> Decision:
    bare = decode_decision(decision_pb2.Decision(instance_id="d", phase_reason="3000 prompt tokens, threshold 2000"))
    return replace(bare, prefill_instance_id=prefill, reasons=reasons)


def short(*gaps: float, **fields: Any) -> SplitRequest:
    return SplitRequest(kind="short", max_tokens=1 + len(gaps), gaps=list(gaps), timings=TIMES, **fields)


def long(*, prefill: str = "", reasons: tuple[str, ...] = ()) -> SplitRequest:
    return SplitRequest(kind="long", max_tokens=8, timings=TIMES, decision=decision(prefill=prefill, reasons=reasons))


def test_figures_are_over_all_gaps_of_all_turns() -> None:
    quiet = Turn(shorts=(short(*[0.01] * 97),), longs=(long(prefill="p"),))
    disturbed = Turn(shorts=(short(0.5, 0.01, 0.7),), longs=(long(),))

    found = figures([quiet, disturbed])

    assert found.itl_p50_s == pytest.approx(0.01)
    assert 0.5 <= found.itl_p99_s <= 0.7
    assert found.longest_pause_s == pytest.approx((0.01 + 0.7) / 2)
    assert (found.long_ttft_s, found.shorts, found.longs, found.split) == (0.5, 2, 2, 1)


def test_what_failed_is_a_problem_and_in_no_figure() -> None:
    turn = Turn(shorts=(short(9.0, 9.0, error="gone"), short(0.01, 0.01)), longs=(long(),))

    assert turn.problems == ["short request: gone"]
    assert figures([turn]).itl_p99_s == pytest.approx(0.01)


def test_nothing_measured_is_no_figure() -> None:
    with pytest.raises(ValueError, match="no short or no long request finished"):
        figures([Turn(shorts=(), longs=(long(),))])


def test_the_long_prompts_take_the_same_share_of_an_engine_however_fast_it_is() -> None:
    for prefill_s in (0.05, 1.0):
        load = Load.fitting(long_tokens=3000, prefill_s=prefill_s, turn_s=12.0)
        assert prefill_s / load.every_s == pytest.approx(PREFILL_SHARE)
        assert FEWEST <= load.longs <= MOST


def test_a_long_request_that_ran_whole_says_why() -> None:
    instead = "it should be split, but no pair can hand over: it runs whole"

    (problem,) = not_split([long(prefill="p"), long(reasons=("shortest start", instead)), short(0.1)])

    assert problem == f"a long request was not split: 3000 prompt tokens, threshold 2000; {instead}"


def test_requests_placed_otherwise_than_arranged_are_a_problem() -> None:
    split = figures([Turn(shorts=(short(0.1, 0.1),), longs=(long(prefill="p"),))])
    whole = figures([Turn(shorts=(short(0.1, 0.1),), longs=(long(),))])

    assert wrongly_placed({"general": whole, "split": split}) == []
    assert len(wrongly_placed({"general": split, "split": whole})) == 2


def test_prompts_have_the_length_asked_for_and_begin_each_otherwise() -> None:
    prompts = Prompts(tokens_per_word=1.5)
    made = [prompts.of(300) for _ in range(50)]

    assert {len(each.split()) for each in made} == {200}
    assert len({each.split()[0] for each in made}) == 50
