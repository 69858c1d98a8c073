"""What each role may do with tenants and instances."""

from __future__ import annotations

import asyncio

import pytest

from sage_common.grants import Grant, Role, matched, role_of
from scheduler_svc.access.caller import caller, set_caller
from scheduler_svc.access.identity import ANYONE, Identity, PermissionDenied

APPLICATION = Identity(name="app", grant=Grant(role=Role.APPLICATION, tenant="a"))
GATEWAY = Identity(name="gate", grant=Grant(role=Role.GATEWAY, tenants=("a", "team-*")))
OPERATOR = Identity(name="op", grant=Grant(role=Role.OPERATOR))
OBSERVER = Identity(name="obs", grant=Grant(role=Role.OBSERVER))
EXECUTOR = Identity(name="exe", grant=Grant(role=Role.EXECUTOR, instances=("host1-*", "x")))


@pytest.mark.parametrize(
    ("identity", "named", "tenant"),
    [
        (ANYONE, "", ""),
        (ANYONE, "b", "b"),
        (APPLICATION, "", "a"),
        (APPLICATION, "a", "a"),
        (GATEWAY, "a", "a"),
        (GATEWAY, "team-7", "team-7"),
    ],
)
def test_whose_a_new_request_is(identity: Identity, named: str, tenant: str) -> None:
    assert identity.tenant_for(named) == tenant


@pytest.mark.parametrize(
    ("identity", "named"),
    [(APPLICATION, "b"), (APPLICATION, "default"), (GATEWAY, ""), (GATEWAY, "b"), (GATEWAY, "team-"), (OPERATOR, "a")],
)
def test_a_tenant_that_is_not_the_callers_is_refused_by_name(identity: Identity, named: str) -> None:
    with pytest.raises(PermissionDenied, match=r"^tenant: ") as refused:
        identity.tenant_for(named)
    assert refused.value.field == "tenant"


def test_a_gateway_that_names_no_tenant_is_told_so() -> None:
    with pytest.raises(PermissionDenied, match=r"^tenant: gate may not send requests without a tenant$"):
        GATEWAY.tenant_for("")


@pytest.mark.parametrize(
    ("identity", "named", "tenant"),
    [
        (ANYONE, "b", "b"),
        (APPLICATION, "", "a"),
        (APPLICATION, "b", None),
        (GATEWAY, "team-1", "team-1"),
        (GATEWAY, "b", None),
        (OPERATOR, "b", "b"),
        (OBSERVER, "b", "b"),
    ],
)
def test_whose_requests_are_seen(identity: Identity, named: str, tenant: str | None) -> None:
    assert identity.tenant_of(named) == tenant


def test_instances_are_bound_to_the_identity() -> None:
    for known in ("host1-a", "x"):
        EXECUTOR.check_instance(known)
    ANYONE.check_instance("anything")
    for other in ("host2-a", "host1-", "xx"):
        with pytest.raises(PermissionDenied, match=f"may not register '{other}'"):
            EXECUTOR.check_instance(other)


async def test_each_task_answers_the_call_of_its_own_caller() -> None:
    async def answers(identity: Identity) -> bool:
        set_caller(identity)
        await asyncio.sleep(0)
        return caller() is identity

    assert all(await asyncio.gather(answers(OPERATOR), answers(OBSERVER)))
    with pytest.raises(LookupError):
        caller()


@pytest.mark.parametrize(
    ("role", "bound", "said"),
    [
        (Role.APPLICATION, {}, "tenant: the role application needs it"),
        (Role.GATEWAY, {}, "tenants: the role gateway needs it"),
        (Role.EXECUTOR, {}, "instances: the role executor needs it"),
        (Role.OPERATOR, {"tenant": "a"}, "tenant: only the role application has it, not operator"),
        (Role.OBSERVER, {"instances": ("a",)}, "instances: only the role executor"),
        (Role.APPLICATION, {"tenant": "a", "tenants": ("b",)}, "tenants: only the role gateway"),
        (Role.APPLICATION, {"tenant": "a\nb"}, "cannot be printed"),
        (Role.GATEWAY, {"tenants": ("*-*",)}, r"at most one \*"),
        (Role.EXECUTOR, {"instances": ("",)}, r"at most one \*"),
    ],
)
def test_a_grant_that_makes_no_sense(role: Role, bound: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Grant(role=role, **bound)  # type: ignore[arg-type]


def test_an_unknown_role_is_told_which_there_are() -> None:
    with pytest.raises(ValueError, match="'root' is not a role; there are: application, gateway"):
        role_of("root")


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("a", "a", ""),
        ("a", "ab", None),
        ("a*", "ab", "b"),
        ("a*", "a", None),
        ("*b", "ab", "a"),
        ("a*a", "a", None),
        ("a*a", "aa", None),
        ("a*a", "aba", "b"),
        ("*", "anything", "anything"),
        ("*", "", None),
        ("A", "a", None),
    ],
)
def test_what_a_star_stands_for(pattern: str, name: str, found: str | None) -> None:
    assert matched(pattern, name) == found
