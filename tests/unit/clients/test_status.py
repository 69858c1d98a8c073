"""From a gRPC status to an exception."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

import sage_client as sage
from sage_client._status import BY_REASON, error_from_rpc, is_transport_break
from sage_wire.errors import DOMAIN, ErrorReason

BETWEEN_EXECUTOR_AND_SCHEDULER = {
    ErrorReason.PROTOCOL_VERSION,
    ErrorReason.INVALID_REGISTRATION,
    ErrorReason.DUPLICATE_INSTANCE,
    ErrorReason.UNKNOWN_SESSION,
}


def rpc_error(code: grpc.StatusCode, *, reason: str = "", domain: str = DOMAIN) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata()
    if reason:
        packed = AnyMessage()
        packed.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain))
        status = status_pb2.Status(code=code.value[0], message="m", details=[packed])
        trailing.add("grpc-status-details-bin", status.SerializeToString())
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details="m")


def test_every_reason_a_client_can_meet_has_an_exception() -> None:
    assert set(ErrorReason) - BETWEEN_EXECUTOR_AND_SCHEDULER == set(BY_REASON)


@pytest.mark.parametrize("reason", list(BY_REASON))
def test_a_reason_decides(reason: ErrorReason) -> None:
    made = error_from_rpc(rpc_error(reason.status, reason=reason.code))

    assert type(made) is BY_REASON[reason]
    assert (made.reason, made.status, str(made)) == (reason.code, reason.status.name, "m")


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_without_a_reason_is_a_sage_error(code: grpc.StatusCode) -> None:
    made = error_from_rpc(rpc_error(code), request_id="r")

    assert isinstance(made, sage.SageError)
    assert (made.reason, made.request_id) == ("", "r")


def test_a_reason_of_a_newer_server_goes_by_the_status() -> None:
    made = error_from_rpc(rpc_error(grpc.StatusCode.NOT_FOUND, reason="SOMETHING_NEW"))

    assert type(made) is sage.NotFoundError
    assert made.reason == "SOMETHING_NEW"


def test_a_call_without_an_answer_says_so_instead_of_what_grpc_says() -> None:
    silent = rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED)

    assert str(error_from_rpc(silent, timeout_s=2.5)) == "the scheduler did not answer within 2.5 s"
    assert str(error_from_rpc(silent)) == "the scheduler did not answer in time"


def test_another_systems_reason_is_not_ours() -> None:
    made = error_from_rpc(rpc_error(grpc.StatusCode.UNAVAILABLE, reason="QUEUE_FULL", domain="example.com"))

    assert type(made) is sage.UnavailableError
    assert is_transport_break(made)


def test_only_a_failed_connection_is_a_transport_break() -> None:
    breaks = {code for code in grpc.StatusCode if is_transport_break(error_from_rpc(rpc_error(code)))}

    assert breaks == {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}, "gRPC drops calls as a server stops"
    assert not is_transport_break(error_from_rpc(rpc_error(grpc.StatusCode.CANCELLED, reason="CANCELLED")))
    no_instance = error_from_rpc(rpc_error(grpc.StatusCode.UNAVAILABLE, reason="NO_INSTANCE"))
    assert not is_transport_break(no_instance)


def test_details_that_do_not_decode_are_left_out() -> None:
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff\xff"))
    made = error_from_rpc(grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), trailing, "m"))

    assert type(made) is sage.InternalError
