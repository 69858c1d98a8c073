"""Requests that share nothing with one another."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import islice

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.synthetic.lengths import Lengths


def independent_requests(
    rng: random.Random, arrivals: Iterable[float], count: int, *, prompts: Lengths, outputs: Lengths
) -> list[TracedRequest]:
    """Return a trace of this many requests; fewer where the arrivals end before."""
    return [
        TracedRequest(arrival_s=arrival_s, prompt_tokens=prompts.draw(rng), output_tokens=outputs.draw(rng))
        for arrival_s in islice(arrivals, count)
    ]
