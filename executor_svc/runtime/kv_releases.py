"""Carries out ReleaseKv commands, which release KV that nobody will fetch, and answers the scheduler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from executor_svc.runtime.engine_port import Engine, EngineError
from executor_svc.runtime.messages.commands import ReleaseKv
from executor_svc.runtime.messages.reports import KvReleased

log = logging.getLogger(__name__)

RELEASE_TIMEOUT_S = 10.0  # longer than an engine waits for another engine's answer
MAX_CONCURRENT = 256  # further releases are refused: their KV blocks stay until their lease ends


class KvReleases:
    """Answers each ReleaseKv within RELEASE_TIMEOUT_S, unless its session ends first."""

    def __init__(self, answer: Callable[[KvReleased], None]) -> None:
        self._answer = answer
        self._engine: Engine | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, engine: Engine) -> None:
        """Begin to carry out commands with ``engine``, which is up."""
        self._engine = engine

    def release(self, command: ReleaseKv) -> None:
        """Start to carry out ``command``; its answer follows."""
        if self._engine is None:
            self._refuse(command, "the engine is not up yet")
        elif len(self._tasks) >= MAX_CONCURRENT:
            self._refuse(command, f"{MAX_CONCURRENT} releases are under way")
        else:
            task = asyncio.get_running_loop().create_task(self._release(self._engine, command), name="kv-release")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def forget(self) -> None:
        """Cancel the commands under way: a new session began, and no scheduler waits for their answers."""
        for task in self._tasks:
            task.cancel()

    async def _release(self, engine: Engine, command: ReleaseKv) -> None:
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                released = await engine.release_kv(command.kv_transfer_params)
        except TimeoutError:
            self._refuse(command, f"the engine did not answer in {RELEASE_TIMEOUT_S:g} s")
        except EngineError as error:
            self._refuse(command, str(error))
        except Exception as error:
            log.error("KV release %d failed in the executor", command.number, exc_info=error)
            self._refuse(command, f"the executor failed: {error!r}")
        else:
            message = "" if released else "the engine that keeps it could not be reached"
            self._answer(KvReleased(number=command.number, released=released, message=message))

    def _refuse(self, command: ReleaseKv, reason: str) -> None:
        log.warning("KV release %d failed; the KV stays until its lease ends: %s", command.number, reason)
        self._answer(KvReleased(number=command.number, released=False, message=reason))

    async def stop(self) -> None:
        """Cancel the commands under way and wait until their tasks have ended."""
        self.forget()
        await asyncio.gather(*self._tasks, return_exceptions=True)
