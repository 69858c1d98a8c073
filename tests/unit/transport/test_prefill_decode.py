"""Pairs on the wire: all are counted, a bounded number is shown."""

from __future__ import annotations

import pytest

from sage.controlplane.v1 import admin_pb2
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.pd.pairs import PairState
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.transport import prefill_decode
from scheduler_svc.transport.prefill_decode import PAIRS_IN_SNAPSHOT, PAIRS_SHOWN
from tests.contract.policies.modelled_fleet import add_instance, make_facts, make_scheduler

SIDE = 33  # instances of each role: more pairs than are ever shown
Wire = admin_pb2.PrefillDecodePair
FAILED = 3


@pytest.fixture
def scheduler() -> Scheduler:
    """All pairs work but the last three, which failed, and the two before them: one untried, one being tried."""
    scheduler = make_scheduler()
    facts = make_facts(kv_connector="modelled", compatibility_key="k")
    for n in range(SIDE):
        add_instance(scheduler, f"p{n:02}", facts=facts, role=InstanceRole.PREFILLING)
        add_instance(scheduler, f"d{n:02}", facts=facts, role=InstanceRole.DECODING)
    scheduler.set_pd(PdSettings(mode=SplitMode.ALWAYS))
    *others, trying, _ = scheduler.pairs()[:-FAILED]
    for pair in others:
        scheduler.handed_over(pair, 0.01)
    trying.state = PairState.WARMING
    for pair in scheduler.pairs()[-FAILED:]:
        scheduler.warm_up_failed(pair, "cut off", now=0.0)
    return scheduler


@pytest.mark.parametrize("most", [PAIRS_SHOWN, PAIRS_IN_SNAPSHOT])
def test_those_in_trouble_are_shown_first_and_the_others_as_far_as_there_is_room(
    scheduler: Scheduler, most: int
) -> None:
    told = prefill_decode.state(scheduler, 0.0, most)
    assert len(told.pairs) == most < SIDE * SIDE
    states = [each.state for each in told.pairs]
    assert states[: FAILED + 2] == [Wire.STATE_FAILED] * FAILED + [Wire.STATE_WARMING, Wire.STATE_UNTRIED]
    assert set(states[FAILED + 2 :]) == {Wire.STATE_USABLE}


def test_all_pairs_are_counted_whether_shown_or_not(scheduler: Scheduler) -> None:
    told = prefill_decode.state(scheduler, 0.0, PAIRS_IN_SNAPSHOT)
    assert {each.state: each.pairs for each in told.pair_counts} == {
        Wire.STATE_FAILED: FAILED,
        Wire.STATE_WARMING: 1,
        Wire.STATE_UNTRIED: 1,
        Wire.STATE_USABLE: SIDE * SIDE - FAILED - 2,
    }


def test_where_splitting_is_off_no_pair_is_shown_or_counted(scheduler: Scheduler) -> None:
    scheduler.set_pd(PdSettings(mode=SplitMode.NEVER))
    told = prefill_decode.state(scheduler, 0.0)
    assert (len(told.pairs), len(told.pair_counts)) == (0, 0)
