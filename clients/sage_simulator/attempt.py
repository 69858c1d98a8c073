"""One try at one leg of a request on one instance."""

from __future__ import annotations

from enum import Enum

from sage_simulator.executor_model import ExecutorModel
from sage_simulator.live_request import LiveRequest
from scheduler_svc.domain.decision import Decision


class Leg(Enum):
    """What an attempt runs."""

    WHOLE = "whole"
    PREFILL = "prefill"
    DECODE = "decode"


class Attempt:
    """An attempt that was sent."""

    __slots__ = (
        "counts",
        "decision",
        "executor",
        "leg",
        "live",
        "number",
        "prefill",
        "prefill_ended_at",
        "reserved_tokens",
    )

    def __init__(self, number: int, leg: Leg, live: LiveRequest, decision: Decision, executor: ExecutorModel) -> None:
        self.number = number
        self.leg = leg
        self.live = live
        self.decision = decision
        self.executor = executor
        self.counts = True  # False: its request ended or went elsewhere; only its capacity is still to be freed
        self.prefill: Attempt | None = None  # of a decode leg whose handoff is not over: the leg that left its KV
        self.reserved_tokens = decision.prediction.output_tokens  # of its output, that its reservation covers
        self.prefill_ended_at = 0.0  # of a prefill leg that has ended
