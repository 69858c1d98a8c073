"""What a run found: statuses that nobody may get, other tenants' data, errors in logs and in the event loop."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import grpc
from google.rpc import status_pb2

FORBIDDEN = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})
TASKS_END_WITHIN_S = 5.0
KEPT = 20  # findings told in full

EXPECTED_ERRORS = (
    "attempt ",  # "... cannot be resumed: the scheduler resumes from token 0; ..."
    "instance rogue-",  # "... sent a message about attempt 7, which belongs to real-1: dropped"
    "tokenizer ",  # "tokenizer 1234 refused: ...": the files are at fault, and the operator is told
    "registration refused",  # an executor tells why it has no session
)
"""Beginnings of messages that a service may log as errors: a peer is at fault, not the service."""


class Findings(logging.Handler):
    """Collects what is wrong while the context is entered; ``told`` is empty if nothing is."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []
        self.statuses: dict[str, Counter[str]] = {}  # by the method
        self._secrets: list[str] = []
        self._before: Any = None

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        loop = asyncio.get_running_loop()
        self._before = loop.get_exception_handler()
        loop.set_exception_handler(self._unhandled)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        logging.getLogger().removeHandler(self)
        asyncio.get_running_loop().set_exception_handler(self._before)

    def add(self, what: str) -> None:
        if len(self.told) < KEPT:
            self.told.append(what)

    # --- of calls -----------------------------------------------------------------------------------------------

    def status(self, method: str, code: grpc.StatusCode, details: str, about: str) -> None:
        """Note how a call ended."""
        self.statuses.setdefault(method, Counter())[code.name] += 1
        if code in FORBIDDEN:
            self.add(f"{code.name} ({details}): {about}")

    def status_told(self, status: status_pb2.Status, about: str) -> None:
        """Note a status that a reply holds."""
        if status.code in {code.value[0] for code in FORBIDDEN}:
            self.add(f"a reply holds status {status.code} ({status.message}): {about}")

    def keep_secret(self, *texts: str) -> None:
        """Look for ``texts`` in everything that the fuzzer's tenants are told from now on."""
        self._secrets += texts

    def told_to_others(self, texts: Iterable[str], about: str) -> None:
        """Note a secret in what another tenant is told."""
        whole = "".join(texts)
        for secret in self._secrets:
            if secret in whole:
                self.add(f"another tenant was told {secret!r}: {about}")

    # --- of the services ----------------------------------------------------------------------------------------

    def emit(self, record: logging.LogRecord) -> None:
        """Note an error, and any message that has a stack."""
        message = record.getMessage()
        if record.levelno < logging.ERROR and not record.exc_info:
            return
        if message.startswith(EXPECTED_ERRORS) or any(f": {each}" in message for each in EXPECTED_ERRORS):
            return
        stack = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        self.add(f"log: {record.name}: {message}\n{stack[-3_000:]}")

    async def tasks_left(self) -> None:
        """Note the tasks that are still there after a moment, besides the caller's."""
        end = asyncio.get_running_loop().time() + TASKS_END_WITHIN_S
        while left := asyncio.all_tasks() - {asyncio.current_task()}:
            if asyncio.get_running_loop().time() > end:
                self.add(f"tasks were left behind: {left!r}")
                return
            await asyncio.sleep(0.01)

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        stack = "".join(traceback.format_exception(error)) if error is not None else ""
        self.add(f"event loop: {context.get('message')}\n{stack[-3_000:]}")
