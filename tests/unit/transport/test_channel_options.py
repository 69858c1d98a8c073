"""gRPC takes an option of any name, and ignores those it does not know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from executor_svc.transport.grpc_link import CHANNEL_OPTIONS
from sage_client import _connection
from scheduler_svc.transport.server import OPTIONS


@pytest.fixture(scope="module")
def library() -> bytes:
    (found,) = Path(grpc.__file__).parent.glob("_cython/cygrpc*.so")
    return found.read_bytes()


@pytest.mark.parametrize("options", [OPTIONS, CHANNEL_OPTIONS, _connection._OPTIONS])
def test_every_option_is_one_that_grpc_knows(library: bytes, options: Sequence[tuple[str, Any]]) -> None:
    assert [name for name, _ in options if name.encode() + b"\0" not in library] == []
