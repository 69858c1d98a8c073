"""Whether a local fleet can have an HTTP gateway, and whether that one answers."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_local.fleet import up
from sage_local.fleet.http_gateway import answers, why_no_gateway
from sage_local.fleet.ports import free_address
from sage_local.fleet.spec import FleetSpec
from sage_local.fleet.state_dir import StateDir


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """Sets how the gateway's own check ends."""

    def ends(status: int, said: str) -> None:
        ended = subprocess.CompletedProcess(args=(), returncode=status, stdout="", stderr=said)
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)

    return ends


def test_a_gateway_whose_check_passes_can_run(check: Callable[[int, str], None]) -> None:
    check(0, "")
    assert why_no_gateway(free_address()) == ""


def test_the_check_says_what_is_missing(check: Callable[[int, str], None]) -> None:
    check(2, "a warning\nerror: vLLM is not installed\n")
    assert why_no_gateway(free_address()) == "vLLM is not installed"
    check(1, "")
    assert why_no_gateway(free_address()) == "its check ended with status 1"


def test_a_port_that_is_taken_is_named(check: Callable[[int, str], None]) -> None:
    check(0, "")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert why_no_gateway(address) == f"cannot listen on {address}: Address already in use"


@pytest.mark.parametrize(("status", "healthy"), [(b"200 OK", True), (b"503 Service Unavailable", False)])
async def test_only_a_gateway_that_says_so_is_healthy(status: bytes, healthy: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        assert request.startswith(b"GET /health HTTP/1.1\r\n")
        writer.write(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await answers(f"127.0.0.1:{port}") is healthy


async def test_where_nobody_listens_nobody_is_healthy() -> None:
    assert not await answers(free_address())


def test_a_fleet_comes_up_without_a_gateway_that_cannot_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specs: list[FleetSpec] = []
    monkeypatch.setattr(up, "why_no_gateway", lambda address: "vLLM is not installed")

    def start(spec: FleetSpec, state: StateDir) -> int:
        specs.append(spec)
        return 0

    monkeypatch.setattr(up, "_background", start)
    spec = FleetSpec(engine="simulated", http="127.0.0.1:1", address=free_address())
    assert up.up(spec, StateDir(path=tmp_path / "home"), foreground=False) == 0
    assert [each.http for each in specs] == [""]
    assert capsys.readouterr().out == "HTTP is off: vLLM is not installed\n"


def test_the_check_runs_the_gateways_own_module(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(args=(), returncode=2, stdout="", stderr="x")

    monkeypatch.setattr(subprocess, "run", run)
    why_no_gateway("127.0.0.1:1")
    assert commands[0][1:] == ["-m", "sage_gateway", "--host", "127.0.0.1", "--port", "1", "--check"]
