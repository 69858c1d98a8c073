"""Starts executors again when they end, as an operator's supervisor would."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Self

from tests.support.service_process import ServiceProcess

LOOK_EVERY_S = 0.05


class ProcessSupervisor:
    """While it is entered, none of ``processes`` stays down for longer than ``after_s``."""

    def __init__(self, processes: Iterable[ServiceProcess], *, after_s: float = 0.1) -> None:
        self._processes = tuple(processes)
        self._after_s = after_s
        self._task: asyncio.Task[None] | None = None
        self.statuses: list[int] = []  # how each that ended did

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep(), name="supervisor")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            for process in self._processes:
                status = process.exit_status
                if status is not None:
                    self.statuses.append(status)
                    await asyncio.sleep(self._after_s)
                    process.start()
            await asyncio.sleep(LOOK_EVERY_S)
