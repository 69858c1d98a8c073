"""The page and whoever connects to it: the silent, the slow, too many at once."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from sage_common.tls import ServerTls
from sage_telemetry import exports, prometheus
from sage_telemetry.exports import Exports
from sage_telemetry.instrument import Instrument, Kind
from sage_telemetry.meter import Meter
from sage_telemetry.prometheus import MetricsPage
from sage_telemetry.resource import Identity
from sage_telemetry.settings import TelemetrySettings

CALLS = Instrument(name="t.calls", kind=Kind.COUNTER, unit="{call}", help="Calls.", labels={"who": "anyone"})
IDENTITY = Identity(service="scheduler", instance_id="test")


@pytest.fixture
def tls(tmp_path: Path) -> ServerTls:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    return certified(tmp_path)


def certified(directory: Path) -> ServerTls:
    """Writes a certificate and its key; those of an earlier call are replaced."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=sage-test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    return ServerTls(certificate=cert, private_key=key)


@pytest.fixture
def idle() -> Iterator[ExitStack]:
    with ExitStack() as connections:
        yield connections


def connected(connections: ExitStack, port: int) -> socket.socket:
    """One that says nothing."""
    return connections.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))


def fetched(port: int, tls: ServerTls | None = None) -> int:
    context = ssl.create_default_context(cafile=tls.certificate) if tls is not None else None
    address = f"{'https' if tls is not None else 'http'}://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(address, timeout=10, context=context) as answer:
        return int(answer.status)


def ends(page: MetricsPage) -> bool:
    closing = threading.Thread(target=page.close, daemon=True)
    closing.start()
    closing.join(10)
    return not closing.is_alive()


def test_who_connects_and_says_nothing_holds_up_neither_the_page_nor_its_end(tls: ServerTls, idle: ExitStack) -> None:
    page = MetricsPage(Meter((CALLS,)), "127.0.0.1:0", tls)
    port = page.start()
    connected(idle, port)
    assert fetched(port, tls) == 200
    assert ends(page)


def test_a_new_certificate_is_shown_and_a_bad_one_is_not(
    tls: ServerTls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prometheus, "CHECK_S", 0.0)
    page = MetricsPage(Meter((CALLS,)), "127.0.0.1:0", tls)
    port = page.start()
    assert fetched(port, tls) == 200
    first = tls.certificate.read_bytes()
    certified(tls.certificate.parent)
    assert tls.certificate.read_bytes() != first
    assert becomes(lambda: fetched(port, tls) == 200)
    newer = tls.certificate.read_bytes()
    tls.certificate.write_text("nonsense")
    assert becomes(lambda: "goes on with the certificate read before" in caplog.text)
    (tls.certificate.parent / "newer").write_bytes(newer)
    trusted = ServerTls(certificate=tls.certificate.parent / "newer", private_key=tls.private_key)
    assert fetched(port, trusted) == 200
    assert ends(page)


def becomes(wanted: Callable[[], bool]) -> bool:
    """Whether it comes true within 10 s; an error of TLS is not yet."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with suppress(urllib.error.URLError):
            if wanted():
                return True
        time.sleep(0.02)
    return False


def test_who_does_not_speak_tls_is_no_error_of_ours(
    tls: ServerTls, idle: ExitStack, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    page = MetricsPage(Meter((CALLS,)), "127.0.0.1:0", tls)
    port = page.start()
    plain = connected(idle, port)
    plain.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    while plain.recv(1_000):
        pass  # an alert, then the end
    assert fetched(port, tls) == 200
    assert ends(page)
    assert caplog.records == []
    assert capfd.readouterr().err == ""


def test_a_connection_ends_in_time_also_where_a_byte_comes_now_and_then(
    idle: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "REQUEST_TIMEOUT_S", 0.3)  # the reads' own bound stays as it was
    page = MetricsPage(Meter((CALLS,)), "127.0.0.1:0")
    slow = connected(idle, page.start())
    slow.sendall(b"GET /met")
    assert slow.recv(1) == b""
    assert ends(page)


def test_one_connection_too_many_is_closed_and_room_is_made_by_who_leaves(
    idle: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "CONNECTIONS_LIMIT", 2)
    page = MetricsPage(Meter((CALLS,)), "127.0.0.1:0")
    port = page.start()
    first, _ = connected(idle, port), connected(idle, port)
    assert connected(idle, port).recv(1) == b""
    first.shutdown(socket.SHUT_WR)
    assert first.recv(1) == b""  # its thread is done with it
    assert fetched(port) == 200
    assert ends(page)


async def test_the_service_ends_although_a_way_out_does_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released = threading.Event()
    monkeypatch.setattr(exports, "CLOSE_S", 0.05)
    monkeypatch.setattr(MetricsPage, "close", lambda _: released.wait(10))
    meter = Meter((CALLS,))
    async with asyncio.timeout(5):
        await Exports(TelemetrySettings(metrics_listen="127.0.0.1:0"), IDENTITY, meter).close()
    released.set()
    assert "did not end within 0.05 s" in caplog.text
