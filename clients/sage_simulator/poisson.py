"""Synthetic traces: arrivals of a Poisson process, lengths that are log-normal."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from sage_simulator.traced_request import TracedRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class LogNormalLength:
    """Lengths whose logarithms are normally distributed."""

    median: float  # tokens
    sigma: float  # of the logarithm; 0: all are equal
    most: int  # tokens; longer ones are cut

    def draw(self, source: random.Random) -> int:
        """Draw a length, at least 1 token."""
        return max(1, min(self.most, round(math.exp(source.gauss(math.log(self.median), self.sigma)))))


PROMPTS = LogNormalLength(median=800, sigma=0.9, most=16_384)
OUTPUTS = LogNormalLength(median=150, sigma=0.7, most=2_048)


def poisson_trace(
    *,
    requests: int,
    rate: float,
    seed: int,
    prompt: LogNormalLength = PROMPTS,
    output: LogNormalLength = OUTPUTS,
) -> list[TracedRequest]:
    """Make a trace of a Poisson process of ``rate`` requests per second; a seed always gives the same trace."""
    source = random.Random(seed)
    trace: list[TracedRequest] = []
    arrival_s = 0.0
    for _ in range(requests):
        arrival_s += source.expovariate(rate)
        trace.append(
            TracedRequest(arrival_s=arrival_s, prompt_tokens=prompt.draw(source), output_tokens=output.draw(source))
        )
    return trace
