"""What the end of a session's stream means for the requests on it."""

from __future__ import annotations

import grpc
import pytest
from grpc import StatusCode

from sage_client import ShuttingDownError, UnavailableError
from sage_client._session_end import EndKind, end_from_rpc
from sage_wire.errors import ErrorReason
from tests.unit.clients.test_status import rpc_error

BROKEN, FINAL = EndKind.BROKEN, EndKind.FINAL


@pytest.mark.parametrize(
    ("code", "reason", "before", "after"),  # what it means before Opened and after it
    [
        (StatusCode.UNAVAILABLE, "", BROKEN, BROKEN),
        (StatusCode.CANCELLED, "", BROKEN, BROKEN),
        (StatusCode.INTERNAL, "", BROKEN, BROKEN),
        (StatusCode.UNKNOWN, "", BROKEN, BROKEN),
        (StatusCode.UNAVAILABLE, ErrorReason.RECOVERING.code, EndKind.UNSETTLED, EndKind.UNSETTLED),
        (StatusCode.UNAVAILABLE, ErrorReason.SHUTTING_DOWN.code, FINAL, FINAL),
        (StatusCode.INTERNAL, ErrorReason.INTERNAL.code, FINAL, FINAL),
        (StatusCode.INVALID_ARGUMENT, ErrorReason.INVALID_REQUEST.code, FINAL, FINAL),
        (StatusCode.UNAUTHENTICATED, ErrorReason.UNAUTHENTICATED.code, FINAL, BROKEN),
        (StatusCode.PERMISSION_DENIED, ErrorReason.PERMISSION_DENIED.code, FINAL, BROKEN),
        (StatusCode.RESOURCE_EXHAUSTED, ErrorReason.LIMIT_REACHED.code, EndKind.FULL, BROKEN),
        (StatusCode.UNIMPLEMENTED, "", EndKind.UNSUPPORTED, EndKind.UNSUPPORTED),
        (StatusCode.FAILED_PRECONDITION, ErrorReason.PROTOCOL_VERSION.code, EndKind.UNSUPPORTED, FINAL),
    ],
)
def test_the_status_decides(code: StatusCode, reason: str, before: EndKind, after: EndKind) -> None:
    assert end_from_rpc(rpc_error(code, reason=reason), opened=False).kind is before
    assert end_from_rpc(rpc_error(code, reason=reason), opened=True).kind is after


def test_a_status_that_grpc_lost_is_asked_for_again() -> None:
    lost = grpc.aio.AioRpcError(
        StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), details="Internal error from Core"
    )
    end = end_from_rpc(lost, opened=False)

    assert end.kind is EndKind.UNSETTLED
    assert end.answered, "there is a scheduler at the address"
    assert isinstance(end.error, UnavailableError)


def test_each_request_gets_an_error_of_its_own() -> None:
    end = end_from_rpc(rpc_error(StatusCode.UNAVAILABLE, reason=ErrorReason.SHUTTING_DOWN.code), opened=True)
    first, second = end.error_of("a"), end.error_of("b")

    assert isinstance(first, ShuttingDownError)
    assert (first.request_id, second.request_id) == ("a", "b")
    assert (first.reason, str(first)) == ("SHUTTING_DOWN", "m")
