"""Sleep of a simulated engine: it takes as long as is set, and drops the prefix cache."""

from __future__ import annotations

from collections.abc import Callable

from executor_svc.engine.simulated.kv import KvPool
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.runtime.engine_port import EngineError
from sage_common.clock import Clock


class SimulatedSleep:
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
        """Be awake.  ``requests``: how many the engine has.  ``check`` raises EngineDeadError once it is dead."""
        self._settings = settings
        self._clock = clock
        self._kv = kv
        self._requests = requests
        self._check = check
        self._asleep = False

    def refuse_when_asleep(self) -> None:
        """Raise EngineError from the begin of a sleep until the engine is awake again."""
        if self._asleep:
            raise EngineError("the engine is asleep")

    async def sleep(self) -> None:
        """Fall asleep in ``sleep_s``, as ``Engine.sleep`` describes."""
        self._refuse_unable()
        if self._asleep:
            return
        if count := self._requests():
            raise EngineError(f"{count} requests are in the engine")
        if self._kv.used:
            raise EngineError(f"KV of {self._kv.used_tokens} tokens is kept for other engines")
        self._asleep = True
        await self._clock.sleep(self._settings.sleep_s)
        self._check()
        self._kv.drop_cached()

    async def wake_up(self) -> None:
        """Wake up in ``wake_s``, as ``Engine.wake_up`` describes."""
        self._refuse_unable()
        if not self._asleep:
            return
        await self._clock.sleep(self._settings.wake_s)
        self._check()
        self._asleep = False

    def _refuse_unable(self) -> None:
        self._check()
        if not self._settings.sleep_mode:
            raise EngineError("this engine cannot sleep: engine.simulated.sleep_mode is off")
