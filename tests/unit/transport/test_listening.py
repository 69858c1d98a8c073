"""Who may reach the server: loopback without TLS, anything with it, nothing by accident."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc
from sage_common.tls import ServerTls
from scheduler_svc.transport import server
from scheduler_svc.transport.server import Listener, ListenError, listen
from tests.support.authority import Authority, needs_openssl
from tests.support.network_proxy import NetworkProxy
from tests.unit.transport.served import WITHIN_S, WireExecutor, registration, serving


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server_pair(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("server")


def at(address: str) -> Listener:
    return Listener(key="listen", address=address, services=frozenset())


async def ask(port: int, credentials: grpc.ChannelCredentials | None) -> None:
    """Raises AioRpcError where the server cannot be spoken to."""
    address = f"127.0.0.1:{port}"
    channel = (
        grpc.aio.insecure_channel(address) if credentials is None else grpc.aio.secure_channel(address, credentials)
    )
    async with channel:
        await admin_pb2_grpc.AdminServiceStub(channel).GetPolicy(admin_pb2.GetPolicyRequest(), timeout=WITHIN_S)


# --- addresses ------------------------------------------------------------------------------------


async def test_others_are_let_in_where_that_is_said_aloud() -> None:
    async with serving(listen="0.0.0.0:0", insecure=True) as scheduler:
        await ask(scheduler.port, None)


async def test_loopback_needs_nothing() -> None:
    async with serving() as scheduler:
        assert scheduler.port > 0
        await ask(scheduler.port, None)


@pytest.mark.parametrize("on", ["a port", "a socket"])
async def test_connections_end_and_a_new_one_finds_the_same_address(tmp_path: Path, on: str) -> None:
    listen = "127.0.0.1:0" if on == "a port" else f"unix:{tmp_path}/s"
    async with serving(listen=listen) as scheduler, AsyncExitStack() as opened:
        doors, port = scheduler._doors, scheduler.port
        assert doors is not None
        address, proxy = listen, None
        if on == "a port":
            proxy = await opened.enter_async_context(NetworkProxy(port))
            address = proxy.address
        channel = await opened.enter_async_context(grpc.aio.insecure_channel(address))
        admin = admin_pb2_grpc.AdminServiceStub(channel)
        for _ in range(2):
            request = admin_pb2.GetPolicyRequest()
            await admin.GetPolicy(request, timeout=WITHIN_S, wait_for_ready=True)
            await doors.renew()
            assert scheduler.port == port
        await admin.GetPolicy(admin_pb2.GetPolicyRequest(), timeout=WITHIN_S, wait_for_ready=True)
        assert proxy is None or proxy.connections == 3


async def test_a_socket_of_this_machine(tmp_path: Path) -> None:
    async with serving(listen=f"unix:{tmp_path}/s"), grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
        await admin_pb2_grpc.AdminServiceStub(channel).GetPolicy(admin_pb2.GetPolicyRequest(), timeout=WITHIN_S)


async def test_a_port_that_is_taken_is_said_so() -> None:
    async with serving() as first:
        with pytest.raises(ListenError, match=f"^listen: cannot bind 127.0.0.1:{first.port}: the address is in use"):
            listen(grpc.aio.server(options=[("grpc.so_reuseport", 0)]), at(f"127.0.0.1:{first.port}"), None)
        with pytest.raises(ListenError, match="cannot bind"):
            async with serving(listen=f"127.0.0.1:{first.port}"):
                pass


@pytest.mark.parametrize("key", ["executor_listen", "admin_listen"])
async def test_a_port_that_is_taken_is_named_by_its_setting(key: str) -> None:
    async with serving() as first:
        with pytest.raises(ListenError, match=f"{key}: cannot bind 127.0.0.1:{first.port}"):
            async with serving(**{key: f"127.0.0.1:{first.port}"}):
                pass


# --- TLS ------------------------------------------------------------------------------------------


@needs_openssl
async def test_with_a_certificate(authority: Authority, server_pair: tuple[Path, Path]) -> None:
    certificate, key = server_pair
    async with serving(tls={"certificate": certificate, "private_key": key}) as scheduler:
        await ask(scheduler.port, grpc.ssl_channel_credentials(authority.certificate.read_bytes()))
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(scheduler.port, None)


@needs_openssl
async def test_with_a_certificate_others_are_let_in(authority: Authority, server_pair: tuple[Path, Path]) -> None:
    certificate, key = server_pair
    tls = {"certificate": certificate, "private_key": key}
    async with serving(listen="0.0.0.0:0", tls=tls, insecure=True) as scheduler:
        await ask(scheduler.port, grpc.ssl_channel_credentials(authority.certificate.read_bytes()))


@needs_openssl
async def test_where_clients_need_a_certificate(
    authority: Authority, server_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    certificate, key = server_pair
    known = authority.issue("client")
    stranger = Authority(tmp_path / "elsewhere").issue("stranger")
    root = authority.certificate.read_bytes()
    tls = {"certificate": certificate, "private_key": key, "client_ca": authority.certificate}
    async with serving(tls=tls) as scheduler:
        await ask(scheduler.port, grpc.ssl_channel_credentials(root, known[1].read_bytes(), known[0].read_bytes()))
        for refused in (
            grpc.ssl_channel_credentials(root),
            grpc.ssl_channel_credentials(root, stranger[1].read_bytes(), stranger[0].read_bytes()),
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await ask(scheduler.port, refused)


@needs_openssl
async def test_certificates_are_identities(authority: Authority, server_pair: tuple[Path, Path]) -> None:
    certificate, key = server_pair
    tls = {"certificate": certificate, "private_key": key, "client_ca": authority.certificate}
    rules = [
        {"cn": "op-*", "role": "operator"},
        {"san": "spiffe://fleet/executor/*", "role": "executor", "instances": ["{}"]},
    ]
    root = authority.certificate.read_bytes()

    def shown(name: str, *names: str) -> grpc.ChannelCredentials:
        pair = authority.issue(name, *names)
        return grpc.ssl_channel_credentials(root, pair[1].read_bytes(), pair[0].read_bytes())

    executor = shown("h1", "URI:spiffe://fleet/executor/h1")
    async with serving(listen="0.0.0.0:0", tls=tls, access={"certificates": rules}) as scheduler:
        await ask(scheduler.port, shown("op-carol"))
        for credentials, code in ((shown("carol"), "UNAUTHENTICATED"), (executor, "PERMISSION_DENIED")):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await ask(scheduler.port, credentials)
            assert error.value.code().name == code
        async with grpc.aio.secure_channel(f"127.0.0.1:{scheduler.port}", executor) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await WireExecutor(channel).register(registration("h2"))
            assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
            await WireExecutor(channel).register(registration("h1"))


@needs_openssl
async def test_certificates_can_be_asked_for_on_some_addresses(
    authority: Authority, server_pair: tuple[Path, Path]
) -> None:
    certificate, key = server_pair
    tls = {
        "certificate": certificate,
        "private_key": key,
        "client_ca": authority.certificate,
        "client_ca_listeners": ["executor_listen"],
    }
    without = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    async with serving(executor_listen="127.0.0.1:0", tls=tls) as scheduler:
        await ask(scheduler.port, without)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await ask(scheduler.ports["executor_listen"], without)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_connection_without_a_call_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keepalive pings that it answers do not keep it."""
    quick = [(name, 200 if name == "grpc.max_connection_idle_ms" else value) for name, value in server.OPTIONS]
    monkeypatch.setattr(server, "OPTIONS", quick)
    async with serving() as scheduler:
        reader, writer = await asyncio.open_connection("127.0.0.1", scheduler.port)
        writer.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
        )  # an empty SETTINGS frame
        async with asyncio.timeout(WITHIN_S):
            while await reader.read(4096):
                pass
        writer.close()


async def refused(tls: ServerTls) -> str:
    """What is said where these files cannot be used."""
    with pytest.raises(ListenError) as error:
        async with serving(tls={"certificate": tls.certificate, "private_key": tls.private_key}):
            pass
    return str(error.value)


async def test_a_certificate_that_is_not_there(tmp_path: Path) -> None:
    tls = ServerTls(certificate=tmp_path / "cert.pem", private_key=tmp_path / "key.pem")
    assert re.search(r"^tls: cannot read .*cert\.pem: No such file", await refused(tls))


async def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("swordfish")
    tls = ServerTls(certificate=tmp_path / "cert.pem", private_key=tmp_path / "key.pem")
    assert "are not a certificate and its key" in await refused(tls)


@needs_openssl
async def test_a_key_of_another_certificate(authority: Authority, server_pair: tuple[Path, Path]) -> None:
    certificate, _ = server_pair
    _, key = authority.issue("other")
    assert "are not a certificate and its key" in await refused(ServerTls(certificate=certificate, private_key=key))
