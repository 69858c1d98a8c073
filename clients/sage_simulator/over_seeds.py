"""What a policy gave over several seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from sage_simulator.estimate import Estimate
from sage_simulator.report import Summary

#: The figures of a summary that are estimated over seeds, by name.  Times in seconds.
FIGURES: Mapping[str, Callable[[Summary], float | None]] = MappingProxyType(
    {
        "in_target_share": lambda each: each.in_target_share,
        "goodput_per_s": lambda each: each.goodput_per_s,
        "ttft_p50_s": lambda each: each.ttft.p50_s,
        "ttft_p90_s": lambda each: each.ttft.p90_s,
        "ttft_p99_s": lambda each: each.ttft.p99_s,
        "tpot_p50_s": lambda each: each.tpot.p50_s,
        "tpot_p90_s": lambda each: each.tpot.p90_s,
        "tpot_p99_s": lambda each: each.tpot.p99_s,
        "queue_wait_p50_s": lambda each: each.queue_wait.p50_s,
        "queue_wait_p99_s": lambda each: each.queue_wait.p99_s,
        "cost": lambda each: each.cost,
        "fleet_cost": lambda each: each.fleet_cost,
        "cost_per_million_tokens": lambda each: each.cost_per_million_tokens,
        "unfinished": lambda each: each.requests - each.ends["finished"],
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OverSeeds:
    """The simulations of one policy, and what they say together."""

    policy: str
    figures: Mapping[str, Estimate | None]  # by name, as in ``FIGURES``; None where no seed gave a value

    @classmethod
    def of(cls, summaries: Sequence[Summary]) -> OverSeeds:
        """Take the simulations of one policy, one for each seed; at least one."""
        return cls(
            policy=summaries[0].policy,
            figures={name: Estimate.of(map(figure, summaries)) for name, figure in FIGURES.items()},
        )
