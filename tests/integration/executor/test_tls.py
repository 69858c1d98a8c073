"""TLS towards the scheduler and on the executor's own listener."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from executor_svc.config import ConfigError, load
from executor_svc.wiring import run
from sage_common import file_watch
from tests.integration.executor.running_executor import executor
from tests.integration.executor.scripted_scheduler import scripted_scheduler
from tests.support.eventually import eventually

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    directory.mkdir(exist_ok=True)
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=sage-test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    return cert, key


def serving(cert: Path, key: Path, clients: Path | None = None) -> grpc.ServerCredentials:
    pair = [(key.read_bytes(), cert.read_bytes())]
    if clients is None:
        return grpc.ssl_server_credentials(pair)
    return grpc.ssl_server_credentials(pair, clients.read_bytes(), require_client_auth=True)


async def test_a_scheduler_with_a_known_certificate_is_spoken_to(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path / "scheduler")
    tls = serving(cert, key)
    async with scripted_scheduler(credentials=tls) as scheduler, executor(scheduler.address, "--tls.ca", str(cert)):
        await (await scheduler.session()).ready()


async def test_a_scheduler_with_another_certificate_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cert, key = certificate(tmp_path / "scheduler")
    other, _ = certificate(tmp_path / "other")
    async with scripted_scheduler(credentials=serving(cert, key)) as scheduler:
        async with executor(scheduler.address, "--tls.ca", str(other)):
            async with asyncio.timeout(10):
                while "its certificate is not accepted: " not in caplog.text:
                    await asyncio.sleep(0.01)
        assert scheduler.sessions == []


async def test_its_own_certificate_is_shown_to_the_scheduler_and_on_its_listener(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path / "scheduler")
    own, own_key = certificate(tmp_path / "executor")
    flags = ("--tls.ca", str(cert), "--tls.certificate", str(own), "--tls.private-key", str(own_key))
    tls = serving(cert, key, clients=own)
    async with scripted_scheduler(credentials=tls) as scheduler, executor(scheduler.address, *flags):
        session = await scheduler.session()
        await session.ready()
        trusted = grpc.ssl_channel_credentials(own.read_bytes())
        async with grpc.aio.secure_channel(session.register.address, trusted) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_new_certificate_is_shown_on_its_listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_watch, "CHECK_S", 0.05)
    own, own_key = certificate(tmp_path / "executor")
    newer, newer_key = certificate(tmp_path / "newer")
    flags = ("--tls.certificate", str(own), "--tls.private-key", str(own_key))
    async with scripted_scheduler() as scheduler, executor(scheduler.address, *flags):
        session = await scheduler.session()
        own_key.write_bytes(newer_key.read_bytes())
        own.write_bytes(newer.read_bytes())

        async def trusted() -> bool:
            credentials = grpc.ssl_channel_credentials(newer.read_bytes())
            async with grpc.aio.secure_channel(session.register.address, credentials) as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                try:
                    await stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
                except grpc.aio.AioRpcError:
                    return False
                return True

        await eventually(trusted, what="the new certificate")


async def test_a_file_that_cannot_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    config = load(["--model", "sim", "--engine.kind", "simulated", "--tls.ca", str(tmp_path / "no.pem")], {})
    with pytest.raises(ConfigError, match=r"^tls: cannot read .*no\.pem: No such file or directory$"):
        await run(config)


async def test_an_address_in_use_is_a_configuration_error() -> None:
    async with scripted_scheduler() as scheduler:
        flags = ["--model", "sim", "--engine.kind", "simulated", "--listen", scheduler.address]
        with pytest.raises(ConfigError, match=f"^listen: cannot listen on {scheduler.address}"):
            await run(load(flags, {}))
