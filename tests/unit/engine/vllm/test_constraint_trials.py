"""The trial process keeps each trial within its limits, and survives what the trials do."""

from __future__ import annotations

import asyncio
import json
import select
import signal
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from executor_svc.engine.vllm.constraints import trial_process
from executor_svc.engine.vllm.constraints.trial_process import Ending, NoTrials, TrialProcess
from executor_svc.engine.vllm.constraints.trial_server import OUT_OF_MEMORY
from executor_svc.runtime.engine_port import EngineError

HOST = (sys.executable, "-m", "tests.unit.engine.vllm.trial_host")
CPU_S = 0.05
KILLED = (-signal.SIGKILL, 255)  # 255: asyncio saw no status, as the second of two signals had taken note of it


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


async def test_a_process_that_was_launched_takes_the_first_trial(trials: TrialProcess) -> None:
    await trials.launch()
    launched = trials._launched
    assert launched is not None
    assert (await trials.attempt("fine", CPU_S)).passed
    assert trials._process is launched


async def test_a_launched_process_that_died_is_started_again(trials: TrialProcess) -> None:
    await trials.launch()
    assert trials._launched is not None
    trials._launched.kill()
    await trials._launched.wait()
    assert (await trials.attempt("fine", CPU_S)).passed


async def test_a_launched_process_that_gets_no_trial_ends_with_the_engine() -> None:
    trials = TrialProcess(HOST, setup)
    await trials.launch()
    launched = trials._launched
    assert launched is not None
    await trials.close()
    assert launched.returncode is not None


async def test_what_cannot_be_launched_is_told_by_the_first_trial() -> None:
    trials = TrialProcess(("/nowhere/python",), setup)
    await trials.launch()
    with pytest.raises(NoTrials, match="No such file"):
        await trials.attempt("fine", CPU_S)


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


async def test_a_process_that_is_killed_under_a_trial_is_replaced_and_the_trial_made_again(
    trials: TrialProcess, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await trials.attempt("fine", CPU_S)).passed
    killed = trials._process
    assert killed is not None
    endless = asyncio.create_task(trials.attempt("spin", 2.0))
    await asyncio.sleep(0.1)
    killed.kill()
    assert (await endless).outlasted
    assert trials._process is not killed
    assert "has died (status -9)" in caplog.text or "has died (status 255)" in caplog.text


async def test_a_process_that_does_not_start_says_so() -> None:
    async def refuse() -> str:
        return "fail"

    with pytest.raises(NoTrials, match="it ended with status 3"):
        await TrialProcess(HOST, refuse).attempt("fine", CPU_S)


@pytest.mark.parametrize(("task", "status"), [("leave", 0), ("interrupted", 1)])
async def test_a_trial_that_ends_without_an_answer_is_told(trials: TrialProcess, task: str, status: int) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(EngineError, match=f"could not be tried: its process exited with status {status}"):
            await trials.attempt(task, CPU_S)
    assert (await trials.attempt("fine", CPU_S)).passed


async def test_a_trial_without_a_process_is_told() -> None:
    async def no_processes() -> str:
        return "no processes"

    trials = TrialProcess(HOST, no_processes)
    async with asyncio.timeout(30):
        for _ in range(2):
            with pytest.raises(EngineError, match="no process can be made: Resource temporarily unavailable"):
                await trials.attempt("fine", CPU_S)
    await trials.close()


async def test_a_machines_own_limit_of_memory_stays() -> None:
    async def limited() -> str:
        return "limited"

    trials = TrialProcess(HOST, limited)
    async with asyncio.timeout(30):
        assert (await trials.attempt("fine", CPU_S)).passed
        assert (await trials.attempt("memory", CPU_S)).out_of_memory
    await trials.close()


async def test_an_answer_fits_into_one_atomic_write(trials: TrialProcess) -> None:
    ending = await trials.attempt("long error", CPU_S)
    assert ending.error
    assert len(json.dumps({"number": 10**9, "error": ending.error})) < select.PIPE_BUF


async def test_a_process_whose_answers_make_no_sense_is_ended(trials: TrialProcess) -> None:
    assert (await trials.attempt("fine", CPU_S)).passed
    process = trials._process
    assert process is not None
    with pytest.raises(EngineError, match="has died"):
        await trials.attempt("babble", CPU_S)
    async with asyncio.timeout(30):
        assert await process.wait() in KILLED
    assert (await trials.attempt("fine", CPU_S)).passed


async def test_a_process_that_does_not_answer_is_ended(trials: TrialProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await trials.attempt("fine", CPU_S)).passed
    process = trials._process
    assert process is not None
    monkeypatch.setattr(trial_process, "wall_s", lambda cpu_s: 0.1)
    monkeypatch.setattr(trial_process, "ANSWER_LIMIT_S", 0.1)
    with pytest.raises(EngineError, match="does not answer"):
        await trials.attempt("stop the server", CPU_S)
    monkeypatch.undo()
    async with asyncio.timeout(30):
        assert await process.wait() in KILLED
    assert (await trials.attempt("fine", CPU_S)).passed


async def test_a_process_that_starts_while_trials_are_closed_is_ended() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        begun.set()
        await go_on.wait()
        return "serve"

    trials = TrialProcess(HOST, slow)
    asked = asyncio.create_task(trials.attempt("fine", CPU_S))
    await begun.wait()
    await trials.close()
    go_on.set()
    with pytest.raises(EngineError, match="shut down"):
        await asked
    with pytest.raises(EngineError, match="shut down"):
        await trials.attempt("fine", CPU_S)
    assert trials._process is None
