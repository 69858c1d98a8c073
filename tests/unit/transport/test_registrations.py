"""What executors say when they register arrives in control.

Each test fills every field with its own value, so that one that is added and forgotten, or crossed with another, fails.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from sage.controlplane.v1 import common_pb2, executor_pb2
from sage_wire import durations
from sage_wire.errors import ErrorReason
from sage_wire.protocol import AUTOMATIC_ROLES, OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION
from scheduler_svc.control.attempts.held_attempt import HeldAttempt
from scheduler_svc.control.roles.kept_role import KeptRole
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.role_change import Cause, RoleChange
from scheduler_svc.transport import automatic_roles, registrations
from scheduler_svc.transport.clipping import REASON_BYTES
from scheduler_svc.transport.errors import WireError
from scheduler_svc.transport.executor_fields import TEXT_BYTES
from tests.unit.transport.completeness import at_default, unset
from tests.unit.transport.filled_values import EPOCH, SPEC

KEPT_ROLE = KeptRole(
    role=InstanceRole.PREFILLING,
    previous=InstanceRole.DECODING,
    cause=Cause.PREFILL_PRESSED,
    reason="why",
    age_s=2.5,
)


def the_registration() -> executor_pb2.Register:
    return executor_pb2.Register(
        protocol_version=PROTOCOL_VERSION,
        capabilities=[AUTOMATIC_ROLES],
        instance_id="d",
        engine_start_id="start",
        role=common_pb2.INSTANCE_ROLE_DECODING,
        model="m",
        location=common_pb2.Location(host="h", rack="r", zone="z"),
        labels={"a": "b"},
        price_per_hour=2.5,
        software_version="1.2",
        held=[
            executor_pb2.HeldAttempt(attempt=common_pb2.Attempt(epoch=EPOCH, number=12), tokens=3, ended=True),
        ],
        address="h:1",
        resume_secret=b"proof",
        device_group=executor_pb2.DeviceGroup(name="gpu-0", places=2),
        automatic_role=executor_pb2.AutomaticRole(
            role=common_pb2.INSTANCE_ROLE_PREFILLING,
            previous=common_pb2.INSTANCE_ROLE_DECODING,
            cause="prefill_pressed",
            reason="why",
            age=durations.to_wire(2.5),
        ),
    )


def test_a_registration() -> None:
    wire = the_registration()
    assert unset(wire) == set(), "the test itself must fill everything"
    found = registrations.registration(wire)
    assert found.spec == SPEC
    assert at_default(found.spec) == set()
    assert found.held == (HeldAttempt(epoch=EPOCH, number=12, tokens=3, ended=True),)
    assert found.resume_secret == b"proof"
    assert found.keeps_role
    assert found.kept_role == KEPT_ROLE


def test_a_role_that_came_by_itself() -> None:
    change = RoleChange(
        model="m",
        instance_id="d",
        before=KEPT_ROLE.previous,
        role=KEPT_ROLE.role,
        cause=KEPT_ROLE.cause,
        reason="why" * REASON_BYTES,
        at=0.0,
    )
    wire = automatic_roles.kept_role_to_wire(change, 2.5)
    assert unset(wire) == set()
    assert len(wire.reason) == REASON_BYTES
    wire.reason = "why"
    assert automatic_roles.kept_role(wire, "d") == KEPT_ROLE
    assert automatic_roles.kept_role_to_wire(None, 0.0) == executor_pb2.AutomaticRole()


@pytest.mark.parametrize("field", ["role", "previous"])
def test_a_kept_role_that_a_later_version_gave_is_ignored_and_logged(
    field: str, caplog: pytest.LogCaptureFixture
) -> None:
    wire = the_registration()
    setattr(wire.automatic_role, field, 99)
    assert registrations.registration(wire).kept_role is None
    assert f"instance {wire.instance_id} kept a role that is not known here" in caplog.text


def test_a_role_that_was_kept_for_a_cause_of_a_later_version_is_taken_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wire = the_registration()
    wire.automatic_role.cause = "of a later version" + "!" * 1_000
    assert registrations.registration(wire).kept_role == replace(KEPT_ROLE, cause=Cause.UNKNOWN)
    assert "for a cause that is not known here: 'of a later version" in caplog.text
    assert len(caplog.messages[0]) < 200


@pytest.mark.parametrize("version", [OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, PROTOCOL_VERSION + 1])
def test_neighbouring_versions_agree_on_the_older(version: int) -> None:
    wire = the_registration()
    wire.protocol_version = version
    registrations.registration(wire)
    assert registrations.agreed_version(wire) == min(version, PROTOCOL_VERSION)


def test_a_version_further_away_is_refused() -> None:
    wire = the_registration()
    wire.protocol_version = PROTOCOL_VERSION + 2
    with pytest.raises(WireError, match=f"{PROTOCOL_VERSION + 2} is not spoken here") as refused:
        registrations.registration(wire)
    assert refused.value.reason is ErrorReason.PROTOCOL_VERSION


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("instance_id", ""),
        ("instance_id", "two words"),
        ("instance_id", "-a"),
        ("instance_id", "x" * 129),
        ("instance_id", "a\n"),
        ("instance_id", "é"),
        ("model", ""),
        ("price_per_hour", -1.0),
        ("price_per_hour", float("nan")),
        ("price_per_hour", float("inf")),
        ("price_per_hour", 1e308),
    ],
)
def test_registrations_that_make_no_sense_name_the_field(field: str, value: object) -> None:
    wire = the_registration()
    setattr(wire, field, value)
    with pytest.raises(WireError, match=f"registration refused: {field}") as refused:
        registrations.registration(wire)
    assert refused.value.reason is ErrorReason.INVALID_REGISTRATION


def test_an_unknown_role_is_refused() -> None:
    wire = the_registration()
    wire.MergeFromString(executor_pb2.Register(role=77).SerializeToString())  # type: ignore[arg-type]
    with pytest.raises(WireError, match="role: 77"):
        registrations.registration(wire)


LONG = "x" * (TEXT_BYTES + 1)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("model", {"model": LONG}),
        ("engine_start_id", {"engine_start_id": LONG}),
        ("software_version", {"software_version": LONG}),
        ("address", {"address": LONG}),
        ("location.zone", {"location": {"zone": LONG}}),
        ("labels", {"labels": {str(n): "" for n in range(registrations.LABELS_LIMIT + 1)}}),
        ("labels['k']", {"labels": {"k": LONG}}),
        ("held", {"held": [{}] * (registrations.HELD_LIMIT + 1)}),
        ("device_group.name", {"device_group": {"name": LONG, "places": 1}}),
        ("device_group.name", {"device_group": {"places": 1}}),
        ("device_group.places", {"device_group": {"name": "gpu-0"}}),
        ("device_group.places", {"device_group": {"name": "gpu-0", "places": registrations.PLACES_LIMIT + 1}}),
    ],
)
def test_a_registration_is_bounded_in_bytes(field: str, fields: dict[str, Any]) -> None:
    wire = executor_pb2.Register(**{"protocol_version": PROTOCOL_VERSION, "instance_id": "a", "model": "m", **fields})
    with pytest.raises(WireError, match=f"^registration refused: {re.escape(field)}: "):
        registrations.registration(wire)
