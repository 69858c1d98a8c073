"""Addresses of OTLP receivers and of the metrics page."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

OTLP_PORT = 4317
"""The standard port of OTLP over gRPC."""


@dataclass(frozen=True, slots=True)
class OtlpEndpoint:
    """The address of an OTLP/gRPC receiver."""

    target: str  # host:port
    secure: bool  # TLS, verified against the system's certificate authorities

    @classmethod
    def parse(cls, url: str) -> OtlpEndpoint:
        """Read "http://host:port" or "https://host:port", without a port OTLP_PORT.  Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not http://host:port or https://host:port")
        if parts.path.strip("/") or parts.query or parts.fragment or parts.username:
            raise ValueError(f"{url!r} has more than scheme, host and port; OTLP over gRPC knows no path")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(f"{host}:{parts.port or OTLP_PORT}", parts.scheme == "https")


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of "host:port" or "[::1]:port".  Raises ValueError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Return whether ``address``, a host:port, can be reached from this machine only.  Raises ValueError."""
    host = split_address(address)[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
