"""TLS files: the configuration section of both services, and reading the files it names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from sage_common.configuration import Section

CERTIFICATE_KEYS = "tls.certificate and tls.private_key"
"""The names, in error messages, of the settings that give a service's listeners TLS."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerTls:
    """PEM files of a listener."""

    certificate: Path  # the chain shown to clients
    private_key: Path
    client_ca: Path | None = None  # if set, clients must present a certificate signed by it


class CertificateSection(Section):
    """A certificate and its private key, both or neither."""

    certificate: Path | None = Field(default=None, description="PEM file of this service's certificate chain.")
    private_key: Path | None = Field(default=None, description="PEM file of the certificate's private key.")

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key go together")
        return self

    def server(self, *, client_ca: Path | None = None) -> ServerTls | None:
        """Return the files a listener needs; None where no certificate is configured."""
        if self.certificate is None or self.private_key is None:
            return None
        return ServerTls(certificate=self.certificate, private_key=self.private_key, client_ca=client_ca)


class UnreadableFile(Exception):
    """A file that the configuration names cannot be read; one sentence that says which and why."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"cannot read {path}: {error.strerror}")


def read_pem(path: Path) -> bytes:
    """Return the file's bytes.

    Raises:
        UnreadableFile: the file is not there, or may not be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFile(path, error) from error
