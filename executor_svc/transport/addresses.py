"""Which addresses can be reached from this machine only."""

from __future__ import annotations

import ipaddress


def host_of(address: str) -> str:
    """The host of ``host:port``, ``[v6]:port`` or ``dns:///host:port``; empty for a Unix socket."""
    if address.startswith(("unix:", "unix-abstract:")):
        return ""
    target = address.rsplit("/", 1)[-1]
    host, _, port = target.rpartition(":")
    return (host if port.isdigit() else target).strip("[]")


def is_loopback(address: str) -> bool:
    host = host_of(address)
    if host in ("", "localhost"):
        return address.startswith(("unix:", "unix-abstract:")) or host == "localhost"
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
