"""A window of the trace at a rate, for an engine of a small context."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.transformations import truncate_prompts
from tests.bench.policies.traffic import Traffic
from tests.bench.workload import VOCABULARY

MOST_PROMPT, MOST_OUTPUT = 3_072, 1_000  # tokens; together they fit into the engine's context


def window(traffic: Traffic, targets: str, *, rate: float, duration_s: float, seed: int) -> list[TracedRequest]:
    """Return about ``rate`` x ``duration_s`` requests; the seed says where in the trace they begin."""
    trace = traffic.trace(rate=rate, duration_s=duration_s, seed=seed, targets=targets)
    return [
        replace(each, output_tokens=min(each.output_tokens, MOST_OUTPUT))
        for each in truncate_prompts(trace, MOST_PROMPT)
    ]


def prompts(requests: Sequence[TracedRequest], key: str) -> list[list[int]]:
    """Return token ids for each request, other ones for every key: nothing of them is in a prefix cache."""
    draw = random.Random(key)
    return [draw.choices(VOCABULARY, k=each.prompt_tokens) for each in requests]
