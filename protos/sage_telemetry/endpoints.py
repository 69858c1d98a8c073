"""Addresses of OTLP receivers and of the metrics page."""

from __future__ import annotations

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
        """Read "http://host:port" or "https://host:port"; the port is 4317 where none is named.

        Raises:
            ValueError: the URL has another scheme, no host, or more than scheme, host and port.
        """
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            # Not shown: the message ends up in logs, and a password with it.
            raise ValueError("the URL has a user name or a password; OTLP over gRPC takes them in headers")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not http://host:port or https://host:port")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError(f"{url!r} has more than scheme, host and port; OTLP over gRPC knows no path")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(f"{host}:{parts.port or OTLP_PORT}", parts.scheme == "https")
