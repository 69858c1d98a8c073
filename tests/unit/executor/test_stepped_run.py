"""Attempts whose outputs come by steps: no task while the engine generates, and exactly one end."""

from __future__ import annotations

import asyncio

import pytest

from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.runtime.engine_port import EngineOutput, FinishReason, Sampling, StepReader
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.commands import Continuation, ContinuationMode, TextOptions
from executor_svc.runtime.messages.outputs import EndCause, Ended
from tests.unit.executor.workbench import EPOCH, LONG, Workbench, workbench

ENDLESS = Sampling(temperature=0, max_tokens=4000, ignore_eos=True)


def ends(bench: Workbench, number: int) -> list[Ended]:
    return [m for m in bench.messages if isinstance(m, Ended) and m.attempt == AttemptId(EPOCH, number)]


async def test_an_attempt_has_no_task_while_the_engine_generates() -> None:
    async with workbench(max_running=64, kv_capacity_tokens=1 << 20) as bench:
        before = len(asyncio.all_tasks())
        numbers = [bench.assign(ENDLESS) for _ in range(50)]
        for number in numbers:
            await bench.until_tokens(number, 3)
        assert len(asyncio.all_tasks()) == before
        assert bench.attempts.running == 50


async def test_the_tokens_of_a_step_go_out_in_one_frame() -> None:
    async with workbench(max_running=64, kv_capacity_tokens=1 << 20, reading=False) as bench:
        numbers = [bench.assign(ENDLESS) for _ in range(50)]
        while True:
            frame = await bench.outbox.next()
            if frame.numbers:
                break
        assert sorted(set(frame.numbers)) == numbers


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
async def test_a_cancel_at_any_moment_gives_one_end(turns: int) -> None:
    async with workbench() as bench:
        number = bench.assign(ENDLESS)
        for _ in range(turns):
            await asyncio.sleep(0)
        for _ in range(3):
            bench.cancel(number)
        assert (await bench.ended(number)).cause is EndCause.CANCELLED
        assert bench.engine.load().unfinished == 0
        await bench.run()
        assert len(ends(bench, number)) == 1


async def test_a_cancel_after_the_stop_string_changes_nothing() -> None:
    async with workbench() as bench:
        _, text, _ = await bench.run()
        number = bench.assign(text=TextOptions(stop=(text[20:24],)))
        take = bench.attempts._running[AttemptId(EPOCH, number)].interrupt
        while not ends(bench, number):
            take(EndCause.CANCELLED, "late") if bench.token_ids(number)[6:] else None
            await asyncio.sleep(0)
        (ended,) = ends(bench, number)
        assert (ended.cause, ended.stop_string) == (EndCause.FINISHED, text[20:24])


async def test_a_deadline_while_the_engine_hangs_gives_one_end() -> None:
    async with workbench() as bench:
        number = bench.assign(ENDLESS, remaining_s=0.02)
        await bench.until_tokens(number, 2)
        bench.engine.inject(Fault(kind=FaultKind.HANG))
        assert (await bench.ended(number)).cause is EndCause.DEADLINE
        bench.engine.clear_faults()
        await bench.run()
        assert len(ends(bench, number)) == 1
        assert bench.engine.load().unfinished == 0


async def test_a_cancel_while_a_replay_that_diverged_starts_over_ends_it() -> None:
    async with workbench() as bench:
        tokens, _, _ = await bench.run()
        wrong = [*tokens[:4], tokens[5], *tokens[5:8]]
        how = Continuation(
            emitted_token_ids=wrong, emitted_text_length=0, mode=ContinuationMode.REPLAY, best_effort=True
        )
        released = asyncio.Event()
        abort = bench.engine.abort

        async def slow(engine_request_id: str) -> None:
            await released.wait()
            await abort(engine_request_id)

        bench.engine.abort = slow  # type: ignore[method-assign]
        number = bench.assign(continuation=how)
        run = bench.attempts._running[AttemptId(EPOCH, number)]
        while run._releasing is None:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        bench.cancel(number)
        released.set()
        ended = await bench.ended(number)
        assert (ended.cause, ended.total_tokens) == (EndCause.CANCELLED, len(wrong))
        assert bench.engine.load().unfinished == 0


async def test_death_ends_every_attempt_once() -> None:
    async with workbench(max_running=64, kv_capacity_tokens=1 << 20) as bench:
        numbers = [bench.assign(ENDLESS) for _ in range(20)]
        for number in numbers:
            await bench.until_tokens(number, 1)
        bench.engine.inject(Fault(kind=FaultKind.DIE))
        for number in numbers:
            ended = await bench.ended(number)
            assert (ended.cause, ended.engine_died) == (EndCause.FAILED, True)
        assert bench.attempts.running == 0
        late = bench.assign()
        assert (await bench.ended(late)).engine_died


async def test_an_engine_that_aborts_a_request_without_our_asking_fails_it() -> None:
    async with workbench() as bench:
        number = bench.assign(ENDLESS)
        await bench.until_tokens(number, 2)
        await bench.engine.stop(f"request-{number}/{AttemptId(EPOCH, number)}")
        ended = await bench.ended(number)
        assert (ended.cause, ended.message) == (EndCause.FAILED, "the engine aborted the request")


async def test_what_comes_after_the_end_is_not_taken() -> None:
    readers: list[StepReader] = []
    async with workbench() as bench:
        submit = bench.engine.submit
        bench.engine.submit = lambda request, reader: (readers.append(reader), submit(request, reader))[1]  # type: ignore[method-assign, func-returns-value]
        tokens, _, _ = await bench.run(LONG)
        readers[0].take([300])
        readers[0].take(EngineOutput(token_ids=[301], finish_reason=FinishReason.STOP))
        assert bench.attempts.held[0].tokens == len(tokens)
        assert len(ends(bench, 1)) == 1
