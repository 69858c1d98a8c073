"""Loads that are made: each gives a trace of a number of requests at about a mean rate."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.synthetic.arrivals import gamma_arrivals, on_off_arrivals, poisson_arrivals
from sage_simulator.traces.synthetic.independent import independent_requests
from sage_simulator.traces.synthetic.lengths import Lengths
from sage_simulator.traces.synthetic.sessions import SessionShape, multi_turn_sessions
from sage_simulator.traces.synthetic.tenants import Tenant

_ON, _OFF = 2.5, 0.5  # rates of bursts and of the time between, by the mean rate
_TENANT = "default"  # of every request: shares of tenants are not what is compared
_MEAN_ON_S, _MEAN_OFF_S = 5.0, 15.0


class SyntheticLoad(Protocol):
    """A kind of load."""

    def trace(self, rng: random.Random, rate: float, count: int) -> list[TracedRequest]:
        """Make this many requests at about a mean rate, in requests per second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bursts:
    """Requests that come in bursts of 2.5 times the mean rate, 5 s on and 15 s off in the mean."""

    prompts: Lengths
    outputs: Lengths

    def trace(self, rng: random.Random, rate: float, count: int) -> list[TracedRequest]:
        """Make requests that share nothing."""
        arrivals = on_off_arrivals(
            rng,
            on_requests_per_s=_ON * rate,
            off_requests_per_s=_OFF * rate,
            mean_on_s=_MEAN_ON_S,
            mean_off_s=_MEAN_OFF_S,
        )
        return independent_requests(rng, arrivals, count, prompts=self.prompts, outputs=self.outputs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Steady:
    """Requests whose rate does not change; the gaps between them may vary more than those of a Poisson process."""

    prompts: Lengths
    outputs: Lengths
    variation: float = 1.0  # standard deviation of the gaps by their mean; 1: Poisson

    def trace(self, rng: random.Random, rate: float, count: int) -> list[TracedRequest]:
        """Make requests that share nothing."""
        return independent_requests(
            rng, gamma_arrivals(rng, rate, self.variation), count, prompts=self.prompts, outputs=self.outputs
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift:
    """Requests of one kind that become another's at a moment."""

    before: Steady
    after: Steady
    before_rate: float  # of the first kind, by the rate of the second
    shift_s: float = 60.0  # when the second kind begins

    def trace(self, rng: random.Random, rate: float, count: int) -> list[TracedRequest]:
        """Make requests that share nothing.  ``rate``: of the second kind."""
        expected = round(2 * self.shift_s * self.before_rate * rate) + 10  # more than come before the shift
        first = self.before.trace(rng, self.before_rate * rate, min(count, expected))
        first = [each for each in first if each.arrival_s < self.shift_s]
        then = self.after.trace(rng, rate, count - len(first)) if count > len(first) else []
        return [*first, *(replace(each, arrival_s=each.arrival_s + self.shift_s) for each in then)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Documents:
    """Questions about 40 long texts, some of them asked for much more than others."""

    texts: int = 40
    text_tokens: int = 6_000
    questions: Lengths
    outputs: Lengths

    def trace(self, rng: random.Random, rate: float, count: int) -> list[TracedRequest]:
        """Make requests of which most share the beginning of their prompt with others."""
        shape = SessionShape(texts=self.questions, outputs=self.outputs, mean_turns=1.0, block_tokens=128)
        tenants = [
            Tenant(name=f"text-{number}", weight=1 / (number + 1), system_prompt_tokens=self.text_tokens)
            for number in range(self.texts)
        ]
        asked = multi_turn_sessions(rng, poisson_arrivals(rng, rate), count, shape, tenants)
        return [replace(each, tenant=_TENANT, session="") for each in asked]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sessions:
    """Conversations of six turns in the mean, begun by 2,000 tokens; each prompt is all that was said before."""

    texts: Lengths
    outputs: Lengths
    mean_turns: float = 6.0
    ramp: float = 1.0  # requests left out at the beginning, by those kept: they hold too many first turns

    def trace(self, rng: random.Random, rate: float, count: int) -> list[TracedRequest]:
        """Make the turns of conversations that overlap, from a moment on when as many end as begin."""
        shape = SessionShape(texts=self.texts, outputs=self.outputs, mean_turns=self.mean_turns, mean_think_s=15.0)
        starts: Iterator[float] = poisson_arrivals(rng, rate / self.mean_turns)
        tenants = [Tenant(name="people", system_prompt_tokens=2_000)]
        left_out = round(self.ramp * count)
        turns = multi_turn_sessions(rng, starts, left_out + count, shape, tenants)[left_out:]
        began_s = turns[0].arrival_s
        return [replace(each, tenant=_TENANT, arrival_s=each.arrival_s - began_s) for each in turns]
