"""TLS files: the configuration section of both services, and reading the files it names."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from sage_common.certificate_validity import validity_of
from sage_common.configuration import Section
from sage_common.file_watch import FileWatch

log = logging.getLogger(__name__)

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


class UnusableFiles(Exception):
    """Files that can be read and are not what they should be; one sentence that names them."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What the files of a listener held when they were read."""

    certificate: bytes
    private_key: bytes = field(repr=False)
    client_ca: bytes | None

    @classmethod
    def read(cls, tls: ServerTls) -> TlsFiles:
        """Read the files.

        Raises:
            UnreadableFile: one cannot be read.
            UnusableFiles: they are not a certificate and its private key, or not an authority's certificate.
        """
        content = cls(
            read_pem(tls.certificate),
            read_pem(tls.private_key),
            read_pem(tls.client_ca) if tls.client_ca is not None else None,
        )
        _check(tls)
        return content

    def problem(self, now: datetime) -> str:
        """Say why no client takes the certificate at ``now``; empty if clients may."""
        validity = validity_of(self.certificate)
        return validity.problem(now) if validity is not None else ""


def _now() -> datetime:
    return datetime.now(UTC)


class ReloadedTls:
    """The files of a listener, read again when they change, so that new handshakes use new certificates."""

    def __init__(self, tls: ServerTls, now: Callable[[], datetime] = _now) -> None:
        """Read the files.  Raises UnreadableFile, UnusableFiles.

        A certificate that has ended is used all the same, and said to have at level ERROR.
        """
        self._tls = tls
        self._now = now
        self._watch = FileWatch(path for path in (tls.certificate, tls.private_key, tls.client_ca) if path is not None)
        self.current = TlsFiles.read(tls)
        if problem := self.current.problem(now()):
            log.error("tls: clients refuse the certificate in %s: %s", tls.certificate, problem)

    def check(self, force: bool = False) -> None:
        """Read the files again if one changed, or with ``force``.

        Files that cannot be used are said at level ERROR, once per change; those read before stay in use.  So do they
        while their certificate is valid and that of the new files is not.
        """
        if not self._watch.changed() and not force:
            return
        try:
            found = TlsFiles.read(self._tls)
        except (UnreadableFile, UnusableFiles) as error:
            log.error("tls: the certificate read before stays in use: %s", error)
            return
        now = self._now()
        if (problem := found.problem(now)) and not self.current.problem(now):
            log.error("tls: the certificate read before stays in use: that in %s: %s", self._tls.certificate, problem)
            return
        if found != self.current:
            self.current = found
            log.info("tls: new handshakes use the certificate in %s", self._tls.certificate)


def _check(tls: ServerTls) -> None:
    """Have the standard library load the files.  Raises UnusableFiles."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.private_key, password="")
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise UnusableFiles(f"{tls.certificate} and {tls.private_key} are not a certificate and its key") from error
    try:
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
    except (OSError, ValueError) as error:
        raise UnusableFiles(f"{tls.client_ca} holds no certificate of an authority") from error
