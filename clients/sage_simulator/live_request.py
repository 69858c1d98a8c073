"""A request that is being simulated."""

from __future__ import annotations

from sage_simulator.outcome import Outcome
from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.request import Request


class LiveRequest:
    """A request that has arrived, until its one end."""

    __slots__ = (
        "attempts",
        "emitted",
        "excluded",
        "first_token_at",
        "index",
        "instance_id",
        "outcome",
        "placed_at",
        "request",
        "split",
        "traced",
    )

    def __init__(self, index: int, traced: TracedRequest, request: Request) -> None:
        self.index = index  # in the trace
        self.traced = traced
        self.request = request
        self.attempts = 0  # placements so far
        self.emitted = 0  # output tokens that attempts which are over delivered
        self.excluded: frozenset[str] = frozenset()  # instances that it failed on
        self.placed_at: float | None = None  # for the first time
        self.instance_id = ""  # that it was placed on last; of a split one, the decode instance
        self.split = False  # whether it was placed on a pair of instances last
        self.first_token_at: float | None = None
        self.outcome: Outcome | None = None

    @property
    def output_tokens(self) -> int:
        """Tokens that the request generates in all: its own number, at most what was asked for."""
        return min(self.traced.output_tokens, self.request.sampling.max_tokens)
