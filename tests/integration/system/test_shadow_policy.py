"""Operators let a policy decide beside the one in force, through the SDK."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest

import sage_client as sage
from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.policies import catalogue
from scheduler_svc.domain.policies.builtin import make_fifo
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings
from tests.integration.system.local_fleet import LocalFleet
from tests.support.eventually import eventually


async def test_its_choices_are_compared(fleet: LocalFleet) -> None:
    for name in ("a", "b"):
        await fleet.add(name)
    assert await fleet.client.get_shadow_policy() is None
    change = await fleet.client.set_shadow_policy("priority")
    assert change == sage.ShadowPolicyChange(policy="priority", previous="")
    for _ in range(3):
        await fleet.client.generate("Once upon a time", max_tokens=2).result()
    shadow = await fleet.client.get_shadow_policy()
    assert shadow is not None
    assert (shadow.policy, shadow.in_force, shadow.compared, shadow.failure) == ("priority", "fifo", 3, "")
    assert shadow.same <= 3
    assert shadow.chosen is not None
    assert shadow.shadow is not None
    assert 0 < shadow.chosen.first_token_s < shadow.chosen.finish_s
    await fleet.client.set_shadow_policy("")
    assert await fleet.client.get_shadow_policy() is None


async def test_an_unknown_policy_is_refused(fleet: LocalFleet) -> None:
    with pytest.raises(sage.UnknownPolicyError):
        await fleet.client.set_shadow_policy("best")


class Raises:
    """An objective that always fails."""

    reserved_slots = 0

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        raise RuntimeError("cannot decide")


def make_broken(settings: SchedulerSettings) -> Policy:
    return replace(make_fifo(settings), name="broken", objective=Raises())


async def test_its_failure_is_loud_and_no_request_notices(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = EntryPoint(name="broken", value=f"{__name__}:make_broken", group=catalogue.ENTRY_POINT_GROUP)
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [plugin])
    async with LocalFleet() as fleet:
        await fleet.add("a")
        await fleet.client.set_shadow_policy("broken")
        done = await fleet.client.generate("Once upon a time", max_tokens=2).result()
        assert done.decisions[-1].policy == "fifo"
        told = "shadow policy broken is switched off, it failed: RuntimeError: cannot decide"
        await eventually(lambda: told in caplog.text, what="the failure in the log")
        shadow = await fleet.client.get_shadow_policy()
    assert shadow is not None
    assert shadow.failure == "RuntimeError: cannot decide"
    assert caplog.text.count(told) == 1
