"""Credentials from files."""

from __future__ import annotations

from pathlib import Path

import grpc


class UnreadableFile(Exception):
    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"cannot read {path}: {error.strerror}")


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFile(path, error) from error


def dial_credentials(ca: Path, certificate: Path | None, key: Path | None) -> grpc.ChannelCredentials:
    """Verifies the scheduler against ``ca``; presents ``certificate`` where there is one.  Raises UnreadableFile."""
    return grpc.ssl_channel_credentials(
        root_certificates=_read(ca), private_key=_read(key), certificate_chain=_read(certificate)
    )


def listen_credentials(certificate: Path, key: Path) -> grpc.ServerCredentials:
    """Raises UnreadableFile."""
    return grpc.ssl_server_credentials([(_read(key) or b"", _read(certificate) or b"")])
