"""The gateway's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sage_gateway.connection_settings import ConnectionSettings
from sage_gateway.media_hosts import MediaHost
from sage_gateway.media_memory import MEDIA_BYTES

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
GRACE_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewaySettings:
    """What one gateway serves, and where."""

    connection: ConnectionSettings = field(default_factory=ConnectionSettings)
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT  # 0: a free one
    workers: int = 1  # processes that share the port
    tls_cert: Path | None = None  # PEM file of the certificate for HTTPS; None: HTTP
    tls_key: Path | None = None  # PEM file of its private key
    grace_s: float = GRACE_S  # seconds that running requests get when the gateway stops
    uvloop: bool = False  # whether the event loop is uvloop's
    vllm_arguments: tuple[str, ...] = ()  # further flags of vLLM's server
    model_arguments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the same for one model, by its name
    media_hosts: tuple[MediaHost, ...] = ()  # from which images and audio are fetched by their addresses
    media_bytes: int = MEDIA_BYTES  # that requests of a process may hold of what was fetched, and of audio
    check: bool = False  # only check that the gateway can run
