"""Whether requests that go on after their output history have the tokens of the uninterrupted run.

``python -m tests.bench.pipe.continuations``: in float32 they must; in bfloat16 a token that is prefilled adds up
otherwise than one that is decoded, so near ties may fall the other way.  How often the same run differs from itself, in
the same company, stands beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from dataclasses import replace
from pathlib import Path

from executor_svc.engine.factory import engine_factory
from executor_svc.engine.tiny_model import make_tiny_model
from executor_svc.runtime.engine_port import Engine as PortEngine
from executor_svc.runtime.engine_port import EngineRequest, Sampling
from tests.bench.engines import Engine, tiny_vllm, wide_vllm
from tests.bench.pd.wide_model import make
from tests.bench.pipe.__main__ import GPU_SHARE, TINY_MODEL, WIDE_MODEL
from tests.bench.workload import Workload

OUTPUT_TOKENS = 96
AT_ONCE = 20
GREEDY = Sampling(temperature=0.0, max_tokens=OUTPUT_TOKENS, ignore_eos=True)
KINDS = {
    "greedy": GREEDY,
    "penalties": replace(GREEDY, frequency_penalty=0.8, repetition_penalty=1.2),
    "seeded": replace(GREEDY, temperature=0.8, seed=1),
    "seeded, penalties": replace(GREEDY, temperature=0.8, seed=2, presence_penalty=1.0),
}


class Runs:
    """Runs requests of one engine, each under an id of its own."""

    def __init__(self, engine: PortEngine) -> None:
        self._engine = engine
        self._runs = 0

    async def tokens(self, prompt: list[int], sampling: Sampling, history: list[int]) -> list[int]:
        """Return the output tokens of one request, those of its history first."""
        self._runs += 1
        request = EngineRequest(
            engine_request_id=f"run-{self._runs}", prompt_token_ids=prompt, sampling=sampling, output_history=history
        )
        found = list(history)
        async for output in self._engine.generate(request):
            found += output.token_ids
        return found

    async def of(self, prompts: list[list[int]], sampling: Sampling, histories: list[list[int]]) -> list[list[int]]:
        """Return the tokens of many requests, ``AT_ONCE`` at a time."""
        found: list[list[int]] = []
        for first in range(0, len(prompts), AT_ONCE):
            some = zip(prompts[first : first + AT_ONCE], histories[first : first + AT_ONCE], strict=True)
            found += await asyncio.gather(*(self.tokens(prompt, sampling, history) for prompt, history in some))
        return found


async def _compare(engine: Engine, count: int) -> None:
    running = await engine_factory(engine.settings).start(lambda state, progress, message: None)
    try:
        print(f"output history: {running.facts.keeps_output_history}; tokens of each request: {OUTPUT_TOKENS}")
        runs, draw = Runs(running), random.Random(5)
        each = max(1, count // len(KINDS))
        for seed, (kind, sampling) in enumerate(KINDS.items()):
            workload = Workload(streams=each, prompt_tokens=48, max_tokens=OUTPUT_TOKENS, seed=seed)
            prompts = workload.prompts()
            whole = await runs.of(prompts, sampling, [[] for _ in prompts])
            again = await runs.of(prompts, sampling, [[] for _ in prompts])
            cut = [tokens[: draw.randrange(1, OUTPUT_TOKENS - 1)] for tokens in whole]
            continued = await runs.of(prompts, sampling, cut)
            print(
                f"{kind}: {_same(whole, continued)} of {each} continued with the same tokens; "
                f"{_same(whole, again)} of {each} the same when run again whole",
                flush=True,
            )
    finally:
        await running.shutdown()


def _same(one: list[list[int]], other: list[list[int]]) -> int:
    return sum(a == b for a, b in zip(one, other, strict=True))


def main() -> int:
    """Exit status 0 when everything was measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pipe.continuations")
    parser.add_argument("--gpu", action="store_true", help="on one GPU, a model of 1.4 B in bfloat16")
    parser.add_argument("--count", type=int, default=100, help="requests that are continued (default: %(default)s)")
    options = parser.parse_args()
    if options.gpu:
        make(Path(WIDE_MODEL))
        engine = wide_vllm(WIDE_MODEL, streams=64, gpu_share=GPU_SHARE)
    else:
        make_tiny_model(TINY_MODEL)
        engine = tiny_vllm(TINY_MODEL, streams=32)
    asyncio.run(_compare(engine, options.count))
    return 0


if __name__ == "__main__":
    sys.exit(main())
