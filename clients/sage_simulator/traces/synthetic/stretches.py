"""A load whose shape shifts: stretches of time, each with a rate and lengths of its own."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.synthetic.arrivals import poisson_arrivals
from sage_simulator.traces.synthetic.lengths import Lengths


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Poisson arrivals for a time.  Raises ValueError unless length and rate are above 0."""

    length_s: float
    rate: float  # requests per second
    prompts: Lengths
    outputs: Lengths

    def __post_init__(self) -> None:
        for name, value in (("length", self.length_s), ("rate", self.rate)):
            if not 0 < value < math.inf:
                raise ValueError(f"a stretch's {name} must be a finite number above 0, got {value}")

    def requests(self, rng: random.Random, begin_s: float) -> Iterator[TracedRequest]:
        """Yield the requests of the stretch, which begins ``begin_s`` seconds after the trace."""
        for at_s in takewhile(lambda at_s: at_s < self.length_s, poisson_arrivals(rng, self.rate)):
            yield TracedRequest(
                arrival_s=begin_s + at_s,
                prompt_tokens=self.prompts.draw(rng),
                output_tokens=self.outputs.draw(rng),
            )


def stretched_trace(stretches: Sequence[Stretch], seed: int) -> list[TracedRequest]:
    """Make a trace of stretches, one after the other; a seed always gives the same one."""
    rng, begin_s = random.Random(seed), 0.0
    trace: list[TracedRequest] = []
    for each in stretches:
        trace.extend(each.requests(rng, begin_s))
        begin_s += each.length_s
    return trace
