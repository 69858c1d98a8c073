"""128 mixed streams on real vLLM, through attempts and outbox: by steps and in streams of their own, the same."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.engine.vllm.starting import VllmEngineFactory
from executor_svc.runtime.engine_port import Sampling, StructuredKind, StructuredOutput
from executor_svc.runtime.messages.commands import Continuation, ContinuationMode, TextOptions
from executor_svc.runtime.messages.outputs import EndCause, Ended, Piece
from tests.unit.executor.events import events
from tests.unit.executor.workbench import Workbench

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

STREAMS = 128
GREEDY = Sampling(temperature=0.0, max_tokens=40, ignore_eos=True)
SEEDED = replace(GREEDY, temperature=0.9, seed=7, frequency_penalty=0.3)
ENDLESS = replace(GREEDY, max_tokens=900)
CHOICE = StructuredOutput(kind=StructuredKind.CHOICE, value='["a long answer", "another one", "third"]')


class Streams:
    """The same engine, every request read through ``generate``."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def submit(self, request: object, reader: object) -> bool:
        return False


@dataclass(frozen=True, kw_only=True)
class Case:
    sampling: Sampling
    prompt: list[int]
    text: TextOptions = field(default_factory=TextOptions)
    continuation: Continuation | None = None
    cancelled_at: int | None = None  # own tokens
    remaining_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    token_ids: list[int] = field(repr=False)
    text: str = field(repr=False)
    ended: Ended

    @property
    def comparable(self) -> tuple[Any, ...]:
        ended = self.ended
        how = (ended.cause, ended.finish_reason, ended.stop_string, ended.stop_token_id, ended.total_tokens)
        return self.token_ids, self.text, how, ended.cached_prompt_tokens, ended.message


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def wide(model_path: Path, settings: VllmSettings) -> AsyncIterator[VllmEngine]:
    update = {"max_running": STREAMS, "kv_cache_bytes": 512 << 20, "adapters": {}}
    factory = VllmEngineFactory(ModelSettings(model=str(model_path)), settings.model_copy(update=update))
    engine = await factory.start(lambda *report: None)
    yield engine
    await engine.shutdown()


def prompt(number: int) -> list[int]:
    return [(17 + 37 * number + 11 * i) % 4000 + 20 for i in range(12 + number % 9)]


def cases(whole: Sequence[Outcome]) -> list[Case]:
    """Of 16 prompts, whose whole outputs are known, eight kinds each."""
    made = []
    for number, known in enumerate(whole):
        plain = Case(sampling=GREEDY, prompt=prompt(number))
        delivered = known.token_ids[:9]
        history = Continuation(emitted_token_ids=delivered, emitted_text_length=0, mode=ContinuationMode.HISTORY)
        made += [
            plain,
            replace(plain, sampling=SEEDED),
            replace(plain, text=TextOptions(stop=(known.text[25:30], "never in it"))),
            replace(plain, sampling=replace(GREEDY, stop_token_ids=(known.token_ids[20],))),
            replace(plain, sampling=replace(GREEDY, logprobs=2)),
            replace(plain, continuation=history),
            replace(plain, continuation=replace(history, mode=ContinuationMode.REPLAY)),
            replace(plain, sampling=replace(GREEDY, ignore_eos=False, structured_output=CHOICE))
            if number % 2
            else replace(plain, sampling=ENDLESS, cancelled_at=5 + number),
        ]
    return made


class Streaming:
    """Attempts on one engine, and what they send, by attempt number."""

    def __init__(self, engine: Any) -> None:
        self.bench = Workbench(engine, max_held=2 * STREAMS)
        self.bench.attempts.serve(self.bench.services)
        self.bench.begin()
        self._tokens: dict[int, list[int]] = defaultdict(list)
        self._text: dict[int, str] = defaultdict(str)
        self._ends: dict[int, asyncio.Future[Ended]] = {}
        self._cancels: dict[int, int] = {}  # by number: cancelled at so many tokens

    async def __aenter__(self) -> Streaming:
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._reader.cancel()
        assert self.bench.attempts.running == 0
        assert self.bench.deaths == []

    async def _read(self) -> None:
        while True:
            for message in events(await self.bench.outbox.next()):
                number = message.attempt.number
                if isinstance(message, Piece):
                    self._tokens[number] += message.token_ids
                    self._text[number] += message.text
                    if number in self._cancels and len(self._tokens[number]) >= self._cancels[number]:
                        self.bench.cancel(number)
                elif isinstance(message, Ended):
                    self._ends[number].set_result(message)

    async def run(self, case: Case) -> Outcome:
        number = self.bench.assign(
            case.sampling,
            prompt_token_ids=case.prompt,
            text=case.text,
            continuation=case.continuation,
            remaining_s=case.remaining_s,
        )
        self._ends[number] = asyncio.get_running_loop().create_future()
        if case.cancelled_at is not None:
            self._cancels[number] = case.cancelled_at
        ended = await self._ends[number]
        return Outcome(token_ids=self._tokens[number], text=self._text[number] + ended.trailing_text, ended=ended)


async def run_all(engine: Any, wanted: Sequence[Case]) -> list[Outcome]:
    async with Streaming(engine) as streaming, asyncio.timeout(100):
        return await asyncio.gather(*map(streaming.run, wanted))


async def test_mixed_streams_are_the_same_both_ways(wide: VllmEngine) -> None:
    whole = await run_all(Streams(wide), [Case(sampling=GREEDY, prompt=prompt(number)) for number in range(16)])
    assert all(len(set(known.token_ids)) >= 20 for known in whole)
    wanted = cases(whole)
    assert len(wanted) == STREAMS
    before = dict(wide.load().submissions)
    stepped = await run_all(wide, wanted)
    after = wide.load().submissions
    grown = {name: count - before.get(name, 0) for name, count in after.items()}
    assert grown == {"steps": 112, "logprobs": 16}
    streamed = await run_all(Streams(wide), wanted)
    for case, one, other in zip(wanted, stepped, streamed, strict=True):
        if case.cancelled_at is None:
            assert one.comparable == other.comparable, repr(case)
            assert one.ended.cause is EndCause.FINISHED
        else:
            assert one.ended.cause is other.ended.cause is EndCause.CANCELLED
            shared = min(len(one.token_ids), len(other.token_ids))
            assert shared >= case.cancelled_at
            assert one.token_ids[:shared] == other.token_ids[:shared]
    assert wide.load().unfinished == 0
    assert wide._llm.output_processor.request_states == {}


async def test_a_deadline_ends_it_in_the_engine(wide: VllmEngine) -> None:
    (outcome,) = await run_all(wide, [Case(sampling=ENDLESS, prompt=prompt(1), remaining_s=0.3)])
    assert outcome.ended.cause is EndCause.DEADLINE
    assert 0 < outcome.ended.total_tokens < ENDLESS.max_tokens
    assert wide.load().unfinished == 0
    assert wide._llm.output_processor.request_states == {}
