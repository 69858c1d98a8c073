"""The load of a simulation: a trace that can be made at any rate and by any seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.classes import MIXES, check_mix, with_classes
from sage_simulator.traces.synthetic.lengths import Lengths
from sage_simulator.traces.synthetic.poisson_trace import OUTPUTS, PROMPTS, poisson_trace
from sage_simulator.traces.synthetic.stretches import Stretch, stretched_trace
from sage_simulator.traces.transformations import (
    repeat_to,
    requests_per_s,
    scale_to_rate,
    with_cancels,
    with_default_targets,
    with_models,
)

MOST_REQUESTS = 10_000_000  # of one simulation, which takes hours
LONGEST_S = 366 * 86_400.0  # of one simulation: a year of virtual time, whose heartbeats alone take hours
_SAMPLE = 2_000  # requests of a synthetic trace that its mean lengths are taken from


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """A trace to replay, or a synthetic one: Poisson arrivals, lengths by their distributions.

    Raises ValueError.
    """

    replayed: Sequence[TracedRequest] = ()  # empty: a synthetic trace
    requests: int | None = None  # a replayed trace is cut or repeated to it; None: all of it
    duration_s: float | None = None  # instead of ``requests``: as many as arrive in this time
    prompts: Lengths = PROMPTS  # of a synthetic trace
    outputs: Lengths = OUTPUTS
    day_s: float | None = None  # length of a day of a synthetic trace; None: its rate stays the same
    stretches: tuple[Stretch, ...] = ()  # of a synthetic trace whose shape shifts; not with what is above
    classes: str = ""  # a name in ``MIXES``; empty: as in the trace
    ttft_target_s: float | None = None  # of requests that state no target
    tpot_target_s: float | None = None
    models: Mapping[str, float] = field(default_factory=dict)  # weights by name; empty: as in the trace
    cancel_share: float = 0.0  # of the clients
    cancel_mean_s: float = 5.0  # from arrival to cancellation

    def __post_init__(self) -> None:
        if self.requests is not None and self.duration_s is not None:
            raise ValueError("a number of requests and a duration exclude one another")
        sized = self.requests is not None or self.duration_s is not None
        if self.stretches and (self.replayed or sized or self.day_s is not None):
            raise ValueError(
                "stretches say all of their trace: no file, number of requests, duration or day goes with them"
            )
        if not self.replayed and not self.stretches and not sized:
            raise ValueError("a synthetic trace needs a number of requests or a duration")
        if self.replayed and self.day_s is not None:
            raise ValueError("a trace from a file has its own times of day")
        if self.day_s is not None and self.day_s <= 0:
            raise ValueError(f"a day of {self.day_s} s is not above 0")
        check_mix(self.classes)
        expected = sum(each.length_s * each.rate for each in self.stretches)
        if expected > MOST_REQUESTS:
            raise ValueError(f"the stretches hold {expected:.3g} requests; at most {MOST_REQUESTS} are simulated")

    @property
    def seeded(self) -> bool:
        """Whether another seed gives another trace."""
        return not self.replayed or bool(self.classes or self.models or self.cancel_share)

    @property
    def has_a_rate(self) -> bool:
        """Whether the trace comes with a rate of its own."""
        return bool(self.replayed or self.stretches)

    def trace(self, *, rate: float | None, seed: int) -> list[TracedRequest]:
        """Make the trace at a mean rate, in requests per second; None: at its own, where it has one.

        Raises ValueError, also where a synthetic trace has no rate, and for more requests or time than a simulation
        takes.
        """
        trace = self._made(rate, seed)
        last_s = max((each.arrival_s for each in trace), default=0.0)
        if not last_s <= LONGEST_S:
            raise ValueError(
                f"the requests take {last_s:.3g} s to arrive; at most a year, {LONGEST_S:.0f} s, is simulated"
            )
        return trace

    def _made(self, rate: float | None, seed: int) -> list[TracedRequest]:
        if self.stretches:
            trace = stretched_trace(self.stretches, seed)
            return self._dressed(scale_to_rate(trace, rate) if rate is not None else trace, _chance(seed))
        count = self._count(rate)
        if self.replayed:
            trace = repeat_to(self.replayed, count) if count is not None else list(self.replayed)
            trace = scale_to_rate(trace, rate) if rate is not None else trace
        elif rate is not None and count is not None:
            trace = poisson_trace(
                requests=count, rate=rate, seed=seed, prompts=self.prompts, outputs=self.outputs, day_s=self.day_s
            )
        else:
            raise ValueError("a synthetic trace needs a rate")
        return self._dressed(trace, _chance(seed))

    def sample(self) -> list[TracedRequest]:
        """Return requests whose lengths and models are those of every trace of this load, at some rate."""
        if self.has_a_rate:
            return self._dressed(self.replayed or stretched_trace(self.stretches, 1), random.Random("sample"))
        trace = poisson_trace(requests=_SAMPLE, rate=1.0, seed=1, prompts=self.prompts, outputs=self.outputs)
        return self._dressed(trace, random.Random("sample"))

    def _count(self, rate: float | None) -> int | None:
        if self.duration_s is None:
            return self.requests
        per_s = rate if rate is not None else requests_per_s(self.replayed)
        count = self.duration_s * per_s
        if not count <= MOST_REQUESTS:
            told = f"a duration of {self.duration_s:g} s at {per_s:.4g}/s is {count:.3g} requests"
            raise ValueError(f"{told}; at most {MOST_REQUESTS} are simulated")
        return max(2, round(count))

    def _dressed(self, trace: Sequence[TracedRequest], rng: random.Random) -> list[TracedRequest]:
        """Give the requests classes, models, cancellations and targets."""
        dressed = with_classes(trace, rng, MIXES[self.classes]) if self.classes else list(trace)
        dressed = with_models(dressed, rng, self.models) if self.models else dressed
        if self.cancel_share:
            dressed = with_cancels(dressed, rng, share=self.cancel_share, mean_s=self.cancel_mean_s)
        return with_default_targets(dressed, ttft_s=self.ttft_target_s, tpot_s=self.tpot_target_s)


def _chance(seed: int) -> random.Random:
    return random.Random(f"{seed}/workload")
