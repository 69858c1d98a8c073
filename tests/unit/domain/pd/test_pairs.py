"""A pair is used once a handoff worked, and not after one failed."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.pd.pairs import RETRY_MAX_S, End, PairBook, PairState
from scheduler_svc.domain.pd.specialization import specialization


def end(instance_id: str, *, start: str = "1", key: str = "k", model: str = "m") -> End:
    return End(instance_id=instance_id, engine_start_id=start, compatibility_key=key, model=model)


@pytest.fixture
def book() -> PairBook:
    pairs = PairBook()
    pairs.renew([end("p1"), end("p2")], [end("d1"), end("d2")])
    return pairs


def test_every_compatible_combination_is_a_pair(book: PairBook) -> None:
    assert {(p.prefill.instance_id, p.decode.instance_id) for p in book} == {
        ("p1", "d1"),
        ("p1", "d2"),
        ("p2", "d1"),
        ("p2", "d2"),
    }


def test_nothing_hands_over_to_itself_without_a_connector_or_to_another_model() -> None:
    book = PairBook()
    prefills = [end("h"), end("p", key="other", model="n"), end("q", key="")]
    book.renew(prefills, [end("h"), end("d"), end("e", key="")])
    assert [(p.prefill.instance_id, p.decode.instance_id) for p in book] == [("h", "d")]


def test_a_pair_that_is_not_compatible_is_shown_and_never_tried() -> None:
    book = PairBook()
    book.renew([end("p", key="nixl/16")], [end("d", key="nixl/32")])
    (pair,) = book
    assert (pair.state, pair.reason) == (PairState.FAILED, "not compatible: nixl/16 and nixl/32")
    assert book.due(now=1e9) == []
    assert not book.usable_for("d")


def test_an_untried_pair_is_due_and_not_usable(book: PairBook) -> None:
    assert len(book.due(now=0.0)) == 4
    assert not book.usable_for("d1")


def test_a_pair_is_usable_once_a_handoff_worked(book: PairBook) -> None:
    pair = book.find("p1", "d1")
    assert pair is not None
    book.worked(pair, 0.5)
    assert book.usable_for("d1") == {"p1": pair}
    assert pair not in book.due(now=100.0)


def test_a_failed_pair_is_tried_again_later_and_later(book: PairBook) -> None:
    pair = book.find("p1", "d1")
    assert pair is not None
    now, waits = 0.0, []
    for _ in range(10):
        book.failed(pair, "no route", now)
        assert pair.state is PairState.FAILED
        assert pair not in book.due(now)
        waits.append(pair.retry_at - now)
        now = pair.retry_at
        assert pair in book.due(now)
        pair.state = PairState.WARMING
    assert waits == sorted(waits)
    assert waits[-1] == RETRY_MAX_S


def test_a_new_engine_proves_itself_anew(book: PairBook) -> None:
    pair = book.find("p1", "d1")
    other = book.find("p2", "d1")
    assert pair is not None
    assert other is not None
    book.worked(pair, 0.5)
    book.worked(other, 0.5)
    book.renew([end("p1", start="2"), end("p2")], [end("d1"), end("d2")])
    assert set(book.usable_for("d1")) == {"p2"}


def test_an_engine_that_is_away_keeps_what_it_proved_and_is_not_tried(book: PairBook) -> None:
    worked, failed = book.find("p1", "d1"), book.find("p2", "d1")
    assert worked is not None
    assert failed is not None
    book.worked(worked, 0.5)
    book.failed(failed, "no route", now=0.0)
    ends = [end("p1"), end("p2")], [end("d1"), end("d2")]
    book.renew(*ends, away=["d1"])
    assert {(p.prefill.instance_id, p.decode.instance_id) for p in book.due(now=100.0)} == {("p1", "d2"), ("p2", "d2")}
    book.renew(*ends)
    assert book.usable_for("d1") == {"p1": worked}
    assert (failed.failures, failed.retry_at) == (1, 2.0)
    assert failed in book.due(now=100.0)


def test_a_warm_up_that_an_end_left_is_made_anew_when_it_is_back(book: PairBook) -> None:
    before = book.find("p1", "d1")
    assert before is not None
    before.state = PairState.WARMING
    ends = [end("p1")], [end("d1")]
    book.renew(*ends, away=["d1"])
    book.failed(before, "no answer", now=0.0)
    book.renew(*ends)
    (now_there,) = book.due(now=0.0)
    assert (now_there.state, now_there.failures) == (PairState.UNTRIED, 0)


def test_an_end_that_left_takes_its_pairs_along(book: PairBook) -> None:
    book.renew([end("p1")], [end("d1"), end("d2")])
    assert len(book) == 2


def test_handoff_times_are_averaged_forgetting(book: PairBook) -> None:
    pair = book.find("p1", "d1")
    assert pair is not None
    book.worked(pair, 1.0)
    book.worked(pair, 0.0)
    assert pair.handoff_s == pytest.approx(0.8)


def test_what_a_handoff_takes_is_a_matter_of_the_model(book: PairBook) -> None:
    ends = [end("p1"), end("q", model="n")], [end("d1"), end("d2"), end("e", model="n")]
    book.renew(*ends)
    assert book.typical_handoff_s("m") is None
    for (prefill, decode), took_s in {("p1", "d1"): 1.0, ("p1", "d2"): 2.0, ("q", "e"): 30.0}.items():
        pair = book.find(prefill, decode)
        assert pair is not None
        book.worked(pair, took_s)
    assert book.typical_handoff_s("m") == pytest.approx(1.5)
    assert book.typical_handoff_s("n") == pytest.approx(30.0)
    book.renew(ends[0], ends[1][1:])
    assert book.typical_handoff_s("m") == pytest.approx(2.0)


def test_specialization_follows_the_role_and_needs_a_connector() -> None:
    prefilling = specialization(InstanceRole.PREFILLING, kv_connector="NixlConnector")
    decoding = specialization(InstanceRole.DECODING, kv_connector="NixlConnector")
    assert prefilling.prefill > prefilling.decode == 0
    assert decoding.decode > decoding.prefill == 0
    hybrid = specialization(InstanceRole.HYBRID, kv_connector="NixlConnector")
    assert hybrid.prefill > 0
    assert hybrid.decode > 0
    for role in InstanceRole:
        bare = specialization(role, kv_connector="")
        assert bare.prefill == bare.decode == 0


def test_all_that_was_under_way_counts_as_one_failure(book: PairBook) -> None:
    pair = book.find("p1", "d1")
    assert pair is not None
    for _ in range(2000):
        book.failed(pair, "gone", now=0.0)
    assert pair.failures == 1


def test_a_pair_that_never_works_goes_on_being_tried(book: PairBook) -> None:
    pair = book.find("p1", "d1")
    assert pair is not None
    for _ in range(2000):
        pair.state = PairState.WARMING
        book.failed(pair, "no route", now=0.0)
    assert pair.retry_at == RETRY_MAX_S
