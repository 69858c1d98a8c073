"""What the log says of a stream that ended."""

from __future__ import annotations

import grpc
import pytest

from executor_svc.transport.grpc_link import in_words


@pytest.mark.parametrize(
    ("code", "details", "said"),
    [
        (grpc.StatusCode.INTERNAL, "Internal error from Core", "the connection ended; the scheduler has stopped"),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", "Socket closed"),
        (grpc.StatusCode.CANCELLED, "", "CANCELLED"),
        (grpc.StatusCode.UNKNOWN, None, "UNKNOWN"),
    ],
)
def test_an_end_is_told_in_words(code: grpc.StatusCode, details: str | None, said: str) -> None:
    assert said in in_words(code, details)
