"""Whose key goes to the scheduler."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_gateway import connection_settings
from sage_gateway.connection_settings import NOBODY, ConnectionSettings


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    seen: list[object] = []

    class Client:
        def __init__(self, address: str, *, token: object, **options: object) -> None:
            seen.append(token)

    monkeypatch.setattr(connection_settings, "AsyncClient", Client)
    return seen


def test_a_caller_without_a_key_has_none(tokens: list[object]) -> None:
    ConnectionSettings().client_of("")
    assert tokens == [""]


def test_a_caller_without_a_key_is_not_taken_for_the_gateways_certificate(tokens: list[object]) -> None:
    """The scheduler knows callers without a token by the certificate of their connection, which is the gateway's."""
    settings = ConnectionSettings(tls_cert=Path("gateway.pem"), tls_key=Path("gateway.key"))
    settings.client_of("")
    settings.client_of("a key")
    settings.own_client()
    assert tokens == [NOBODY, "a key", None]
