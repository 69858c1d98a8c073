"""How a modelled executor measures its engine before the first request, as an executor does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import median

from sage_simulator.engine_model import EngineModel
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.load_report import IterationSample
from scheduler_svc.domain.prediction.pace import Pace

# As in executor_svc/engine/speed_probe.py.
ROUNDS = 3  # that are measured
ALONE_TOKENS = 16  # of the outputs behind prompts that fill a step
TOGETHER = 32  # sequences that decode together, at most
SHORT_PROMPT_TOKENS = 16
TOGETHER_TOKENS = 16  # of each of their outputs
MOST_KINDS = 64  # of iterations that are told


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that a modelled engine is given at the same time."""

    prompts: tuple[int, ...]  # tokens of each
    output_tokens: int  # of each


def loads(facts: EngineFacts) -> Sequence[Load]:
    """Return what one round gives to an engine that generates: those that an executor gives it."""
    room = facts.kv_capacity_tokens // 2
    request = max(2, min(facts.max_model_len, room))
    alone = min(ALONE_TOKENS, request // 2)
    longest = request - alone
    whole, rest = divmod(max(1, min(facts.max_batched_tokens, room)), longest)
    pieces = (*(longest,) * whole, *((rest,) if rest else ()))[: max(1, min(facts.max_running, room // request))]
    outputs = min(TOGETHER_TOKENS, request // 2)
    short = min(SHORT_PROMPT_TOKENS, request - outputs)
    many = max(1, min(TOGETHER, facts.max_running, room // (short + outputs)))
    return [Load(pieces, alone), Load((short,) * many, outputs)]


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
