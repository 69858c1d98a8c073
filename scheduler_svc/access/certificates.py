"""Identities by client certificate: rules over its names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sage_common.grants import matched
from scheduler_svc.access.identity import Identity
from scheduler_svc.access.settings import CertificateRule


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerCertificate:
    """The names of a certificate that the TLS handshake verified."""

    common_name: str
    alternative_names: tuple[str, ...]  # DNS names, URIs, IP addresses, as text


class CertificateRules:
    """The configured rules; the first that matches counts."""

    def __init__(self, rules: Sequence[CertificateRule]) -> None:
        self._rules = tuple(rules)

    def identity(self, certificate: PeerCertificate) -> Identity | None:
        """Return who presents ``certificate``; None if no rule matches."""
        for rule in self._rules:
            names = certificate.alternative_names if rule.san else (certificate.common_name,)
            for name in names:
                found = matched(rule.san or rule.cn, name)
                # A certificate for *.example.com would otherwise be granted every name.
                if found is not None and "*" not in found:
                    return Identity(name=name, grant=rule.grant(found))
        return None
