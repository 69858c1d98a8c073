"""vLLM's sleep of level 1: weights in the host's memory, no KV; needs ``enable_sleep_mode`` and a GPU."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from executor_svc.engine.sleep_guard import SleepGuard
from executor_svc.engine.vllm.errors import first_line
from executor_svc.runtime.engine_port import EngineDeadError

_LEVEL = 1  # level 2 drops the weights, too


def has_sleep(llm: Any) -> bool:
    """Whether an AsyncLLM of this vLLM version can be put to sleep."""
    return all(callable(getattr(llm, name, None)) for name in ("sleep", "wake_up", "is_sleeping"))


class EngineSleep(SleepGuard):
    """Whether one AsyncLLM sleeps."""

    def __init__(self, llm: Any, *, able: bool, requests: Callable[[], int]) -> None:
        """``able``: whether the engine was started with sleep mode.  ``requests``: how many the engine has."""
        super().__init__(setting="engine.vllm.sleep_mode", able=able, requests=requests)
        self._llm = llm

    async def _fall_asleep(self) -> None:
        await _done(self._llm.sleep(level=_LEVEL), "fall asleep")

    async def _awake(self) -> None:
        await _done(self._llm.wake_up(), "wake up")
        if await _done(self._llm.is_sleeping(), "say whether it sleeps"):
            raise EngineDeadError("the engine still sleeps after it was woken")


async def _done(call: Awaitable[Any], what: str) -> Any:
    """Return what a call returns.  Raises EngineDeadError for any failure: nobody knows what the device holds then."""
    try:
        return await call
    except Exception as error:
        raise EngineDeadError(f"the engine did not {what}: {first_line(error)}") from error
