"""A head that fits nowhere, and requests behind it that should be split: each has other instances to wait for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.offered_load import NO_LOAD
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.objectives.earliest_finish import EarliestFinish
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import add_instance, make_facts, make_request, make_scheduler

THRESHOLD = PdSettings(mode=SplitMode.THRESHOLD, threshold_input_tokens=500)
PD = {"kv_connector": "modelled", "compatibility_key": "k"}


def pd_core(*, general: bool = True, capacity: int = 65_536, max_running: int = 4) -> Scheduler:
    """``p``, ``d`` and perhaps ``g``, which is full; the pair is proved."""
    scheduler = make_scheduler(pd=THRESHOLD)
    facts = make_facts(kv_capacity_tokens=capacity, max_running=max_running, **PD)
    add_instance(scheduler, "p", facts=facts, role=InstanceRole.PREFILLING)
    add_instance(scheduler, "d", facts=facts, role=InstanceRole.DECODING)
    (pair,) = scheduler.pairs()
    scheduler.handed_over(pair, 0.01)
    if general:
        add_instance(scheduler, "g", facts=make_facts(max_running=1))
        for n in range(2):  # one runs, one is in the lookahead
            scheduler.enqueue(make_request(f"fills-{n}"), 0.0)
        assert [each.instance_id for each in scheduler.schedule(0.0)] == ["g", "g"]
    return scheduler


def placed(scheduler: Scheduler) -> dict[str, tuple[str, str]]:
    """Prefill instance (empty: whole) and decode instance, by request."""
    return {
        each.key.request_id: (each.prefill.instance_id if each.prefill else "", each.instance_id)
        for each in scheduler.schedule(0.0)
    }


def because(scheduler: Scheduler, request_id: str) -> str:
    view = scheduler.position(RequestKey(tenant="t", request_id=request_id), 0.0)
    assert view is not None
    return view.because


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[object]:
    """One entry per call of a method from now on."""
    calls: list[object] = []
    real = getattr(owner, name)

    def call(*given: Any) -> Any:
        calls.append(given)
        return real(*given)

    monkeypatch.setattr(owner, name, call)
    return calls


def test_what_is_split_goes_before_a_head_that_waits_for_another_instance() -> None:
    scheduler = pd_core()
    scheduler.enqueue(make_request("short"), 0.0)
    scheduler.enqueue(make_request("long", prompt=600), 0.0)
    (decision,) = scheduler.schedule(0.0)
    assert (decision.key.request_id, decision.instance_id) == ("long", "d")
    assert decision.prefill is not None
    assert "backfilled ahead of t/short, which waits for capacity on g" in " ".join(decision.reasons)
    assert because(scheduler, "short") == "instance g full: no slot free"


def test_it_goes_before_a_head_that_wants_as_much() -> None:
    scheduler = pd_core()
    scheduler.enqueue(make_request("short", prompt=400, output=400), 0.0)
    scheduler.enqueue(make_request("long", prompt=600, output=400), 0.0)
    assert placed(scheduler) == {"long": ("p", "d")}


def test_one_end_with_the_heads_claim_on_it_is_left_to_the_head() -> None:
    """Without an instance for whole requests the head waits for the decode instance itself."""
    scheduler = pd_core(general=False, capacity=2_048)
    scheduler.enqueue(make_request("runs", prompt=400, output=800), 0.0)
    assert placed(scheduler) == {"runs": ("", "d")}
    scheduler.enqueue(make_request("head", prompt=400, output=600), 0.0)
    scheduler.enqueue(make_request("long", prompt=600, output=32), 0.0)
    assert placed(scheduler) == {}
    assert because(scheduler, "long") == "t/head is ahead and claims capacity on d"


def test_behind_a_head_that_is_to_be_split_itself_splits_keep_their_turn() -> None:
    """Small ones would take the room at the pair from it again and again."""
    scheduler = pd_core(capacity=2_048)
    scheduler.enqueue(make_request("runs", prompt=600, output=700), 0.0)
    assert placed(scheduler) == {"runs": ("p", "d")}
    scheduler.enqueue(make_request("head", prompt=800, output=100), 0.0)
    scheduler.enqueue(make_request("small", prompt=500, output=32), 0.0)
    assert placed(scheduler) == {}
    said = because(scheduler, "head")
    assert said.startswith("should be split: no pair of instances has capacity now; to run whole: instance g full: ")


@pytest.mark.interpreted
def test_a_request_to_be_split_waits_where_the_objective_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = pd_core(general=False)
    offers: list[Demand] = []

    def choose(self: EarliestFinish, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        offers.append(demand)
        return Choice(index=0, why="is worth the wait", waits=True)

    def choose_only(self: EarliestFinish, demand: Demand, account: Account, now: float) -> Choice:
        return choose(self, demand, [account], now)

    monkeypatch.setattr(EarliestFinish, "choose", choose)
    monkeypatch.setattr(EarliestFinish, "choose_only", choose_only)
    scheduler.enqueue(make_request("long", prompt=600), 0.0)

    assert placed(scheduler) == {}
    assert because(scheduler, "long").startswith("should be split: is worth the wait")
    assert [each.instance_id for each in offers[0].able] == ["d"]
    assert offers[0].load is not NO_LOAD


@pytest.mark.interpreted
def test_without_a_slot_at_either_side_nobody_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = pd_core(max_running=1)
    for n in range(2):
        scheduler.enqueue(make_request(f"runs-{n}", prompt=600), 0.0)
    assert len(placed(scheduler)) == 2
    asked = counted(monkeypatch, scheduler._placer, "demand")
    for n in range(10):
        scheduler.enqueue(make_request(f"waits-{n}", prompt=600), 0.0)
    assert placed(scheduler) == {}
    assert len(asked) == 1, "the head"


@pytest.mark.interpreted
def test_one_that_finds_no_fits_at_the_pair_is_looked_at_for_all_that_want_as_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler = pd_core(capacity=2_048)
    scheduler.enqueue(make_request("runs", prompt=600, output=700), 0.0)
    assert placed(scheduler) == {"runs": ("p", "d")}
    scheduler.enqueue(make_request("head"), 0.0)
    planned = counted(monkeypatch, scheduler._splits, "_pair_up")
    for n in range(10):
        scheduler.enqueue(make_request(f"waits-{n}", prompt=800, output=100), 0.0)
    assert placed(scheduler) == {}
    assert len(planned) == 1


def test_what_should_be_split_and_waits_says_so() -> None:
    scheduler = pd_core()
    (pair,) = scheduler.pairs()
    scheduler.warm_up_failed(pair, "no route", 0.0)
    scheduler.enqueue(make_request("short"), 0.0)
    scheduler.enqueue(make_request("long", prompt=600), 0.0)
    assert placed(scheduler) == {}
    said = because(scheduler, "long")
    assert said.startswith("should be split: no pair of 'tiny' can hand over (p to d: no route); to run whole: ")
    assert "instance g full" in said


def test_one_that_runs_whole_instead_says_so_once_and_never_that_it_is_split() -> None:
    scheduler = make_scheduler(pd=PdSettings(mode=SplitMode.ALWAYS))
    add_instance(scheduler, "g", facts=make_facts())
    scheduler.enqueue(make_request("long", prompt=600), 0.0)
    (decision,) = scheduler.schedule(0.0)
    assert decision.phase_reason == "it cannot be split now (every request is split)"
    assert sum("should be split and runs whole" in reason for reason in decision.reasons) == 1


def add_pair(scheduler: Scheduler, number: int, **facts: Any) -> None:
    """Add ``p1`` and ``d1``, or whatever the number is, which hand over to one another and to nobody else."""
    pair = make_facts(kv_connector="modelled", compatibility_key=str(number), **facts)
    add_instance(scheduler, f"p{number}", facts=pair, role=InstanceRole.PREFILLING)
    add_instance(scheduler, f"d{number}", facts=pair, role=InstanceRole.DECODING)
    proved = scheduler.pair_between(f"p{number}", f"d{number}")
    assert proved is not None
    scheduler.handed_over(proved, 0.01)


def full_beside_pairs(*tokenizers: str) -> Scheduler:
    """``g``, which is full, and a pair for each tokenizer; the first pair has a place for one request."""
    scheduler = make_scheduler(pd=THRESHOLD)
    add_instance(scheduler, "g", facts=make_facts(max_running=1, tokenizer_hash="x"))
    for number, each in enumerate(tokenizers, start=1):
        add_pair(scheduler, number, tokenizer_hash=each, max_running=1 if number == 1 else 4)
    for n in range(2):
        scheduler.enqueue(make_request(f"fills-{n}"), 0.0)
    assert len(scheduler.schedule(0.0)) == 2
    return scheduler


def test_where_one_kind_finds_no_pair_another_kind_as_large_finds_one() -> None:
    scheduler = full_beside_pairs("x", "y")
    for n in range(2):  # one runs, one is in the lookahead
        scheduler.enqueue(make_request(f"fills-pair-{n}", prompt=600, tokenizer_hash="x"), 0.0)
    assert set(placed(scheduler).values()) == {("p1", "d1")}

    scheduler.enqueue(make_request("head", prompt=100), 0.0)
    scheduler.enqueue(make_request("x", prompt=600, tokenizer_hash="x"), 0.0)
    scheduler.enqueue(make_request("any", prompt=600), 0.0)

    assert placed(scheduler) == {"any": ("p2", "d2")}


def test_a_request_that_only_a_pair_can_serve_goes_there_behind_a_blocked_head() -> None:
    scheduler = full_beside_pairs("y")

    scheduler.enqueue(make_request("head", prompt=100), 0.0)
    scheduler.enqueue(make_request("y", prompt=600, tokenizer_hash="y"), 0.0)

    assert placed(scheduler) == {"y": ("p1", "d1")}
