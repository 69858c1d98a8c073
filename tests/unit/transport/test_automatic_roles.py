"""Automatic roles on the wire, in the SDK and in ``sagectl pd get``."""

from __future__ import annotations

import pytest

from sage_client import InstanceRole as Role
from sage_client._decode_admin import instance as decode_instance
from sage_client._decode_prefill_decode import status
from sagectl.commands.instances import _why
from sagectl.commands.pd import show_roles
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.roles.role_balancer import KEPT
from scheduler_svc.domain.roles.settings import RoleSettings
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.transport import prefill_decode
from scheduler_svc.transport.instances import instance_view
from tests.contract.policies.modelled_fleet import MODEL, add_instance, make_facts, make_scheduler, press


def make_fleet(*, automatic: bool = True) -> Scheduler:
    scheduler = make_scheduler(
        pd=PdSettings(mode=SplitMode.ALWAYS),
        roles=RoleSettings(automatic=automatic, delay_s=0.0, cooldown_s=0.0, back_s=0.0),
    )
    facts = make_facts(kv_connector="c", compatibility_key="k")
    for name, role in (("p0", "prefilling"), ("d0", "decoding"), ("d1", "decoding")):
        add_instance(scheduler, name, facts=facts, role=InstanceRole(role))
    return scheduler


def pressed(scheduler: Scheduler, now: float, **shares: float) -> None:
    press(scheduler, now, **shares)
    scheduler.balance_roles(frozenset(), now)


def test_a_change_is_told_with_its_age_cause_and_reason_and_so_are_both_sides() -> None:
    scheduler = make_fleet()
    pressed(scheduler, 10.0, prefill=0.6)
    told = status(prefill_decode.state(scheduler, 14.0))
    assert told.automatic_roles
    assert [(s.model, s.role, s.ready, s.pressure) for s in told.sides] == [
        (MODEL, Role.PREFILLING, 1, pytest.approx(1.2)),
        (MODEL, Role.DECODING, 2, 0.0),
    ]
    (change,) = told.role_changes
    assert (change.instance_id, change.model, change.previous, change.role) == (
        "d0",
        MODEL,
        Role.DECODING,
        Role.PREFILLING,
    )
    assert (change.cause, change.age_s) == ("prefill_pressed", 4.0)
    assert change.reason.startswith("prefill is pressed, 1.20 (prompts are to wait 60% of their TTFT target)")
    assert decode_instance(instance_view(scheduler.instance("d0"), 14.0)).role_change == change
    assert decode_instance(instance_view(scheduler.instance("d1"), 14.0)).role_change is None


def test_the_latest_changes_are_kept() -> None:
    scheduler = make_fleet()
    for n in range(KEPT + 4):
        share = {"prefill": 0.9} if n % 2 == 0 else {"decode": 1.8}
        pressed(scheduler, 1_000.0 * n, **share)
    told = status(prefill_decode.state(scheduler, 1_000_000.0))
    assert len(told.role_changes) == KEPT
    ages = [each.age_s for each in told.role_changes]
    assert ages == sorted(ages)


def test_the_command_shows_them_and_nothing_where_roles_are_not_automatic(capsys: pytest.CaptureFixture[str]) -> None:
    scheduler = make_fleet()
    pressed(scheduler, 10.0, prefill=0.6)
    show_roles(status(prefill_decode.state(scheduler, 14.0)))
    shown = capsys.readouterr().out
    assert "automatic roles" in shown
    assert "1.20" in shown
    assert "4s ago" in shown
    show_roles(status(prefill_decode.state(make_fleet(automatic=False), 14.0)))
    assert not capsys.readouterr().out


def test_the_list_of_instances_says_why_a_role_is_another_one() -> None:
    scheduler = make_fleet()
    pressed(scheduler, 10.0, prefill=0.6)
    why = _why(decode_instance(instance_view(scheduler.instance("d0"), 14.0)))
    assert why.startswith("prefilling, before decoding, for 4s: prefill is pressed, 1.20")
    assert _why(decode_instance(instance_view(scheduler.instance("d1"), 14.0))) == ""
