"""Which addresses only this machine can reach, and which are addresses at all: one answer, whoever asks."""

from __future__ import annotations

import pytest

from executor_svc.config import load as load_executor
from sage_client import ConfigurationError
from sage_client._connection import Connection
from sage_common.addresses import check_address, host_of, is_loopback, split_host_port
from sage_common.configuration import ConfigError
from scheduler_svc.config import load as load_scheduler

LOOPBACK = [
    "127.0.0.1:50051",
    "127.0.0.1:0",
    "127.8.9.10:50051",  # all of 127.0.0.0/8
    "127.255.255.254:1",
    "localhost:1",
    "LocalHost:1",  # names have no case
    "[::1]:50051",
    "[0:0:0:0:0:0:0:1]:1",
    "[::1%lo]:1",  # with the interface named
    "[::ffff:127.0.0.1]:1",  # IPv4 in IPv6's clothes
    "unix:/run/sage.sock",
    "unix:sage.sock",
    "unix:///run/sage.sock",
    "unix-abstract:sage",
    "dns:///localhost:1",
    "dns:localhost:1",
    "dns:///127.0.0.1:1",
    "ipv4:127.0.0.1:1",
    "ipv4:127.0.0.1:1,127.0.0.2:1",
    "ipv6:[::1]:1",
    "127.0.0.1",  # no port: gRPC takes its own
    "::1",
    "localhost",
]

ELSEWHERE = [
    "0.0.0.0:50051",  # every interface
    "[::]:50051",
    ":50051",
    "10.0.0.1:50051",
    "128.0.0.1:1",
    "[fe80::1]:1",
    "[2001:db8::1]:1",
    "[::ffff:10.0.0.1]:1",
    "example.org:50051",
    "scheduler:50051",
    "localhost.example.org:1",
    "127.0.0.1.example.org:1",
    "notlocalhost:1",
    "dns:///scheduler:1",
    "dns://10.0.0.53/localhost:1",  # a server elsewhere says what the name means
    "ipv4:127.0.0.1:1,10.0.0.1:1",  # one of them is elsewhere
    "http://127.0.0.1:1",  # gRPC looks up the whole of it as a name
    "vsock:2:1",
    "::1:5005",  # one IPv6 address without a port, and not ::1
    "[127.0.0.1]:1",  # brackets are for IPv6
    "127.1:1",  # the system would complete it, Python does not say how
    "0x7f.0.0.1:1",
    "",
    "[]:1",
]


@pytest.mark.parametrize("address", LOOPBACK)
def test_what_only_this_machine_reaches(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize("address", ELSEWHERE)
def test_what_others_reach_or_nobody_can_say(address: str) -> None:
    assert not is_loopback(address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "LocalHost:1", "dns:///localhost:1", "unix:/s"]
)
async def test_everyone_takes_such_an_address_without_tls(address: str) -> None:
    assert load_scheduler(["--listen", address], {}).listen == address
    assert load_executor(["--model", "m", "--scheduler", address], {}).scheduler == (address,)
    await Connection(address=address).open().close()


@pytest.mark.parametrize("address", ["10.0.0.1:1", "[::ffff:10.0.0.1]:1", "0.0.0.0:1", "dns://10.0.0.53/localhost:1"])
async def test_nobody_takes_any_other_without_tls_or_a_word(address: str) -> None:
    with pytest.raises(ConfigError, match=r"listen: .* is not loopback"):
        load_scheduler(["--listen", address], {})
    with pytest.raises(ConfigError, match=r"scheduler: .* is not loopback"):
        load_executor(["--model", "m", "--scheduler", address], {})
    with pytest.raises(ConfigurationError, match="not a loopback"):
        Connection(address=address).open()
    assert load_scheduler(["--listen", address, "--insecure"], {}).insecure
    assert load_executor(["--model", "m", "--scheduler", address, "--insecure"], {}).insecure
    await Connection(address=address, insecure=True).open().close()


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("h:1", "h"),
        ("[::1]:1", "::1"),
        ("dns:///h:1", "h"),
        ("dns:h:1", "h"),
        ("unix:/x", ""),
        ("h", "h"),
        ("::1:5005", "::1:5005"),
        ("0.0.0.0:0", "0.0.0.0"),
        ("[::]:0", "::"),
    ],
)
def test_the_host_of_an_address(address: str, host: str) -> None:
    assert host_of(address) == host


def test_host_and_port() -> None:
    assert split_host_port("[::1]:80") == ("::1", 80)
    assert split_host_port("h:0") == ("h", 0)
    assert split_host_port("h:65535") == ("h", 65_535)


@pytest.mark.parametrize(
    "address", ["", "h", ":1", "h:", "h:x", "h:-1", "h:65536", "h:²", "::1:80", "[h]:1", "[]:1", "unix:/x:1"]
)
def test_what_is_not_host_and_port(address: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        split_host_port(address)


@pytest.mark.parametrize("address", ["h:0", "[::1]:1", "dns:///h:1", "unix:/x", "unix-abstract:x", "ipv4:1.2.3.4:5"])
def test_what_grpc_can_use(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize("address", ["", "h", ":1", "h:x", "h:65536", "h:²", "::1:5005"])
def test_what_grpc_cannot_use(address: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        check_address(address)


@pytest.mark.parametrize("address", ["http://h:1", "https://h:1", "GRPC://h:1", "tcp://h:1"])
def test_a_url_is_refused_as_one(address: str) -> None:
    with pytest.raises(ValueError, match="is a URL, not host:port"):
        check_address(address)


def test_port_0_can_be_listened_on_and_not_dialled() -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        check_address("h:0", lowest_port=1)


def test_a_port_of_thousands_of_digits_is_no_port() -> None:
    address = "127.0.0.1:" + "1" * 5_000
    assert not is_loopback(address)
    with pytest.raises(ValueError, match="is not host:port"):
        split_host_port(address)
