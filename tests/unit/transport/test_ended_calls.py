"""A handler that is closed after its call has ended, as Python closes generators: gRPC must not be asked about it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sage_common import keys_file
from sage_common.grants import Grant, Role
from sage_common.keys_file import Key, hash_of
from scheduler_svc.access.audit import LOGGER, Audit
from scheduler_svc.access.authenticator import Authenticator
from scheduler_svc.access.open_calls import OpenCalls
from scheduler_svc.access.settings import AccessSection
from scheduler_svc.transport.access_interceptor import AccessInterceptor
from scheduler_svc.transport.health import ADMIN

ACTION = f"/{ADMIN}/ExportJournal"


class Context:
    """Knows about its call while that lasts.  gRPC's own ends the process where this one fails the test."""

    def __init__(self) -> None:
        self.over = False

    def peer(self) -> str:
        assert not self.over
        return "ipv4:192.0.2.1:1"

    def auth_context(self) -> dict[str, Any]:
        assert not self.over
        return {}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", "Bearer key-op"),)


@pytest.mark.parametrize("certificates", [False, True])
async def test_an_action_that_is_closed_after_its_call_is_noted_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, certificates: bool
) -> None:
    keys = tmp_path / "keys.toml"
    keys_file.add(keys, Key(name="op", sha256=hash_of("key-op"), grant=Grant(role=Role.OPERATOR)))
    authenticator = Authenticator(AccessSection(keys_file=keys))
    interceptor = AccessInterceptor(
        authenticator, Audit(), OpenCalls(authenticator), clients_have_certificates=certificates
    )
    context = Context()
    details: Any = SimpleNamespace(method=ACTION, invocation_metadata=context.invocation_metadata())

    async def pages(request: bytes, context: Context) -> AsyncIterator[int]:
        yield 1
        yield 2

    running = interceptor._stream(pages, interceptor._judged(details))(None, context)
    assert await anext(running) == 1
    context.over = True
    with caplog.at_level(logging.INFO, LOGGER):
        await running.aclose()
    assert f"action: {ACTION.rpartition('/')[2]} by 'op' from ipv4:192.0.2.1:1: CANCELLED" in caplog.text
