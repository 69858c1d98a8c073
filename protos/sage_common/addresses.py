"""Network addresses, read as gRPC reads them: which host one names, and whether only this machine can reach it."""

from __future__ import annotations

import ipaddress

HIGHEST_PORT = 65_535
_SOCKETS = ("unix:", "unix-abstract:")


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
        ValueError: the address has no host, or no port between ``lowest_port`` and 65535.
    """
    if address.startswith(_SOCKETS):
        return
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
    """Tell whether only this machine can reach ``address``, so that nothing sent to it crosses a network.

    True for Unix sockets, ``localhost``, 127.0.0.0/8, ``::1`` and IPv4-mapped loopback addresses, with or without a
    port and behind gRPC's resolver names (``dns:``, ``ipv4:``, ``ipv6:``).  False for whatever cannot be read with
    certainty: other names, addresses that the system would complete (``127.1``), a name that a named server resolves.
    """
    if address.startswith(_SOCKETS):
        return True
    if address.startswith(("ipv4:", "ipv6:")):  # gRPC takes a list of addresses there
        return all(_is_loopback_host(host_of(one)) for one in address[len("ipv4:") :].split(","))
    return _is_loopback_host(host_of(address))


def refuse_exposed(key: str, address: str, *, give: str) -> None:
    """Refuse the address of a setting ``key`` that is to be used without TLS and that other machines can reach.

    Raises:
        ValueError: it is not loopback; the sentence says what to ``give`` instead: a certificate, or ``insecure``.
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
        return ip.ipv4_mapped.is_loopback  # which Python itself says from 3.13 on
    return ip.is_loopback


def _without_resolver(address: str) -> str:
    """Take gRPC's ``dns:`` off; ``dns://server/name`` stays whole, since that server may answer anything."""
    for prefix in ("dns:///", "dns:"):
        if address.startswith(prefix):
            rest = address.removeprefix(prefix)
            return address if rest.startswith("//") else rest
    return address


def _without_brackets(name: str) -> str:
    """Take the brackets off an IPv6 host; empty where brackets and colons do not go together."""
    bracketed = name.startswith("[") and name.endswith("]")
    host = name[1:-1] if bracketed else name
    return host if bracketed == (":" in host) else ""


def _is_bare_ipv6(address: str) -> bool:
    """Tell whether this is an IPv6 host without brackets, which has no port: gRPC reads ``::1:80`` as one host."""
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def _port(number: str) -> int | None:
    if not (number.isascii() and number.isdigit()) or len(number) > len(str(HIGHEST_PORT)):
        return None
    return int(number) if int(number) <= HIGHEST_PORT else None
