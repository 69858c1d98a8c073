"""The parts of the executor that an attempt uses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from executor_svc.runtime.engine_port import Engine, EngineDeadError
from executor_svc.runtime.outputs.outbox import Outbox
from executor_svc.runtime.text.text_source import TextSource

RELEASE_TIMEOUT_S = 10.0  # for the engine to release an aborted request; longer means it is stuck


@dataclass(slots=True, kw_only=True)
class AttemptServices:
    """The engine, its tokenizer and the outbox to the scheduler.  Made once, when the engine is up."""

    engine: Engine
    text: TextSource
    outbox: Outbox
    on_dead: Callable[[EngineDeadError], None]  # called when an attempt finds the engine dead
    end_ids: frozenset[int] = field(init=False)  # tokens that end generation unless ignore_eos

    def __post_init__(self) -> None:
        self.end_ids = self.engine.facts.eos_token_ids | self.text.end_of_sequence_ids

    async def wait_for_release(self, release: Awaitable[None]) -> None:
        """Wait until the engine has released a request's KV and slot.  An engine that does not counts as dead."""
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await release
        except TimeoutError:
            self.on_dead(EngineDeadError(f"the engine did not release a request in {RELEASE_TIMEOUT_S:g} s"))
        except EngineDeadError as error:
            self.on_dead(error)
