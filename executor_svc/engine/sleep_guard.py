"""What every engine's sleep has in common: it sleeps only when nothing is in the engine, and refuses work meanwhile."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from executor_svc.runtime.engine_port import EngineError


def _alive() -> None:
    """Take an engine for alive."""


class SleepGuard(ABC):
    """Whether one engine sleeps.  Its subclasses know how to put it to sleep and to wake it."""

    def __init__(
        self, *, setting: str, able: bool, requests: Callable[[], int], check: Callable[[], None] = _alive
    ) -> None:
        """Be awake.  ``setting``: the key that makes an engine able to sleep; ``able``: whether it was set.

        ``requests``: how many the engine has.  ``check`` raises EngineDeadError once the engine is dead.
        """
        self._setting = setting
        self._able = able
        self._requests = requests
        self._check = check
        self._asleep = False

    def refuse_when_asleep(self) -> None:
        """Raise EngineError from the begin of a sleep until the engine is awake again."""
        if self._asleep:
            raise EngineError("the engine is asleep")

    async def sleep(self) -> None:
        """Fall asleep, as ``Engine.sleep`` describes."""
        self._refuse_unable()
        if self._asleep:
            return
        if why := self._busy():
            raise EngineError(why)
        self._asleep = True
        await self._fall_asleep()

    async def wake_up(self) -> None:
        """Wake up, as ``Engine.wake_up`` describes."""
        self._refuse_unable()
        if not self._asleep:
            return
        await self._awake()
        self._asleep = False

    def _refuse_unable(self) -> None:
        self._check()
        if not self._able:
            raise EngineError(f"this engine cannot sleep: {self._setting} is off")

    def _busy(self) -> str:
        """Say in words what keeps the engine from falling asleep; empty: nothing."""
        count = self._requests()
        return f"{count} requests are in the engine" if count else ""

    @abstractmethod
    async def _fall_asleep(self) -> None:
        """Put the engine to sleep.  Raises EngineDeadError if that fails."""

    @abstractmethod
    async def _awake(self) -> None:
        """Wake the engine.  Raises EngineDeadError if that fails."""
