"""What keeps splitting from working is said in a few words, however many pairs there are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.pd.pairs import Pair, PairBook
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.placement.split_planner import EXAMPLES
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import add_instance, make_facts, make_scheduler

SIDE = 12  # instances of each role


class CountedBook(PairBook):
    """Knows how often it was looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def __iter__(self) -> Iterator[Pair]:
        for pair in super().__iter__():
            self.looks += 1
            yield pair

    def usable_for(self, decode_instance: str) -> dict[str, Pair]:
        self.looks += 1
        return super().usable_for(decode_instance)


@pytest.fixture
def book() -> CountedBook:
    return CountedBook()


@pytest.fixture
def scheduler(book: CountedBook) -> Scheduler:
    scheduler = make_scheduler()
    scheduler._splits.pairs = book
    scheduler.set_pd(PdSettings(mode=SplitMode.ALWAYS))
    facts = make_facts(kv_connector="modelled", compatibility_key="k")
    for n in range(SIDE):
        add_instance(scheduler, f"p{n:02}", facts=facts, role=InstanceRole.PREFILLING)
        add_instance(scheduler, f"d{n:02}", facts=facts, role=InstanceRole.DECODING)
    scheduler.renew_pairs()
    return scheduler


@pytest.mark.interpreted
def test_a_few_pairs_that_failed_stand_for_all(scheduler: Scheduler, book: CountedBook) -> None:
    for pair in list(book):
        book.failed(pair, "cut off", now=0.0)
    book.looks = 0

    (condition,) = scheduler.pd_conditions()

    assert condition.count("cut off") == EXAMPLES
    assert book.looks <= SIDE + EXAMPLES


@pytest.mark.interpreted
def test_where_all_is_well_nobody_looks_further_than_the_first_pair_that_works(
    scheduler: Scheduler, book: CountedBook
) -> None:
    for pair in list(book):
        book.worked(pair, 0.01)
    book.looks = 0
    assert scheduler.pd_conditions() == []
    assert book.looks == 1


@pytest.mark.interpreted
def test_pairs_that_were_not_tried_yet_are_said_to_be_so(scheduler: Scheduler) -> None:
    (condition,) = scheduler.pd_conditions()
    assert condition.endswith("none is warmed up yet")
