"""An engine's processes end with it: when it stops, fails, is killed, or its executor is."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.engine.vllm.starting import VllmEngineFactory
from executor_svc.runtime.engine_port import EngineDeadError, EngineError, EngineState
from tests.contract.engine.by_steps import BySteps
from tests.contract.engine.contract import GREEDY_48, answer, request_of
from tests.vllm.engine.engine_host import SETTINGS

pytestmark = [pytest.mark.vllm]

GONE_WITHIN_S = 60.0
PROMPT = [20, 21, 22, 23]
ENDLESS = replace(GREEDY_48, max_tokens=900)  # it is not over before its engine is


def ignore(state: EngineState, fraction: float | None, message: str) -> None:
    pass


def engine_processes(pid: int) -> list[psutil.Process]:
    """The engine's processes below ``pid``: those that multiprocessing spawned, before and after they rename
    themselves."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = " ".join(process.cmdline())
            if "multiprocessing.spawn" in command or command.startswith("VLLM::"):
                found.append(process)
    return found


def trial_processes(pid: int) -> list[psutil.Process]:
    """The processes below ``pid`` that compile constraints on trial."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(part.endswith("constraints.compile_process") for part in process.cmdline()):
                found.append(process)
    return found


def ids_below(pid: int) -> set[int]:
    return {process.pid for process in (*engine_processes(pid), *trial_processes(pid))}


@pytest.fixture
def own_processes() -> Iterator[set[int]]:
    """Ids of the processes below this one at the start; at the end there may be no others."""
    before = ids_below(os.getpid())
    yield before
    assert ids_below(os.getpid()) <= before


@pytest.fixture
async def doomed(model_path: Path, own_processes: set[int]) -> AsyncIterator[VllmEngine]:
    """An engine of the test's own."""
    engine = await VllmEngineFactory(ModelSettings(model=str(model_path)), SETTINGS).start(ignore)
    yield engine
    await engine.shutdown()


async def test_killing_the_engine_core_is_death_for_every_reader(doomed: VllmEngine, own_processes: set[int]) -> None:
    stream, stepped = (way.generate(request_of(PROMPT, ENDLESS)) for way in (doomed, BySteps(doomed)))
    await anext(stream)
    await anext(stepped)
    (core,) = (process for process in multiprocessing.active_children() if process.pid not in own_processes)
    core.kill()
    for reader in (stream, stepped):
        with pytest.raises(EngineDeadError):
            async for _ in reader:
                pass
    with pytest.raises(EngineDeadError):
        await doomed.check_health()
    for way in (doomed, BySteps(doomed)):
        with pytest.raises(EngineDeadError):
            await answer(way, PROMPT, GREEDY_48)
    assert doomed.load().unfinished == 0


async def test_a_stopped_engine_is_dead_and_stops_twice(doomed: VllmEngine) -> None:
    stream, stepped = (way.generate(request_of(PROMPT, ENDLESS)) for way in (doomed, BySteps(doomed)))
    await anext(stream)
    await anext(stepped)
    await doomed.shutdown()
    for reader in (stream, stepped):
        with pytest.raises(EngineDeadError):
            async for _ in reader:
                pass
    with pytest.raises(EngineDeadError):
        await doomed.check_health()
    for way in (doomed, BySteps(doomed)):
        with pytest.raises(EngineDeadError):
            await answer(way, PROMPT, GREEDY_48)
    await doomed.shutdown()
    assert doomed.load().running >= 0  # still answers


async def test_giving_up_a_start_leaves_no_process(model_path: Path, own_processes: set[int]) -> None:
    start = asyncio.create_task(VllmEngineFactory(ModelSettings(model=str(model_path)), SETTINGS).start(ignore))
    while {process.pid for process in engine_processes(os.getpid())} <= own_processes:
        await asyncio.sleep(0.05)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start


async def test_a_start_that_takes_too_long_is_given_up(model_path: Path, own_processes: set[int]) -> None:
    hasty = SETTINGS.model_copy(update={"start_timeout_s": 3.0})
    with pytest.raises(EngineError, match="start_timeout_s"):
        await VllmEngineFactory(ModelSettings(model=str(model_path)), hasty).start(ignore)


async def test_a_kv_cache_too_small_for_the_model_is_an_error(model_path: Path, own_processes: set[int]) -> None:
    tight = SETTINGS.model_copy(update={"kv_cache_bytes": 1 << 20})
    with pytest.raises(EngineError, match="could not start"):
        await VllmEngineFactory(ModelSettings(model=str(model_path)), tight).start(ignore)


async def test_an_argument_vllm_does_not_know_is_refused_by_name(model_path: Path) -> None:
    settings = VllmSettings(engine_args={"no_such_argument": 1, "max_logprobs": 5})
    with pytest.raises(EngineError, match="'no_such_argument'") as caught:
        await VllmEngineFactory(ModelSettings(model=str(model_path)), settings).start(ignore)
    assert "max_logprobs" not in str(caught.value)


async def test_a_length_the_model_does_not_have_is_an_error_that_says_so(model_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"max_model_len": 10_000_000})
    with pytest.raises(EngineError, match="10000000"):
        await VllmEngineFactory(ModelSettings(model=str(model_path)), settings).start(ignore)


class Host:
    """A process with an engine of its own."""

    def __init__(self, model_path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.vllm.engine.engine_host", str(model_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def wait_for(self, state: EngineState) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == f"state {state.value}":
                return
        pytest.fail(f"the host ended before it was {state.value}")

    def wait_for_processes(self, count: int) -> list[psutil.Process]:
        while len(found := engine_processes(self.process.pid)) < count:
            assert self.process.poll() is None
        return found


@pytest.fixture
def host(model_path: Path) -> Iterator[Host]:
    host = Host(model_path)
    yield host
    host.process.kill()
    host.process.communicate()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_an_executor_that_is_killed_takes_its_engine_along(host: Host, how: signal.Signals) -> None:
    host.wait_for(EngineState.READY)
    engine = engine_processes(host.process.pid)
    assert engine
    engine += trial_processes(host.process.pid)
    host.process.send_signal(how)
    _, alive = psutil.wait_procs(engine, timeout=GONE_WITHIN_S)
    assert alive == []


def test_an_executor_that_is_killed_while_loading_takes_its_engine_along(host: Host) -> None:
    host.wait_for(EngineState.LOADING)
    engine = host.wait_for_processes(1)
    trials = trial_processes(host.process.pid)
    assert trials
    host.process.kill()
    _, alive = psutil.wait_procs([*engine, *trials], timeout=GONE_WITHIN_S)
    assert alive == []
