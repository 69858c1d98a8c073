"""A simulated engine in virtual time, and requests for it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.engine import SimulatedEngine
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.runtime.engine_port import EngineOutput, EngineRequest, Sampling
from sage_common.virtual_clock import VirtualClock

PROMPT = tuple(range(300, 310))
_ids = itertools.count()


@dataclass
class Stream:
    """A request being read."""

    outputs: list[EngineOutput] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # when each output came, seconds
    error: Exception | None = None
    task: asyncio.Task[None] | None = None

    @property
    def token_ids(self) -> list[int]:
        return [token for output in self.outputs for token in output.token_ids]

    @property
    def finished(self) -> bool:
        return bool(self.outputs) and self.outputs[-1].finish_reason is not None


def tokens(count: int) -> Sampling:
    """Greedy, exactly ``count`` tokens."""
    return Sampling(temperature=0.0, max_tokens=count, ignore_eos=True)


@dataclass
class Simulation:
    engine: SimulatedEngine
    clock: VirtualClock

    def start(self, sampling: Sampling, prompt: Sequence[int] = PROMPT, **more: object) -> Stream:
        """Begin to read a request."""
        request = EngineRequest(
            engine_request_id=str(next(_ids)),
            prompt_token_ids=prompt,
            sampling=sampling,
            **more,  # type: ignore[arg-type]
        )
        stream = Stream()
        stream.task = asyncio.create_task(self._read(request, stream))
        return stream

    async def _read(self, request: EngineRequest, stream: Stream) -> None:
        try:
            async for output in self.engine.generate(request):
                stream.outputs.append(output)
                stream.times.append(self.clock.now())
        except Exception as error:
            stream.error = error

    async def finish(self, *streams: Stream) -> None:
        """Let time pass until every stream has ended."""

        async def all_ended() -> None:
            await asyncio.gather(*(stream.task for stream in streams if stream.task is not None))

        await self.clock.run(all_ended())


@asynccontextmanager
async def simulation(**settings: object) -> AsyncIterator[Simulation]:
    clock = VirtualClock()
    factory = SimulatedEngineFactory(
        ModelSettings(model="sim"),
        SimulatedSettings(**settings),  # type: ignore[arg-type]
        clock,
    )
    engine = await clock.run(factory.start(lambda state, fraction, message: None))
    yield Simulation(engine, clock)
    await engine.shutdown()
