"""Which addresses are reachable from this machine only."""

from __future__ import annotations

import pytest

from executor_svc.transport.addresses import host_of, is_loopback


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1", "dns:///localhost:1", "unix:/x"]
)
def test_loopback(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "scheduler:1", "localhost.example:1", "128.0.0.1:1", ":1"]
)
def test_elsewhere(address: str) -> None:
    assert not is_loopback(address)


def test_the_host_of_an_address() -> None:
    assert [host_of(a) for a in ("h:1", "[::1]:1", "dns:///h:1", "unix:/x")] == ["h", "::1", "h", ""]
