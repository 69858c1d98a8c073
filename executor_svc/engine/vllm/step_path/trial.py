"""Tries the step path once at the engine's start: a reader that counts one request's tokens."""

from __future__ import annotations

import asyncio

from executor_svc.runtime.engine_port import EngineError, EngineOutput, InvalidRequestError, Step, StepOutput


class Trial:
    """Takes the outputs of one request.  Implements ``runtime.engine_port.StepReader``."""

    def __init__(self) -> None:
        self._tokens = 0
        self._over: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def take_step(self, step: Step) -> None:
        """Take the outputs of a step in which there is this request alone."""
        for reader, output in step:
            reader.take(output)

    def take(self, output: StepOutput) -> None:
        """Count the tokens, up to the request's end."""
        if self._over.done():
            return
        if isinstance(output, EngineError | InvalidRequestError):
            self._over.set_exception(output)
            return
        self._tokens += len(output if isinstance(output, list) else output.token_ids)
        if isinstance(output, EngineOutput) and output.finish_reason is not None:
            self._over.set_result(self._tokens)

    async def tokens(self, timeout_s: float) -> int:
        """Wait for the end and return the number of tokens.  Raises TimeoutError, EngineError, InvalidRequestError."""
        async with asyncio.timeout(timeout_s):
            return await self._over
