"""Operators' decisions: in force at once, written as soon as the journal takes them, bounded."""

from __future__ import annotations

import asyncio

import pytest

from sage_common.virtual_clock import VirtualClock
from scheduler_svc.control.journal import fleet_decisions, operator_decisions
from scheduler_svc.control.journal.decisions import POLICY, SHADOW, SPLITTING, Decisions, InstanceDecision
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.domain.errors import JournalUnavailable
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.settings import SchedulerSettings


class StoredDecisions:
    """Implements DecisionStore; refuses while it is in trouble."""

    def __init__(self) -> None:
        self.saved: list[Decisions] = []
        self.trouble = False
        self.refused = ""  # the instance whose decision cannot be kept

    async def load(self) -> Decisions:
        fleet = {name: value for each in self.saved for name, value in each.fleet.items()}
        instances = {each.instance_id: each for saved in self.saved for each in saved.instances}
        return Decisions(
            fleet={name: value for name, value in fleet.items() if value},
            instances=tuple(each for each in instances.values() if not each.is_empty),
        )

    async def save(self, changes: Decisions) -> None:
        if self.trouble:
            raise JournalUnavailable("disk full")
        if any(each.instance_id == self.refused for each in changes.instances):
            raise ValueError("a value that no column takes")
        self.saved.append(changes)


def scheduler(**settings: object) -> Scheduler:
    return Scheduler(SchedulerSettings(**settings), PolicyCatalogue())  # type: ignore[arg-type]


async def test_a_decision_that_cannot_be_written_is_in_force_and_written_later() -> None:
    clock, store = VirtualClock(), StoredDecisions()
    decisions = OperatorDecisions(clock, store)
    store.trouble = True
    decisions.drain("a", "cable")
    await decisions.write()
    assert decisions.drained("a")
    assert decisions.instance_not_kept("a") == "disk full"
    running = asyncio.ensure_future(decisions.run())
    store.trouble = False
    await clock.advance(operator_decisions.RETRY_S + 0.1)
    running.cancel()
    assert decisions.instance_not_kept("a") == ""
    assert store.saved == [
        Decisions(instances=(InstanceDecision(instance_id="a", drained=True, drain_reason="cable"),))
    ]


async def test_only_changes_are_written() -> None:
    store = StoredDecisions()
    decisions = OperatorDecisions(VirtualClock(), store)
    decisions.set_role("a", InstanceRole.DECODING)
    await decisions.write()
    decisions.set_role("a", InstanceRole.DECODING)
    decisions.decide(SHADOW, {})
    await decisions.write()
    assert len(store.saved) == 1


async def test_without_a_journal_decisions_end_with_the_instance() -> None:
    decisions = OperatorDecisions(VirtualClock())
    decisions.drain("a", "")
    assert decisions.forget("a")
    assert not decisions.drained("a")
    lasting = OperatorDecisions(VirtualClock(), StoredDecisions())
    lasting.drain("a", "")
    assert not lasting.forget("a")
    assert lasting.drained("a")


async def test_the_oldest_decision_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_decisions, "INSTANCES_LIMIT", 2)
    store = StoredDecisions()
    decisions = OperatorDecisions(VirtualClock(), store)
    for name in ("a", "b", "c"):
        decisions.drain(name, "")
    await decisions.write()
    assert [each.instance_id for each in (await store.load()).instances] == ["b", "c"]


async def test_decisions_about_the_fleet_are_in_force_again() -> None:
    store = StoredDecisions()
    before, first = OperatorDecisions(VirtualClock(), store), scheduler()
    splitting = PdSettings(mode=SplitMode.THRESHOLD, threshold_input_tokens=99, threshold_ratio=2.5)
    before.decide(POLICY, fleet_decisions.policy(first, "priority", "rush hour"))
    before.decide(SHADOW, fleet_decisions.shadow("round_robin"))
    before.decide(SPLITTING, fleet_decisions.splitting(first, splitting))
    await before.write()
    after, second = OperatorDecisions(VirtualClock(), store), scheduler()
    await after.load()
    fleet_decisions.restore(after, second, 0.0)
    assert (second.policy, second.pd_settings) == ("priority", splitting)
    assert second.shadow is not None
    assert second.shadow.policy == "round_robin"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (POLICY, {"policy": "gone", "reason": "", "configured": "adaptive"}),
        (POLICY, {"policy": "priority", "reason": "", "configured": "cost_optimized"}),
        (POLICY, {"strange": 1}),
        (SHADOW, {"policy": "gone"}),
        (SPLITTING, {"mode": "sometimes", "configured": "other"}),
    ],
)
async def test_what_no_longer_counts_is_dropped_and_does_not_stop_the_start(
    name: str, value: dict[str, str | int]
) -> None:
    store = StoredDecisions()
    store.saved.append(Decisions(fleet={name: value}))
    decisions, made = OperatorDecisions(VirtualClock(), store), scheduler()
    await decisions.load()
    fleet_decisions.restore(decisions, made, 0.0)
    assert made.policy == SchedulerSettings().policy
    await decisions.write()
    assert (await store.load()).fleet == {}


async def test_choosing_what_is_configured_takes_a_decision_back() -> None:
    made = scheduler(policy="fifo")
    assert fleet_decisions.policy(made, "fifo", "") == {}
    assert fleet_decisions.splitting(made, made.settings.pd) == {}


async def test_a_decision_that_cannot_be_kept_keeps_no_other_from_it() -> None:
    clock, store = VirtualClock(), StoredDecisions()
    decisions = OperatorDecisions(clock, store)
    store.refused = "a"
    decisions.drain("a", "cable")
    decisions.drain("b", "cable")
    await decisions.write()
    assert [each.instance_id for saved in store.saved for each in saved.instances] == ["b"]
    assert "no column takes" in decisions.instance_not_kept("a")
    assert decisions.instance_not_kept("b") == ""
    running = asyncio.ensure_future(decisions.run())
    await clock.advance(3 * operator_decisions.RETRY_S)
    assert not running.done()
    running.cancel()


async def test_a_decision_counts_as_not_kept_until_it_is_written() -> None:
    decisions = OperatorDecisions(VirtualClock(), StoredDecisions())
    decisions.drain("a", "cable")
    assert decisions.instance_not_kept("a") != ""
    await decisions.write()
    assert decisions.instance_not_kept("a") == ""
