"""How a modelled executor measures its engine before the first request, as an executor does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

from sage_common.speed_measurement import ROUNDS, by_kind, loads
from sage_simulator.engine_model import EngineModel
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.load_report import IterationSample
from scheduler_svc.domain.prediction.pace import Pace


def measured(facts: EngineFacts, pace: Pace, noise: Callable[[], float] | None = None) -> tuple[IterationSample, ...]:
    """Return what an executor tells of a new engine of this pace: iterations, one of each kind.

    ``noise``: the factors of steps' times, as for the engine that then serves.
    """
    engine, numbers = EngineModel(facts, pace, noise=noise), count()
    for _ in range(ROUNDS):
        for load in loads(facts):
            for tokens in load.prompts:
                engine.add(next(numbers), prompt_tokens=tokens, output_tokens=load.output_tokens)
            _run(engine)
    return tuple(
        replace(kind.iterations[0], kv_used_tokens=kind.kv_used_tokens, elapsed_s=kind.elapsed_s)
        for kind in by_kind(engine.take_samples())
    )


def _run(engine: EngineModel) -> None:
    while engine.start_step() is not None:
        engine.finish_step()
