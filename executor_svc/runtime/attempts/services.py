"""The parts of the executor that an attempt uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from executor_svc.runtime.engine_port import Engine, EngineDeadError
from executor_svc.runtime.outputs.outbox import Outbox
from executor_svc.runtime.text.text_source import TextSource


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
