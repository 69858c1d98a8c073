"""Every error a caller can meet has its reason, its status and its details; nothing else says anything of its cause."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from sage_wire.errors import DOMAIN, ErrorReason
from scheduler_svc.access import identity
from scheduler_svc.control.instances import registration
from scheduler_svc.control.requests import model_directory as model_watch
from scheduler_svc.control.requests import output_log, tokenizers
from scheduler_svc.domain import errors
from scheduler_svc.domain.errors import FieldViolation
from scheduler_svc.transport.errors import REASONS, WireError, to_status
from scheduler_svc.transport.two_way_stream import both_ways

M = TypeVar("M", bound=Message)

NEVER_MET = {errors.SchedulerError}
"""The base of all."""

NEVER_LEAVES_CONTROL = {tokenizers.PromptError, output_log.OutputGap}
"""Turned into something else, or ends the service, before a caller could meet it."""

METADATA_BYTES = 8 * 1024
"""What gRPC takes of trailing metadata by default."""


def _exceptions_of(*modules: object) -> set[type[Exception]]:
    found: set[type[Exception]] = set()
    for module in modules:
        for value in vars(module).values():
            own = getattr(value, "__module__", "") == getattr(module, "__name__", None)
            if own and isinstance(value, type) and issubclass(value, Exception):
                found.add(value)
    return found


def _detail(status: status_pb2.Status, kind: type[M]) -> M | None:
    for packed in status.details:
        found = kind()
        if packed.Unpack(found):
            return found
    return None


def _info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    info = _detail(status, error_details_pb2.ErrorInfo)
    assert info is not None
    return info


def test_every_domain_error_is_in_the_table() -> None:
    missing = _exceptions_of(errors) - NEVER_MET - set(REASONS)
    assert not missing, f"a caller would be told INTERNAL of {missing}"


def test_every_control_error_is_in_the_table_or_never_leaves() -> None:
    found = _exceptions_of(registration, tokenizers, output_log, model_watch)
    assert found - NEVER_LEAVES_CONTROL <= set(REASONS)


def test_no_two_errors_share_a_reason() -> None:
    assert len(set(REASONS.values())) == len(REASONS)


def _one_of_each() -> Iterator[Exception]:
    yield errors.InvalidRequest([FieldViolation(field="spec.model", description="is odd")])
    yield errors.UnknownModel("m", ["n"])
    yield errors.RequestConflict("r")
    yield errors.RequestNotFound("r")
    yield errors.BatchNotFound("b")
    yield errors.FileNotFound("f")
    yield errors.InstanceNotFound("i", ["j"])
    yield errors.UnknownPolicy("p", ["q"])
    yield errors.InvalidTransition("instance 'i'", "lost", "ready")
    yield errors.QueueFull("m", 7, 2.5)
    yield errors.TenantLimitReached("acme", "waiting_limit", 7, 2.5)
    yield errors.Overloaded("the queue of 'm' is full", cause="displaced", expected_wait_s=2.5)
    yield errors.LimitReached("models", 3)
    yield errors.NoInstance("m", "none is ready")
    yield errors.ShuttingDown()
    yield errors.Recovering(0.25)
    yield errors.NotLeader(0.25, leader="a:1,b:2", epoch=7)
    yield errors.JournalUnavailable("disk full")
    yield errors.NoJournal()
    yield errors.OutputLost("it has 3 output tokens")
    yield errors.DeadlineExceeded("in the queue")
    yield errors.RequestCancelled("enough")
    yield errors.GenerationFailed("no luck", attempts=2)
    yield errors.ModelChanged("m", "weights w")
    yield errors.PolicyFailed("p")
    yield registration.DuplicateInstance("i")
    yield registration.UnknownSession()
    yield identity.Unauthenticated("no credentials")
    yield identity.PermissionDenied("tenant: not yours", field="tenant")


EACH = list(_one_of_each())


def test_one_of_each_is_one_of_each() -> None:
    assert {type(error) for error in EACH} == set(REASONS)


@pytest.mark.parametrize("error", EACH, ids=lambda e: type(e).__name__)
def test_an_error_arrives_with_its_reason_its_status_and_its_sentence(error: Exception) -> None:
    reason = REASONS[type(error)]
    status = to_status(error)
    info = _info(status)
    assert info.domain == DOMAIN
    assert ErrorReason.from_code(info.reason) is reason
    assert status.code == reason.status.value[0]
    assert status.message == str(error)
    assert rpc_status.to_status(status).code is reason.status


def test_every_field_at_fault_arrives() -> None:
    violations = [FieldViolation(field=f"spec.sampling.f{i}", description=f"is wrong {i}") for i in range(5)]
    found = _detail(to_status(errors.InvalidRequest(violations)), error_details_pb2.BadRequest)
    assert found is not None
    assert [(v.field, v.description) for v in found.field_violations] == [(v.field, v.description) for v in violations]


def test_a_full_queue_says_when_to_come_back() -> None:
    status = to_status(errors.QueueFull("m", 7, 2.5))
    found = _detail(status, error_details_pb2.RetryInfo)
    assert found is not None
    assert found.retry_delay.ToTimedelta().total_seconds() == 2.5
    assert dict(_info(status).metadata) == {"model": "m", "limit": "7"}


def test_an_unknown_policy_names_the_field() -> None:
    found = _detail(to_status(errors.UnknownPolicy("p", ["q"])), error_details_pb2.BadRequest)
    assert found is not None
    assert [v.field for v in found.field_violations] == ["policy"]


def test_a_field_that_only_others_may_name_is_named() -> None:
    for field in ("tenant", ""):
        found = _detail(to_status(identity.PermissionDenied("not yours", field=field)), error_details_pb2.BadRequest)
        assert found is not None
        assert [v.field for v in found.field_violations] == ([field] if field else [])


def test_a_state_that_does_not_allow_it_is_a_precondition() -> None:
    found = _detail(to_status(errors.InvalidTransition("it", "lost", "ready")), error_details_pb2.PreconditionFailure)
    assert found is not None
    assert "lost" in found.violations[0].description


def test_errors_of_the_transport_carry_their_own_reason() -> None:
    status = to_status(WireError(ErrorReason.NOT_IMPLEMENTED, "not here"))
    assert status.code == grpc.StatusCode.UNIMPLEMENTED.value[0]
    assert _info(status).reason == "NOT_IMPLEMENTED"


class _Unforeseen(errors.InvalidRequest):
    """A subclass somebody forgot to map."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the password is swordfish"),
        KeyError("swordfish"),
        RuntimeError("swordfish", {"prompt": "swordfish"}),
        _Unforeseen([FieldViolation(field="swordfish", description="swordfish")]),
    ],
    ids=lambda e: type(e).__name__,
)
def test_anything_unforeseen_is_internal_and_leaks_nothing(error: Exception) -> None:
    status = to_status(error)
    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert _info(status).reason == "INTERNAL"
    assert b"swordfish" not in status.SerializeToString()


