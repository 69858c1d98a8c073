"""Measures how fast an engine is, before its first request."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from executor_svc.runtime.engine_port import (
    EmbeddingOptions,
    Engine,
    EngineFacts,
    EngineRequest,
    Iteration,
    Sampling,
)
from sage_common.speed_measurement import ROUNDS, Load, by_kind, loads

log = logging.getLogger(__name__)

_UNSAMPLED = "00"  # trace flags: the engine's own spans of these requests are not recorded


async def measured_speed(engine: Engine, limit_s: float, source: random.Random | None = None) -> tuple[Iteration, ...]:
    """Run a few requests on an engine that has none, and return their iterations, those of one kind as one.

    It takes ``limit_s`` seconds at most and returns what was measured; after a failure nothing.  With 0
    nothing runs.  ``source``: of the prompts' tokens.  Raises EngineDeadError if the engine dies of it.
    """
    if limit_s <= 0:
        return ()
    probe, began_at = SpeedProbe(engine, source or random.Random()), time.monotonic()
    try:
        async with asyncio.timeout(limit_s):
            await probe.run()
    except TimeoutError:
        log.info("measuring the engine's speed was ended after %g s (engine.measure_speed_s)", limit_s)
    except Exception as error:
        log.warning("the engine's speed could not be measured: %s", _cause(error))
        await engine.check_health()
        probe.take()
        return ()
    await engine.check_health()
    found = probe.take()
    for each in found:
        log.debug("measured: %s", each)
    log.info("measured the engine's speed in %.1f s: %s", time.monotonic() - began_at, _in_words(found))
    return found


class SpeedProbe:
    """Gives an engine loads in rounds.  Every prompt is new to it, so its prefix cache answers none."""

    def __init__(self, engine: Engine, source: random.Random) -> None:
        self._engine = engine
        self._source = source
        self._number = 0
        self._salt = secrets.token_hex(8)  # so that no other prompt shares their KV, and it is not reported
        self._tokens = _ordinary_tokens(engine.facts)
        self._first: list[Iteration] = []  # of the round that is not measured
        self._later: list[Iteration] = []

    async def run(self) -> None:
        """Run all rounds.  Raises what the engine raises."""
        self._engine.take_iterations()  # of its warm-up
        facts = self._engine.facts
        for into in (self._first, *(self._later,) * ROUNDS):  # an engine prepares for what it computes the first time
            for load in loads(facts, embeds=bool(facts.embedding_dimensions)):
                await self._serve(load)
                into += self._engine.take_iterations()

    def take(self) -> tuple[Iteration, ...]:
        """Return what was measured so far; the engine keeps none of these iterations.

        Of an engine so slow that it ran one round only, this is what it computed for the first time.
        """
        rest = self._engine.take_iterations()
        return _told([*self._later, *rest] if self._later else [*self._first, *rest])

    async def _serve(self, load: Load) -> None:
        async with asyncio.TaskGroup() as group:
            for tokens in load.prompts:
                group.create_task(self._generate(tokens, load.output_tokens))

    async def _generate(self, prompt_tokens: int, output_tokens: int) -> None:
        self._number += 1
        request = EngineRequest(
            engine_request_id=f"measure-speed/{self._number}",
            prompt_token_ids=self._source.choices(self._tokens, k=prompt_tokens),
            sampling=Sampling(),
            trace_headers={"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{_UNSAMPLED}"},
        )
        if self._engine.facts.embedding_dimensions:
            request = replace(request, embedding=EmbeddingOptions())
        else:
            sampling = Sampling(max_tokens=output_tokens, ignore_eos=True, cache_salt=self._salt)
            request = replace(request, sampling=sampling)
        async for _ in self._engine.generate(request):
            pass


def _ordinary_tokens(facts: EngineFacts) -> Sequence[int]:
    """Return ids of tokens that are text: special ones, such as those around images, are at a vocabulary's ends."""
    placeholders = {each.placeholder_token_id for each in facts.media}
    first, last = facts.vocab_size // 4, facts.vocab_size // 2
    return [token for token in range(first, last) if token not in placeholders] or [first]


def _told(iterations: Iterable[Iteration]) -> tuple[Iteration, ...]:
    """Return those of one kind as one."""
    return tuple(
        replace(
            kind.iterations[0],
            index=0,
            kv_used_tokens=kind.kv_used_tokens,
            elapsed_s=kind.elapsed_s,
            steps=sum(each.steps for each in kind.iterations),
        )
        for kind in by_kind(iterations)
    )


def _cause(error: Exception) -> Exception:
    """Return the first error of a group."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _in_words(iterations: Sequence[Iteration]) -> str:
    shown = [
        f"{each.prefill_tokens} prompt tokens and {each.decode_tokens} output tokens {1_000 * each.elapsed_s:.1f} ms"
        for each in iterations[:4]
    ]
    return ", ".join(shown) or "nothing"
