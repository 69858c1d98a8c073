"""Where a client connects without being told twice, and where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_client import ConfigurationError
from sage_client._connection import Connection
from sage_client._reconnect import Reconnect, leader_pause_s


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.8.8.8:1", "localhost:50051", "[::1]:5", "unix:/tmp/s"])
async def test_loopback_needs_no_tls(address: str) -> None:
    await Connection(address=address).open().close()


@pytest.mark.parametrize("address", ["10.0.0.1:50051", "scheduler:50051", "0.0.0.0:50051", "[2001:db8::1]:1"])
async def test_any_other_address_needs_a_word(address: str) -> None:
    with pytest.raises(ConfigurationError, match="not a loopback"):
        Connection(address=address).open()
    await Connection(address=address, insecure=True).open().close()
    await Connection(address=address, tls=True).open().close()


@pytest.mark.parametrize("address", ["", "localhost", ":50051", "localhost:", "localhost:0", "localhost:99999", "h:x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="host:port"):
        Connection(address=address).open()


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ca\.pem"):
        Connection(tls_ca=tmp_path / "ca.pem").open()


@pytest.mark.parametrize("token", ["two\nlines", "é"])
def test_a_token_that_no_header_can_hold_is_refused(token: str) -> None:
    with pytest.raises(ConfigurationError, match="token"):
        Connection(token=token).open()


def test_delays_double_up_to_the_bound() -> None:
    reconnect = Reconnect(first_delay_s=0.1, max_delay_s=1.0)
    for attempt, ceiling in [(1, 0.1), (2, 0.2), (3, 0.4), (5, 1.0), (50, 1.0), (5_000, 1.0)]:
        assert ceiling / 2 <= reconnect.delay_s(attempt) <= ceiling


@pytest.mark.parametrize(("leaderless_s", "least_s"), [(0.0, 0.25), (2.0, 0.25), (8.0, 1.0), (16.0, 2.0), (60.0, 2.0)])
def test_the_longer_nobody_leads_the_less_often_is_asked(leaderless_s: float, least_s: float) -> None:
    pauses = [leader_pause_s(0.25, leaderless_s) for _ in range(200)]
    assert least_s <= min(pauses)
    assert max(pauses) <= 1.25 * least_s
    assert len(set(pauses)) > 100, "clients do not come all at once"
