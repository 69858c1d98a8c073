"""An engine whose ``generate`` goes through ``submit``: the contract of one way, held to the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from executor_svc.runtime.engine_port import (
    Engine,
    EngineError,
    EngineOutput,
    EngineRequest,
    InvalidRequestError,
    Step,
    StepOutput,
)


class Reader:
    """Queues the outputs of one submitted request."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[StepOutput] = asyncio.Queue()
        self.over = False

    def take(self, output: StepOutput) -> None:
        assert not self.over, "something follows the end"
        if not isinstance(output, list):
            self.over = isinstance(output, EngineError | InvalidRequestError) or output.finish_reason is not None
        self.queue.put_nowait(output)

    async def next(self) -> EngineOutput:
        output = await self.queue.get()
        if isinstance(output, EngineError | InvalidRequestError):
            raise output
        return output if isinstance(output, EngineOutput) else EngineOutput(token_ids=output)


class BySteps:
    """An engine read by steps wherever it gives outputs so.  Everything else is the engine's own."""

    def __init__(self, engine: Engine) -> None:
        self.own = engine
        self.largest_step = 0
        engine.on_outputs(self._take)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

    def _take(self, step: Step) -> None:
        assert len({id(reader) for reader, _ in step}) == len(step), "a request is in a step twice"
        self.largest_step = max(self.largest_step, len(step))
        for reader, output in step:
            reader.take(output)

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        reader = Reader()
        if not self.own.submit(request, reader):
            async for output in self.own.generate(request):
                yield output
            return
        try:
            while True:
                output = await reader.next()
                yield output
                if output.finish_reason is not None:
                    return
        finally:
            reader.over = True
            await self.own.abort(request.engine_request_id)
            while not reader.queue.empty():
                reader.queue.get_nowait()
