"""Executors' registrations, checked and converted."""

from __future__ import annotations

import re

from sage.controlplane.v1 import executor_pb2
from sage_wire.errors import ErrorReason
from sage_wire.protocol import AUTOMATIC_ROLES, OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, RUN_TIME_ADAPTERS
from scheduler_svc.control.attempts.held_attempt import HeldAttempt
from scheduler_svc.control.instances.registration import Registration
from scheduler_svc.domain.instance_spec import DeviceGroup, InstanceRole, InstanceSpec, Location
from scheduler_svc.transport.automatic_roles import kept_role
from scheduler_svc.transport.enums import ROLE_FROM_WIRE
from scheduler_svc.transport.errors import WireError
from scheduler_svc.transport.executor_fields import bounded, few, refused

INSTANCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
HIGHEST_PRICE = 1e9  # per hour, in any currency; the cost of a request stays a finite number
LABELS_LIMIT = 64
PLACES_LIMIT = 64  # of a device group
CAPABILITIES_LIMIT = 256
HELD_LIMIT = 65_536  # attempts that an executor may say it holds
NEWEST_PROTOCOL_VERSION = PROTOCOL_VERSION + 1  # a newer executor also speaks ours: the scheduler may be upgraded last


def registration(wire: executor_pb2.Register) -> Registration:
    """Convert and check Register.

    Raises WireError for a protocol version that this scheduler does not speak or a field that makes no sense.
    """
    _check_version(wire)
    _check_fields(wire)
    return Registration(
        spec=InstanceSpec(
            instance_id=wire.instance_id,
            model=wire.model,
            role=ROLE_FROM_WIRE.get(wire.role, InstanceRole.GENERAL),
            engine_start_id=wire.engine_start_id,
            price_per_hour=wire.price_per_hour,
            location=Location(host=wire.location.host, rack=wire.location.rack, zone=wire.location.zone),
            labels=dict(wire.labels),
            software_version=wire.software_version,
            address=wire.address,
            device_group=_device_group(wire.device_group) if wire.HasField("device_group") else None,
        ),
        resume_secret=wire.resume_secret,
        held=tuple(map(_held, wire.held)),
        run_time_adapters=RUN_TIME_ADAPTERS in wire.capabilities,
        keeps_role=AUTOMATIC_ROLES in wire.capabilities,
        kept_role=kept_role(wire.automatic_role, wire.instance_id) if wire.HasField("automatic_role") else None,
    )


def agreed_version(wire: executor_pb2.Register) -> int:
    """Return the protocol version of the session: the older one of both sides."""
    return min(wire.protocol_version, PROTOCOL_VERSION)


def _check_version(wire: executor_pb2.Register) -> None:
    if not OLDEST_PROTOCOL_VERSION <= wire.protocol_version <= NEWEST_PROTOCOL_VERSION:
        raise WireError(
            ErrorReason.PROTOCOL_VERSION,
            f"protocol version {wire.protocol_version} is not spoken here;"
            f" this scheduler takes {OLDEST_PROTOCOL_VERSION} to {NEWEST_PROTOCOL_VERSION}",
        )


def _check_fields(wire: executor_pb2.Register) -> None:
    if not INSTANCE_ID.fullmatch(wire.instance_id):
        raise refused("instance_id", f"{wire.instance_id!r}: letters, digits and . _ : -, at most 128")
    if not wire.model:
        raise refused("model", "is empty")
    for name in ("model", "engine_start_id", "software_version", "address"):
        bounded(name, getattr(wire, name))
    for name in ("host", "rack", "zone"):
        bounded(f"location.{name}", getattr(wire.location, name))
    few("capabilities", wire.capabilities, CAPABILITIES_LIMIT)
    few("labels", wire.labels, LABELS_LIMIT)
    for key, value in wire.labels.items():
        bounded(f"labels[{key[:32]!r}]", key + value)
    few("held", wire.held, HELD_LIMIT)
    if not 0 <= wire.price_per_hour <= HIGHEST_PRICE:  # NaN is not, either
        raise refused("price_per_hour", f"{wire.price_per_hour} is not a price")
    if wire.role not in ROLE_FROM_WIRE:
        raise refused("role", f"{wire.role} is not a role")


def _held(wire: executor_pb2.HeldAttempt) -> HeldAttempt:
    return HeldAttempt(
        epoch=wire.attempt.epoch,
        number=wire.attempt.number,
        tokens=wire.tokens,
        ended=wire.ended,
        adoption_proof=wire.adoption_proof,
    )


def _device_group(wire: executor_pb2.DeviceGroup) -> DeviceGroup:
    if not INSTANCE_ID.fullmatch(wire.name):
        raise refused("device_group.name", f"{wire.name[:128]!r}: letters, digits and . _ : -, at most 128")
    if not 1 <= wire.places <= PLACES_LIMIT:
        raise refused("device_group.places", f"{wire.places} is not between 1 and {PLACES_LIMIT}")
    return DeviceGroup(name=wire.name, places=wire.places)
