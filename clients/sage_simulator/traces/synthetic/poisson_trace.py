"""The usual synthetic trace: Poisson arrivals, lognormal lengths, nothing shared."""

from __future__ import annotations

import random

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.synthetic.arrivals import poisson_arrivals
from sage_simulator.traces.synthetic.day import day_arrivals
from sage_simulator.traces.synthetic.independent import independent_requests
from sage_simulator.traces.synthetic.lengths import FixedLength, Lengths, LognormalLengths

LONGEST_PROMPT = 16_384  # tokens
LONGEST_OUTPUT = 2_048  # tokens
PROMPTS = LognormalLengths(median=800, sigma=0.9, most=LONGEST_PROMPT)
OUTPUTS = LognormalLengths(median=150, sigma=0.7, most=LONGEST_OUTPUT)


def lengths(median: float, sigma: float, most: int) -> Lengths:
    """Return lengths in tokens with this median; a sigma of 0 makes all equal.  Raises ValueError."""
    return LognormalLengths(median=median, sigma=sigma, most=most) if sigma else FixedLength(tokens=round(median))


def poisson_trace(
    *,
    requests: int,
    rate: float,
    seed: int,
    prompts: Lengths = PROMPTS,
    outputs: Lengths = OUTPUTS,
    day_s: float | None = None,
) -> list[TracedRequest]:
    """Make a trace of ``rate`` requests per second; a seed always gives the same one.  Raises ValueError.

    ``day_s``: length of a day, over which the rate changes as ``day.HOURS`` say; None: it stays the same.
    """
    rng = random.Random(seed)
    arrivals = poisson_arrivals(rng, rate) if day_s is None else day_arrivals(rng, rate, day_s)
    return independent_requests(rng, arrivals, requests, prompts=prompts, outputs=outputs)
