"""How a modelled executor measures its engine before the first request, as an executor does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median

from sage_simulator.engine_model import EngineModel
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.load_report import IterationSample
from scheduler_svc.domain.prediction.pace import Pace

# As in executor_svc/engine/speed_probe.py.
ROUNDS = 3  # that are measured
ALONE_TOKENS = 8  # of the output behind a prompt that fills a step
TOGETHER = 32  # sequences that decode together, at most
SHORT_PROMPT_TOKENS = 16
TOGETHER_TOKENS = 16  # of each of their outputs
MOST_KINDS = 64  # of iterations that are told


def measured(facts: EngineFacts, pace: Pace, noise: Callable[[], float] | None = None) -> tuple[IterationSample, ...]:
    """Return what an executor tells of a new engine of this pace: iterations, one of each kind.

    ``noise``: the factors of steps' times, as for the engine that then serves.
    """
    engine = EngineModel(facts, pace, noise=noise)
    longest = min(facts.max_model_len - ALONE_TOKENS, facts.kv_capacity_tokens // 2)
    for number in range(ROUNDS):
        engine.add(number, prompt_tokens=min(facts.max_batched_tokens, longest), output_tokens=ALONE_TOKENS)
        _run(engine)
        for each in range(min(TOGETHER, facts.max_running)):
            many = ROUNDS + number * TOGETHER + each
            engine.add(many, prompt_tokens=SHORT_PROMPT_TOKENS, output_tokens=TOGETHER_TOKENS)
        _run(engine)
    return _by_kind(engine.take_samples())


def _run(engine: EngineModel) -> None:
    while engine.start_step() is not None:
        engine.finish_step()


def _by_kind(steps: Iterable[IterationSample]) -> tuple[IterationSample, ...]:
    """Put iterations that computed the same amount together, with the median of their times."""
    kinds: dict[tuple[int, int, int], list[IterationSample]] = {}
    for step in steps:
        kinds.setdefault((step.prefill_tokens, step.decode_tokens, step.running), []).append(step)
    most = sorted(kinds.items(), key=lambda each: -len(each[1]))[:MOST_KINDS]
    return tuple(
        IterationSample(
            prefill_tokens=prefill,
            decode_tokens=decode,
            running=running,
            kv_used_tokens=round(sum(each.kv_used_tokens for each in steps) / len(steps)),
            elapsed_s=median(each.elapsed_s for each in steps),
        )
        for (prefill, decode, running), steps in most
    )
