"""Images are fetched from hosts that are named, at addresses of the Internet or ones that are named."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from sage_gateway.media_hosts import MediaHost, MediaHosts, NotFetched, media_host


def hosts(*names: str) -> MediaHosts:
    return MediaHosts([media_host(each) for each in names])


@pytest.mark.parametrize(
    ("text", "name", "port"),
    [
        ("images.example.com", "images.example.com", None),
        ("Images.Example.com:8443", "images.example.com", 8443),
        ("*.example.com", "*.example.com", None),
        ("127.0.0.1:80", "127.0.0.1", 80),
        ("[::1]:8080", "::1", 8080),
        ("[0:0::1]", "::1", None),
    ],
)
def test_a_host_is_read(text: str, name: str, port: int | None) -> None:
    assert media_host(text) == MediaHost(name=name, port=port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "*.",
        "a.*.b",
        "https://a",
        "a/b",
        "a?b",
        "a#b",
        "u@a",
        "a b",
        "a:",
        "a:0",
        "a:x",
        "a:99999",
        "[::1",
        ":80",
    ],
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST or HOST:PORT"):
        media_host(text)


@pytest.mark.parametrize(
    ("url", "fetched"),
    [
        ("https://a.example/x.png", "https://a.example:443/x.png"),
        ("HTTP://A.Example./x?y=%2F#z", "http://a.example:80/x?y=%2F"),
        ("https://a.example", "https://a.example:443/"),
        ("https://cdn.b.example/x", "https://cdn.b.example:443/x"),
        ("http://c.example:81/x", "http://c.example:81/x"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
    ],
)
def test_addresses_on_named_hosts_may_be_fetched(url: str, fetched: str) -> None:
    allowed = hosts("a.example", "*.b.example", "c.example:81", "[::1]:8080")
    assert allowed.check(url) == fetched


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example/x",
        "https://b.example/x",
        "https://notb.example/x",
        "https://a.example.evil/x",
        "https://a.example:8443/x",
        "https://a.example@evil.example/x",
        "https://u:p@a.example/x",
        "https://evil.example\\.b.example/x",
        "https://evil.example%2f.b.example/x",
        "http://c.example/x",
        "ftp://a.example/x",
        "file:///etc/passwd",
        "//a.example/x",
        "https:///x",
        "https://a.example/x y",
        "https://a.example/\n",
        "https://[::1/x",
        "https://a.example:x/",
        "http://2130706433/x",
        "http://127.0.0.1/x",
        "",
    ],
)
def test_other_addresses_may_not(url: str) -> None:
    with pytest.raises(NotFetched):
        hosts("a.example", "*.b.example", "c.example:81").check(url)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.251", False),
        ("::1", False),
        ("fd00::1", False),
        ("fe80::1%eth0", False),
        ("fec0::2", False),
        ("::7f00:1", False),
        ("64:ff9b:1::7f00:1", False),
        ("ff0e::1", False),
        ("168.63.129.16", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("192.168.7.7", True),
        ("::ffff:192.168.7.7", True),
        ("a.example", False),
    ],
)
def test_a_named_host_stands_in_the_internet_or_where_it_is_named(address: str, allowed: bool) -> None:
    assert hosts("a.example", "192.168.7.7").allows(address, 443) is allowed


def test_an_address_is_named_with_its_port() -> None:
    allowed = hosts("*.example", "192.168.7.7:9000", "[fd00::1]")
    assert [allowed.allows("192.168.7.7", port) for port in (9000, 80, 443)] == [True, False, False]
    assert [allowed.allows("fd00::1", port) for port in (9000, 80, 443)] == [False, True, True]


def test_an_address_that_is_too_long_is_not_read() -> None:
    allowed = hosts("a.example")
    kept: Any = urlsplit
    kept.cache_clear()
    with pytest.raises(NotFetched, match="has 8193 characters; the limit is 8192"):
        allowed.check("https://a.example/".ljust(8_193, "x"))
    assert kept.cache_info().currsize == 0  # what it keeps, it keeps for good
    assert allowed.check("https://a.example/".ljust(8_192, "x"))
