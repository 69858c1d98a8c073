"""Engine models with round figures, and a loop that runs one alone."""

from __future__ import annotations

from typing import Any

from sage_simulator.engine_model import EngineModel
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.prediction.pace import Pace

#: Seconds: 1 for a step, 0.01 for a prefilled token, 0.1 for a running sequence, 0.001 for a token of context.
PACE = Pace(base_s=1.0, prefill_token_s=0.01, running_s=0.1, kv_token_s=0.001)


def make_engine(*, pace: Pace = PACE, prefix_caching: bool = True, **changes: Any) -> EngineModel:
    """Make an engine with room for four sequences, 100 tokens a step and 1,000 KV tokens in blocks of 10."""
    values: dict[str, Any] = {
        "engine": "modelled",
        "engine_version": "1",
        "vocab_size": 1_000,
        "max_model_len": 1_000,
        "kv_capacity_tokens": 1_000,
        "kv_block_size": 10,
        "max_running": 4,
        "max_batched_tokens": 100,
        "supports_priority": True,
    }
    return EngineModel(EngineFacts(**values | changes), pace, prefix_caching=prefix_caching)


class Played:
    """What an engine did until it had nothing to do: when each attempt had its first and its last token."""

    def __init__(self, engine: EngineModel) -> None:
        self.now = 0.0
        self.first: dict[int, float] = {}
        self.ended: dict[int, float] = {}
        self._engine = engine

    def step(self) -> bool:
        step_s = self._engine.start_step()
        if step_s is None:
            return False
        self.now += step_s
        output = self._engine.finish_step()
        for number in output.first:
            assert number not in self.first
            self.first[number] = self.now
        for number in output.ended:
            assert number not in self.ended
            self.ended[number] = self.now
        return True

    def to_the_end(self) -> Played:
        while self.step():
            pass
        return self