@pytest.mark.parametrize("letter", ["x", "é", "漢", "😀", "\x00", "%"])
@pytest.mark.parametrize("count", [1, 40])
def test_a_status_never_outgrows_trailing_metadata(letter: str, count: int) -> None:
    """Past gRPC's bound a client would be told of the metadata's size instead of its mistake."""
    long = letter * 5_000
    found = [
        errors.InvalidRequest([FieldViolation(field=f"{i}{long}", description=long) for i in range(count)]),
        errors.InvalidRequest([FieldViolation(field=f"spec.f{i}", description="is odd") for i in range(100 * count)]),
        errors.UnknownModel(long, [long] * count),
        errors.InstanceNotFound(long, [long] * count),
        errors.UnknownPolicy(long, [long] * count),
        errors.InvalidTransition(long, long, long),
        errors.NoInstance(long, long),
        errors.GenerationFailed(long, attempts=1),
    ]
    for error in found:
        wire = rpc_status.to_status(to_status(error))
        size = sum(len(key) + len(value) + 32 for key, value in wire.trailing_metadata or ())
        message = sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in wire.details.encode())
        assert size + message < METADATA_BYTES, f"{type(error).__name__}: {size} + {message} bytes"


def test_what_is_left_out_for_want_of_room_is_counted() -> None:
    many = [FieldViolation(field=f"spec.chat.messages[{i}].role", description="is empty") for i in range(1_000)]
    found = _detail(to_status(errors.InvalidRequest(many)), error_details_pb2.BadRequest)
    assert found is not None
    shown = len(found.field_violations) - 1
    assert 10 < shown < 100
    assert found.field_violations[-1].description == f"and {1_000 - shown} more fields at fault"


async def test_a_stream_that_fails_in_an_unforeseen_way_says_so_to_the_log_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken: list[str] = []

    async def read() -> None:
        raise ValueError("swordfish")

    async def write() -> None:
        raise EOFError("closed")

    with caplog.at_level(logging.ERROR), pytest.raises(ValueError, match="swordfish"):
        await both_ways(read=read, write=write, broken=broken.append, stuck=asyncio.Event())
    assert len(broken) == 1
