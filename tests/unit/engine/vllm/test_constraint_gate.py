"""Constraints: quick ones pass beside each other, slow ones one at a time, and none takes more than its limit."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from executor_svc.engine.vllm.constraints.gate import QUICK_TRIALS, ConstraintGate
from executor_svc.engine.vllm.constraints.trial_process import Ending, NoTrials
from executor_svc.engine.vllm.constraints.trial_server import OUT_OF_MEMORY
from executor_svc.engine.vllm.engine_threads import THREADS, widen
from executor_svc.runtime.engine_port import InvalidRequestError, StructuredKind, StructuredOutput

OUTLASTED = Ending(signal=signal.SIGPROF)


class Trials:
    """Answers trials by their text: ``slow`` ones outlast the quick limit, ``endless`` ones every limit."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []
        self.running = 0
        self.most_running = 0
        self.held: dict[str, asyncio.Event] = {}  # texts whose trials wait for it

    async def __call__(self, task: str, cpu_s: float) -> Ending:
        self.asked.append((task, cpu_s))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(0)
            if task in self.held:
                await self.held[task].wait()
        finally:
            self.running -= 1
        if task.startswith("endless") or (task.startswith("slow") and cpu_s < 1):
            return OUTLASTED
        return ENDINGS.get(task, Ending())


ENDINGS = {
    "broken": Ending(error="no such rule"),
    "huge": Ending(error=OUT_OF_MEMORY),
    "crash": Ending(signal=signal.SIGSEGV),
}


def grammar(text: str) -> StructuredOutput:
    return StructuredOutput(kind=StructuredKind.GRAMMAR, value=text)


@pytest.fixture
def trials() -> Trials:
    return Trials()


@pytest.fixture
def gate(trials: Trials) -> ConstraintGate:
    return ConstraintGate(trials, lambda constraint: constraint.value, limit_s=5.0)


async def settle() -> None:
    for _ in range(1000):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("endless", "compiling it takes more than 5 s of CPU time (vllm.constraint_compile_limit_s)"),
        ("broken", "no such rule"),
        ("huge", "compiling it takes more than 2 GiB of memory"),
        ("crash", "compiling it ends the compiler with SIGSEGV"),
    ],
)
async def test_what_cannot_be_compiled_is_the_callers_fault_and_tried_once(
    gate: ConstraintGate, trials: Trials, text: str, reason: str
) -> None:
    for _ in range(2):
        with pytest.raises(InvalidRequestError) as raised:
            await gate.admit(grammar(text))
        assert raised.value.field_name == "sampling.structured_output.grammar"
        assert reason in str(raised.value)
        asked = len(trials.asked)
    assert len(trials.asked) == asked <= 2, "the second request knew"


async def test_a_quick_constraint_passes_while_slow_ones_are_tried(gate: ConstraintGate, trials: Trials) -> None:
    trials.held["slow 0"] = asyncio.Event()
    await gate.admit(grammar("warm"))
    slow = [asyncio.create_task(gate.admit(grammar(f"slow {number}"))) for number in range(50)]
    trials.held["slow 0"].set()
    await settle()
    quick = asyncio.create_task(gate.admit(grammar("quick")))
    await settle()
    assert quick.done()
    assert sum(task.done() for task in slow) == 1, "one slow constraint at a time goes to the engine"
    assert trials.most_running <= QUICK_TRIALS + 1
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_the_next_slow_constraint_waits_until_the_engine_has_compiled_the_one_before(
    gate: ConstraintGate,
) -> None:
    first = await gate.admit(grammar("slow 1"))
    second = asyncio.create_task(gate.admit(grammar("slow 2")))
    await settle()
    assert not second.done()
    first.end(compiled=True)
    first.end(compiled=False)  # at the request's end
    turn = await second
    third = asyncio.create_task(gate.admit(grammar("slow 3")))
    await settle()
    assert not third.done(), "ending twice gives back one turn"
    turn.end(compiled=False)
    (await third).end(compiled=True)


async def test_a_slow_constraint_that_the_engine_keeps_needs_no_turn(gate: ConstraintGate) -> None:
    (await gate.admit(grammar("slow 1"))).end(compiled=True)
    other = await gate.admit(grammar("slow 2"))
    again = [asyncio.create_task(gate.admit(grammar("slow 1"))) for _ in range(3)]
    await settle()
    assert all(task.done() for task in again)
    other.end(compiled=True)


async def test_a_slow_constraint_whose_request_ended_first_takes_a_turn_again(gate: ConstraintGate) -> None:
    (await gate.admit(grammar("slow 1"))).end(compiled=False)
    other = await gate.admit(grammar("slow 2"))
    again = asyncio.create_task(gate.admit(grammar("slow 1")))
    await settle()
    assert not again.done()
    other.end(compiled=True)
    (await again).end(compiled=True)


async def test_requests_that_wait_with_the_same_slow_constraint_pass_together(gate: ConstraintGate) -> None:
    first = await gate.admit(grammar("slow 1"))
    others = [asyncio.create_task(gate.admit(grammar("slow 1"))) for _ in range(5)]
    await settle()
    assert not any(task.done() for task in others)
    first.end(compiled=True)
    await settle()
    assert all(task.done() for task in others)


async def test_the_same_constraint_of_many_requests_is_tried_a_few_times(gate: ConstraintGate, trials: Trials) -> None:
    await asyncio.gather(*(gate.admit(grammar("quick")) for _ in range(100)))
    assert len(trials.asked) <= QUICK_TRIALS


async def test_a_request_that_leaves_while_it_waits_leaves_nothing_behind(gate: ConstraintGate) -> None:
    holder = await gate.admit(grammar("slow 1"))
    waiting = asyncio.create_task(gate.admit(grammar("slow 2")))
    await settle()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    holder.end(compiled=True)
    (await gate.admit(grammar("slow 3"))).end(compiled=True)


async def test_without_trials_constraints_pass_and_a_warning_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def trial(task: Any, cpu_s: float) -> Ending:
        raise NoTrials("no xgrammar")

    gate = ConstraintGate(trial, lambda constraint: constraint.value, limit_s=5.0)
    for _ in range(2):
        await gate.admit(grammar("any"))
    assert caplog.messages == ["constraints are no longer tried before the engine compiles them: no xgrammar"]


@pytest.mark.parametrize(("threads", "wanted"), [(1, THREADS), (THREADS + 3, THREADS + 3)])
def test_the_engine_core_has_threads_for_quick_constraints_beside_a_slow_one(threads: int, wanted: int) -> None:
    manager = SimpleNamespace(executor=ThreadPoolExecutor(max_workers=threads))
    widen(manager)
    assert manager.executor._max_workers == wanted
    manager.executor.shutdown()


@pytest.mark.parametrize("manager", [None, SimpleNamespace()])
def test_a_manager_without_threads_is_left_alone(manager: Callable[..., Any] | None) -> None:
    widen(manager)
