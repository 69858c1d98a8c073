"""What an executor dials with: read at every dial, so that keys may change while its engine runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from executor_svc.config import load
from executor_svc.runtime.link import LinkBroken
from executor_svc.transport.grpc_link import GrpcDialer
from executor_svc.transport.tls import DialCredentials, UnusableToken
from executor_svc.wiring import run
from sage_common.configuration import ConfigError


def test_the_token_of_the_moment_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "token"
    credentials = DialCredentials(token_file=path)
    for token in ("first", "second"):
        path.write_text(f"  {token}\n")
        assert credentials.metadata() == (("authorization", f"Bearer {token}"),)
    assert DialCredentials().metadata() == ()


@pytest.mark.parametrize("content", [b"", b" \n", b"two\nlines", b"\xff", "é".encode()])
def test_what_is_no_token_is_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(UnusableToken, match="holds no token"):
        DialCredentials(token_file=path).metadata()


async def test_a_file_that_is_away_for_a_moment_costs_a_dial_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "token"
    dialer = GrpcDialer(DialCredentials(token_file=path))
    with pytest.raises(LinkBroken, match="cannot read"):
        dialer.dial("127.0.0.1:1")
    path.write_text("token")
    await dialer.dial("127.0.0.1:1").close()


async def test_a_token_file_of_no_use_at_the_start_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "token"
    flags = ["--model", "sim", "--engine.kind", "simulated", "--token-file", str(path)]
    with pytest.raises(ConfigError, match=r"^token_file: cannot read"):
        await run(load(flags, {}))
    path.write_text("")
    with pytest.raises(ConfigError, match=r"^token_file: .* holds no token"):
        await run(load(flags, {}))
