"""AttemptTable on a simulated engine that runs as fast as the loop does, and everything they send up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.engine import SimulatedEngine
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.simulated.side_channel import SideChannel
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.runtime.attempts.attempt_table import AttemptTable
from executor_svc.runtime.attempts.services import AttemptServices
from executor_svc.runtime.engine_port import EngineDeadError, Sampling
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.commands import Assign, Continuation, TextOptions
from executor_svc.runtime.messages.outputs import Ack, Ended, Piece
from executor_svc.runtime.outputs.outbox import Outbox
from executor_svc.runtime.text.text_source import TextSource
from sage_common.clock import Clock
from tests.support.instant_clock import InstantClock
from tests.unit.executor.events import Event, events

EPOCH = 3
PROMPT = (300, 1000, 1700, 301)
LONG = Sampling(temperature=0, max_tokens=40, ignore_eos=True)


class Workbench:
    def __init__(self, engine: SimulatedEngine, *, max_held: int = 100, generates: bool = True) -> None:
        self.engine = engine
        self.outbox = Outbox()
        self.attempts = AttemptTable(self.outbox, max_held=max_held, generates=generates)
        self.services = AttemptServices(
            engine=engine,
            text=TextSource(engine.facts.tokenizer),
            outbox=self.outbox,
            on_dead=self._note_death,
        )
        self.deaths: list[EngineDeadError] = []
        self.messages: list[Event] = []
        self._arrived = asyncio.Condition()
        self._numbers = 0

    def _note_death(self, error: EngineDeadError) -> None:
        self.deaths.append(error)

    def begin(self, keep: Sequence[AttemptId] = ()) -> None:
        self.attempts.begin_session(EPOCH, keep)

    async def read(self) -> None:
        """What the link would do: take every message as it comes."""
        while True:
            frame = await self.outbox.next()
            async with self._arrived:
                self.messages.extend(events(frame))
                self._arrived.notify_all()

    def assign(
        self,
        sampling: Sampling = LONG,
        *,
        text: TextOptions | None = None,
        continuation: Continuation | None = None,
        epoch: int = EPOCH,
        **more: Any,
    ) -> int:
        """The attempt's number."""
        self._numbers += 1
        more.setdefault("prompt_token_ids", PROMPT)
        self.attempts.assign(
            Assign(
                number=self._numbers,
                attempt=AttemptId(epoch, self._numbers),
                request_id=f"request-{self._numbers}",
                sampling=sampling,
                text=text or TextOptions(min_tokens=sampling.min_tokens),
                continuation=continuation,
                **more,
            )
        )
        return self._numbers

    def cancel(self, number: int) -> None:
        self.attempts.cancel(AttemptId(EPOCH, number), "the test says so")

    def acknowledge(self, number: int, tokens: int, *, ended: bool = False) -> None:
        self.attempts.acknowledge([Ack(attempt=AttemptId(EPOCH, number), tokens=tokens, ended=ended)])

    # --- what went up -----------------------------------------------------------------------------------------------

    async def until(self, kind: type[Any], number: int) -> Any:
        """The first message of a kind about an attempt."""

        def found() -> list[Any]:
            return [m for m in self.messages if isinstance(m, kind) and m.attempt.number == number]

        async with asyncio.timeout(10), self._arrived:
            await self._arrived.wait_for(found)
        return found()[0]

    async def until_tokens(self, number: int, count: int) -> None:
        async with asyncio.timeout(10), self._arrived:
            await self._arrived.wait_for(lambda: len(self.token_ids(number)) >= count)

    async def ended(self, number: int) -> Ended:
        return await self.until(Ended, number)  # type: ignore[no-any-return]

    def pieces(self, number: int) -> list[Piece]:
        return [m for m in self.messages if isinstance(m, Piece) and m.attempt.number == number]

    def token_ids(self, number: int) -> list[int]:
        return [token_id for piece in self.pieces(number) for token_id in piece.token_ids]

    def text(self, number: int) -> str:
        """Without the trailing text."""
        return "".join(piece.text for piece in self.pieces(number))

    async def result(self, number: int) -> tuple[list[int], str, Ended]:
        ended = await self.ended(number)
        return self.token_ids(number), self.text(number) + ended.trailing_text, ended

    async def run(self, sampling: Sampling = LONG, **more: Any) -> tuple[list[int], str, Ended]:
        return await self.result(self.assign(sampling, **more))


@asynccontextmanager
async def workbench(
    *,
    max_held: int = 100,
    serving: bool = True,
    reading: bool = True,
    generates: bool = True,
    clock: Clock | None = None,
    channel: SideChannel | None = None,
    **settings: Any,
) -> AsyncIterator[Workbench]:
    """``serving``: the engine is up.  ``reading``: what goes up is collected here."""
    simulated = SimulatedSettings(**{"step_base_s": 0.0, "step_per_sequence_s": 0.0, **settings})
    factory = SimulatedEngineFactory(ModelSettings(model="sim"), simulated, clock or InstantClock(), channel)
    engine = await factory.start(lambda state, progress, message: None)
    bench = Workbench(engine, max_held=max_held, generates=generates)
    if serving:
        bench.attempts.serve(bench.services)
    bench.begin()
    reader = asyncio.create_task(bench.read() if reading else asyncio.sleep(0), name="reader")
    try:
        yield bench
    finally:
        bench.attempts.fence_all("the test is over")
        async with asyncio.timeout(5):
            await bench.attempts.none_running()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        bench.outbox.close()
        await engine.shutdown()
