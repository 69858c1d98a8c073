"""TLS of the addresses that the scheduler serves."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from sage_common.tls import CertificateSection

Listener = Literal["listen", "executor_listen", "admin_listen"]
ALL_LISTENERS = frozenset(get_args(Listener))


class TlsSection(CertificateSection):
    """TLS of the listener.  Off without a certificate."""

    client_ca: Path | None = Field(
        default=None,
        description="PEM file of the authority that must have signed the certificates of clients and executors.",
    )
    client_ca_listeners: tuple[Listener, ...] = Field(
        default=("listen", "executor_listen", "admin_listen"),
        description="Addresses that take only clients with a certificate of client_ca; others use bearer tokens.",
    )

    @model_validator(mode="after")
    def _needs_a_certificate(self) -> Self:
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and private_key")
        return self
