"""vLLM's sleep: refused where it would take what is needed, and final where it fails."""

from __future__ import annotations

import pytest

from executor_svc.engine.vllm.sleep import EngineSleep
from executor_svc.runtime.engine_port import EngineDeadError, EngineError


class Llm:
    """An AsyncLLM of which only sleep counts."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.asleep = False
        self.wakes = True
        self.broken: Exception | None = None

    async def sleep(self, level: int) -> None:
        self.calls.append(f"sleep {level}")
        if self.broken is not None:
            raise self.broken
        self.asleep = True

    async def wake_up(self) -> None:
        self.calls.append("wake up")
        if self.broken is not None:
            raise self.broken
        self.asleep = not self.wakes

    async def is_sleeping(self) -> bool:
        return self.asleep


def sleep_of(llm: Llm, *, able: bool = True, requests: int = 0) -> EngineSleep:
    return EngineSleep(llm, able=able, requests=lambda: requests)


async def test_weights_stay_in_the_host_s_memory_and_requests_are_refused_meanwhile() -> None:
    llm = Llm()
    sleep = sleep_of(llm)
    sleep.refuse_when_asleep()
    await sleep.sleep()
    await sleep.sleep()
    with pytest.raises(EngineError, match="asleep"):
        sleep.refuse_when_asleep()
    await sleep.wake_up()
    await sleep.wake_up()
    sleep.refuse_when_asleep()
    assert llm.calls == ["sleep 1", "wake up"]


async def test_an_engine_with_requests_or_without_sleep_mode_stays_as_it_is() -> None:
    llm = Llm()
    with pytest.raises(EngineError, match="2 requests"):
        await sleep_of(llm, requests=2).sleep()
    for call in (sleep_of(llm, able=False).sleep, sleep_of(llm, able=False).wake_up):
        with pytest.raises(EngineError, match=r"engine\.vllm\.sleep_mode"):
            await call()
    assert llm.calls == []


async def test_an_engine_that_does_not_wake_is_dead() -> None:
    llm = Llm()
    sleep = sleep_of(llm)
    await sleep.sleep()
    llm.broken = RuntimeError("CUDA error: out of memory\nlong trace")
    with pytest.raises(EngineDeadError, match="did not wake up: CUDA error: out of memory"):
        await sleep.wake_up()
    llm.broken, llm.wakes = None, False
    with pytest.raises(EngineDeadError, match="still sleeps"):
        await sleep.wake_up()


async def test_an_engine_that_fails_to_fall_asleep_is_dead() -> None:
    llm = Llm()
    llm.broken = RuntimeError("Memory usage increased after sleeping.")
    sleep = sleep_of(llm)
    with pytest.raises(EngineDeadError, match="did not fall asleep"):
        await sleep.sleep()
    with pytest.raises(EngineError):
        sleep.refuse_when_asleep()
