"""What a scheduling pass decides, with everything needed to explain it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar, dataclass_transform

from scheduler_svc.domain.request import RequestKey

_T = TypeVar("_T")


class Phase(Enum):
    """A part of a request: what an attempt runs or, in ``PhaseChoice``, what dominates the request."""

    HYBRID = "hybrid"  # prefill and decode in one place
    PREFILLING = "prefilling"
    DECODING = "decoding"


@dataclass_transform(kw_only_default=True, frozen_default=True)
def made_often(cls: type[_T]) -> type[_T]:
    """Make a class a dataclass that the type checker takes as frozen, and that is not frozen when it runs.

    A prediction and a decision are made for every placement, and several readers share them, so nobody may change one.
    To freeze them would make them two to four times as slow to make: 1.7 us of the 40 to 50 that a decision takes.
    """
    return dataclass(kw_only=True, slots=True)(cls)


@made_often
class Prediction:
    """The predicted run of a request.  Times are seconds since the decision."""

    start_s: float  # to the start of prefill
    first_token_s: float
    finish_s: float
    output_tokens: int  # learned quantile, at most max_tokens
    cost: float  # currency of the instance's price

    def cost_of(self, engine_time_s: float) -> float:
        """Return the cost of this much engine time, at the predicted cost per second."""
        busy_s = self.finish_s - self.start_s
        return self.cost * engine_time_s / busy_s if busy_s > 0 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One instance that the decision looked at."""

    instance_id: str
    chosen: bool = False
    filtered_by: str = ""  # name of the filter that took it out
    filter_reason: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)  # by scorer, lower is better
    cached_tokens: int = 0  # prompt tokens that its prefix cache was believed to hold


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefillLeg:
    """Where the prompt of a split request is computed; ``Decision.instance_id`` computes its output."""

    instance_id: str
    attempt_number: int
    reserved_tokens: int
    cached_tokens: int = 0  # prompt tokens that its prefix cache was believed to hold


@made_often
class Decision:
    """A placement, with everything needed to explain it.  The capacity is reserved from the moment this exists."""

    key: RequestKey
    attempt_number: int  # unique within the epoch; names the reservation
    policy: str
    instance_id: str
    phase: Phase
    phase_reason: str
    engine_priority: int  # handed to the engine; lower is sooner
    prediction: Prediction
    reserved_tokens: int  # KV tokens
    decided_at: float
    waited_s: float
    queue_length: int  # requests of the model that still wait
    rule: str  # short name of the rule that chose the instance, a metric label
    reasons: tuple[str, ...]  # in words, most important first
    candidates: Sequence[Candidate]  # all instances that were looked at; written out when read
    candidates_considered: int
    prefill: PrefillLeg | None = None  # split requests only
    cached_tokens: int = 0  # prompt tokens that the prefix cache of ``instance_id`` was believed to hold
