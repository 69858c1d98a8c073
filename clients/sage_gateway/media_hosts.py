"""The hosts from which images and audio may be fetched, and the addresses at which those may stand."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit, urlunsplit

PORTS = {"http": 80, "https": 443}
"""The schemes of addresses that are fetched, and their ports."""

_LABEL = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_BELOW = "*."  # before a name: every host below it
URL_LIMIT = 8_192
"""Characters of an address; what reads addresses keeps the last ones, up to a few hundred of them."""

_IN_URLS = re.compile(r"[!-~]+")  # ASCII without spaces
_NAT64 = IPv6Network("64:ff9b::/96")  # the last four bytes of an address are one of IPv4
_UNICAST = IPv6Network("2000::/3")  # of the Internet: the rest of IPv6 is local, or not in use
_OF_CLOUDS = frozenset({IPv4Address("168.63.129.16")})  # services for virtual machines at a public address: Azure's


class NotFetched(Exception):
    """Nothing is fetched from an address; ``str()`` says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaHost:
    """A host that an operator allows."""

    name: str  # lower case; "*.example.com" for every host below example.com; or an IP address
    port: int | None = None  # None: that of the scheme

    def matches(self, name: str, port: int, scheme: str) -> bool:
        """Return whether this is the host and the port of an address."""
        if port != (PORTS[scheme] if self.port is None else self.port):
            return False
        return name.endswith(self.name[1:]) if self.name.startswith(_BELOW) else name == self.name

    @property
    def ports(self) -> Collection[int]:
        """Ports that may be connected to."""
        return PORTS.values() if self.port is None else (self.port,)


def media_host(text: str) -> MediaHost:
    """Read a host as operators write it: HOST or HOST:PORT, an IPv6 address in brackets.

    Raises:
        ValueError: it is none.
    """
    wrong = ValueError(f"{text!r} is not HOST or HOST:PORT, such as images.example.com, *.example.com or [::1]:8080")
    try:
        found = urlsplit(f"//{text.lower()}")
        name, port = found.hostname or "", found.port
    except ValueError:
        raise wrong from None
    address = _address(name)
    is_name = address is not None or _NAME.fullmatch(name.removeprefix(_BELOW)) is not None
    if not is_name or found.netloc != text.lower() or "@" in text or text.endswith(":") or port == 0:
        raise wrong
    return MediaHost(name=name if address is None else str(address), port=port)


class MediaHosts:
    """Decides what is fetched: nothing, unless an operator names its host."""

    def __init__(self, hosts: Sequence[MediaHost]) -> None:
        self._hosts = hosts
        self._named = frozenset(
            (found, port) for each in hosts if (found := _address(each.name)) is not None for port in each.ports
        )

    def check(self, url: str) -> str:
        """Return an address as it is to be fetched: with its port, without fragment.

        Raises:
            NotFetched: it is none of HTTP, is longer than URL_LIMIT, or its host is not named.
        """
        if len(url) > URL_LIMIT:
            raise NotFetched(f"has {len(url)} characters; the limit is {URL_LIMIT}")
        try:
            found = urlsplit(url)
            name, port = (found.hostname or "").rstrip("."), found.port
        except ValueError:
            raise NotFetched("is no address") from None
        address = _address(name)
        if found.scheme not in PORTS or not _IN_URLS.fullmatch(url) or not (address or _NAME.fullmatch(name)):
            raise NotFetched("is no address of http or https")
        if "@" in found.netloc:
            raise NotFetched("has a user's name in it")
        name = name if address is None else str(address)
        port = PORTS[found.scheme] if port is None else port
        if not any(each.matches(name, port, found.scheme) for each in self._hosts):
            raise NotFetched("is not on a host that images and audio are fetched from")
        host = f"[{name}]" if isinstance(address, IPv6Address) else name
        return urlunsplit((found.scheme, f"{host}:{port}", found.path or "/", found.query, ""))

    def allows(self, address: str, port: int) -> bool:
        """Return whether a host may stand at an IP address: one of the Internet, or one that is named with the port."""
        found = _address(address)
        if found is None:
            return False
        reached = _reached(found)
        return not self._named.isdisjoint(((found, port), (reached, port))) or _is_public(reached)


def _reached(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the address of IPv4 that one of IPv6 leads to; itself if it leads to none."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is one of the Internet's, at which hosts of anybody may stand."""
    if address in _OF_CLOUDS or (isinstance(address, IPv6Address) and address not in _UNICAST):
        return False
    return address.is_global and not address.is_multicast


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
