"""Sleep of a simulated engine: it takes as long as is set, and drops the prefix cache."""

from __future__ import annotations

from collections.abc import Callable

from executor_svc.engine.simulated.kv import KvPool
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.sleep_guard import SleepGuard
from sage_common.clock import Clock


class SimulatedSleep(SleepGuard):
    """Whether the engine sleeps."""

    def __init__(
        self,
        settings: SimulatedSettings,
        clock: Clock,
        kv: KvPool,
        *,
        requests: Callable[[], int],
        check: Callable[[], None],
    ) -> None:
        """Be awake; ``SleepGuard`` has the arguments."""
        setting = "engine.simulated.sleep_mode"
        super().__init__(setting=setting, able=settings.sleep_mode, requests=requests, check=check)
        self._settings = settings
        self._clock = clock
        self._kv = kv

    def _busy(self) -> str:
        if why := super()._busy():
            return why
        return f"KV of {self._kv.used_tokens} tokens is kept for other engines" if self._kv.used else ""

    async def _fall_asleep(self) -> None:
        await self._clock.sleep(self._settings.sleep_s)
        self._check()
        self._kv.drop_cached()

    async def _awake(self) -> None:
        await self._clock.sleep(self._settings.wake_s)
        self._check()
