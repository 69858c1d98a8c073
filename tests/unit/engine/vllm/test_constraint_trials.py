"""The trial process keeps each trial within its limits, and survives what the trials do."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from executor_svc.engine.vllm.constraints.trial_process import Ending, NoTrials, TrialProcess
from executor_svc.engine.vllm.constraints.trial_server import OUT_OF_MEMORY
from executor_svc.runtime.engine_port import EngineError

HOST = (sys.executable, "-m", "tests.unit.engine.vllm.trial_host")
CPU_S = 0.05


async def setup() -> str:
    return "serve"


@pytest_asyncio.fixture
async def trials() -> AsyncIterator[TrialProcess]:
    process = TrialProcess(HOST, setup)
    yield process
    await process.close()


@pytest.mark.parametrize(
    ("task", "ending"),
    [
        ("fine", Ending()),
        ("spin", Ending(signal=signal.SIGPROF)),
        ("broken", Ending(error="no such rule")),
        ("crash", Ending(signal=signal.SIGSEGV)),
        ("memory", Ending(error=OUT_OF_MEMORY)),
    ],
)
async def test_each_trial_ends_by_itself_or_by_its_limits(trials: TrialProcess, task: str, ending: Ending) -> None:
    assert await trials.attempt(task, CPU_S) == ending
    assert (await trials.attempt("fine", CPU_S)).passed, "the process serves on"


async def test_a_trial_passes_while_another_one_does_not_end(trials: TrialProcess) -> None:
    endless = asyncio.create_task(trials.attempt("spin", 60.0))
    assert (await trials.attempt("fine", CPU_S)).passed
    assert not endless.done()
    endless.cancel()
    await asyncio.gather(endless, return_exceptions=True)


async def test_a_process_that_died_fails_its_trials_and_is_started_again(trials: TrialProcess) -> None:
    with pytest.raises(EngineError, match="has died"):
        await trials.attempt("end the server", 5.0)
    assert (await trials.attempt("fine", CPU_S)).passed


async def test_a_process_that_does_not_start_says_so() -> None:
    async def refuse() -> str:
        return "fail"

    with pytest.raises(NoTrials, match="it ended with status 3"):
        await TrialProcess(HOST, refuse).attempt("fine", CPU_S)
