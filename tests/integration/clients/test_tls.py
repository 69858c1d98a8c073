"""TLS with a certificate authority of one's own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import grpc
import pytest

import sage_client as sage
from sage_client import AsyncClient
from tests.integration.clients.fake_scheduler import started
from tests.support.authority import Authority
from tests.support.eventually import eventually

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates"),
    pytest.mark.usefixtures("transport"),
]

ONCE = sage.Reconnect(submit_s=0.0)  # a client that is refused says so at once


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=sage-test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    return cert, key


async def test_a_scheduler_with_a_known_authority_is_spoken_to(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    scheduler = await started(grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())]))
    async with AsyncClient(scheduler.address, tls_ca=cert, token="t") as client:
        result = await client.generate("hi", max_tokens=3).result()
    await scheduler.stop()

    assert len(result.token_ids) == 3
    assert scheduler.metadata[0]["authorization"] == "Bearer t"


async def test_a_scheduler_with_another_authority_is_not(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    (tmp_path / "other").mkdir()
    other, _ = certificate(tmp_path / "other")
    scheduler = await started(grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())]))
    async with AsyncClient(scheduler.address, tls_ca=other, reconnect=ONCE) as client:
        with pytest.raises(sage.UnavailableError):
            await client.generate("hi").result()
    await scheduler.stop()

    assert scheduler.requests == []


async def test_a_renewed_client_certificate_is_used_without_a_new_client(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "known"), Authority(tmp_path / "unknown")
    served = authority.issue("server")
    scheduler = await started(
        grpc.ssl_server_credentials(
            [(served[1].read_bytes(), served[0].read_bytes())],
            root_certificates=authority.certificate.read_bytes(),
            require_client_auth=True,
        )
    )
    cert, key = tmp_path / "client.pem", tmp_path / "client.key"
    copy(stranger.issue("client"), cert, key)
    try:
        async with AsyncClient(
            scheduler.address, tls_ca=authority.certificate, tls_cert=cert, tls_key=key, reconnect=ONCE
        ) as client:
            assert not await answers(client)
            copy(authority.issue("client"), cert, key)
            await eventually(lambda: answers(client), within_s=30.0, every_s=0.2)
            cert.unlink()
            assert await answers(client), "what was read before stays in use"
    finally:
        await scheduler.stop()


async def answers(client: AsyncClient) -> bool:
    try:
        await client.generate("hi", max_tokens=3).result()
    except sage.UnavailableError:
        return False
    return True


def copy(pair: tuple[Path, Path], cert: Path, key: Path) -> None:
    cert.write_bytes(pair[0].read_bytes())
    key.write_bytes(pair[1].read_bytes())
