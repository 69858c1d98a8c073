"""Reads network addresses as gRPC does: the host of an address, and whether only this machine can reach it."""

from __future__ import annotations

import ipaddress

HIGHEST_PORT = 65_535
_SOCKETS = ("unix:", "unix-abstract:")
_RESOLVERS = ("dns", "xds")
"""Schemes of gRPC's own with two slashes; any other such address is a URL."""


def split_host_port(address: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[IPv6 host]:port`` into the host, without brackets, and the port (0 to 65535).

    Raises:
        ValueError: the address is not of that form.
    """
    name, _, number = address.rpartition(":")
    port = _port(number)
    host = _without_brackets(name)
    if not host or port is None:
        raise ValueError(f"{address!r} is not host:port")
    return host, port


def check_address(address: str, *, lowest_port: int = 0) -> None:
    """Check that gRPC can listen at or dial ``address``: a Unix socket, or anything that ends in ``:port``.

    Raises:
        ValueError: the address is a URL, has no host, or no port between ``lowest_port`` and 65535.
    """
    if address.startswith(_SOCKETS):
        return
    if "://" in address and address.partition(":")[0].lower() not in _RESOLVERS:
        raise ValueError(f"{address!r} is a URL, not host:port")
    name, _, number = address.rpartition(":")
    port = _port(number)
    if not name or port is None or port < lowest_port or _is_bare_ipv6(address):
        raise ValueError(f"{address!r} is not host:port")


def host_of(address: str) -> str:
    """Name the host of ``host:port``, ``[IPv6 host]:port`` or ``dns:///host:port``; empty for a Unix socket."""
    if address.startswith(_SOCKETS):
        return ""
    target = _without_resolver(address)
    if _is_bare_ipv6(target):
        return target
    name, _, number = target.rpartition(":")
    return _without_brackets(name if _port(number) is not None else target)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach ``address``, so that nothing sent to it crosses a network.

    True for Unix sockets, ``localhost``, 127.0.0.0/8, ``::1`` and IPv4-mapped loopback addresses, with or without a
    port and behind gRPC's resolver names (``dns:``, ``ipv4:``, ``ipv6:``).  False for everything that is not
    certain: other names, addresses that the system completes (``127.1``), names with a name server of their own.
    """
    if address.startswith(_SOCKETS):
        return True
    if address.startswith(("ipv4:", "ipv6:")):  # gRPC takes a list of addresses there
        return all(_is_loopback_host(host_of(one)) for one in address[len("ipv4:") :].split(","))
    return _is_loopback_host(host_of(address))


def refuse_exposed(key: str, address: str, *, give: str) -> None:
    """Refuse an address of the setting ``key`` that is used without TLS although other machines can reach it.

    Raises:
        ValueError: the address is not loopback; the message says what to ``give``: a certificate, or ``insecure``.
    """
    if not is_loopback(address):
        raise ValueError(f"{key}: {address} is not loopback: give {give}, or insecure")


def _is_loopback_host(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped.is_loopback  # Python 3.13 and newer look at ipv4_mapped themselves
    return ip.is_loopback


def _without_resolver(address: str) -> str:
    """Remove gRPC's ``dns:``; ``dns://server/name`` stays whole, because that server may answer anything."""
    for prefix in ("dns:///", "dns:"):
        if address.startswith(prefix):
            target = address.removeprefix(prefix)
            return address if target.startswith("//") else target
    return address


def _without_brackets(name: str) -> str:
    """Remove the brackets of an IPv6 host; empty if it has colons without brackets, or brackets without colons."""
    bracketed = name.startswith("[") and name.endswith("]")
    host = name[1:-1] if bracketed else name
    return host if bracketed == (":" in host) else ""


def _is_bare_ipv6(address: str) -> bool:
    """Whether this is an IPv6 host without brackets, which has no port: gRPC reads ``::1:80`` as one host."""
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def _port(number: str) -> int | None:
    if not (number.isascii() and number.isdigit()) or len(number) > len(str(HIGHEST_PORT)):
        return None
    return int(number) if int(number) <= HIGHEST_PORT else None
