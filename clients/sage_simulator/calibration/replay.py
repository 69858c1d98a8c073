"""Replays recorded requests on the fleet fitted to them: how close the simulation comes to what was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from sage_simulator.fleet_file import FleetFile
from sage_simulator.simulation import Simulation
from sage_simulator.simulation_settings import SimulationError
from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.recording.as_trace import as_trace
from sage_simulator.traces.recording.recorded_lines import RecordedRequest
from scheduler_svc.domain.errors import UnknownPolicy
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue, PolicyLoadError
from scheduler_svc.domain.settings import SchedulerSettings

_LEAD_S = 1.0  # seconds of heartbeats before the first arrival, as in a scheduler that runs already


@dataclass(frozen=True, kw_only=True, slots=True)
class Latencies:
    """Times of the requests that finished, in seconds; None where nothing was measured."""

    ttft_mean_s: float | None
    ttft_p90_s: float | None
    tpot_mean_s: float | None
    tpot_p90_s: float | None

    @classmethod
    def of(cls, ttft: Iterable[float | None], tpot: Iterable[float | None]) -> Latencies:
        """Sum up the times that are there."""
        first, each = [t for t in ttft if t is not None], [t for t in tpot if t is not None]
        return cls(
            ttft_mean_s=fmean(first) if first else None,
            ttft_p90_s=_p90(first),
            tpot_mean_s=fmean(each) if each else None,
            tpot_p90_s=_p90(each),
        )

    def figures(self) -> dict[str, float | None]:
        """Return the times by name."""
        return {
            "TTFT mean": self.ttft_mean_s,
            "TTFT p90": self.ttft_p90_s,
            "TPOT mean": self.tpot_mean_s,
            "TPOT p90": self.tpot_p90_s,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """What was measured, and what the simulation says of the same requests."""

    requests: int
    policy: str
    measured: Latencies
    simulated: Latencies

    def errors(self) -> dict[str, float | None]:
        """Return by how much each simulated time is off, as a share of the measured one; None without one."""
        simulated = self.simulated.figures()
        return {
            name: None if measured is None or each is None or not measured else each / measured - 1
            for name, measured in self.measured.figures().items()
            for each in (simulated[name],)
        }


def replay(
    requests: Sequence[RecordedRequest],
    fleet: FleetFile,
    policies: Callable[[], PolicyCatalogue] = PolicyCatalogue.with_plugins,
) -> Replay:
    """Simulate recorded requests on a fleet, under the policy that placed most of them.

    Raises ValueError without a request that was placed; SimulationError, also if the policy is not installed.
    """
    placed_by = Counter(each.policy for each in requests if each.policy)
    if not placed_by:
        raise ValueError("no recorded request was placed")
    [(policy, _)] = placed_by.most_common(1)
    split = any(each.prefill_instance for each in requests)
    settings = replace(
        fleet.settings(),
        scheduler=SchedulerSettings(policy=policy, pd=PdSettings(mode=SplitMode.ALWAYS if split else SplitMode.NEVER)),
    )
    try:
        result = Simulation(_moved(requests), fleet.instances, settings, policies()).run()
    except (UnknownPolicy, PolicyLoadError) as e:
        raise SimulationError(f"the policy that was recorded: {e}") from None
    return Replay(
        requests=len(requests),
        policy=policy,
        measured=Latencies.of((each.ttft_s for each in requests), (each.tpot_s for each in requests)),
        simulated=Latencies.of((each.ttft_s for each in result.outcomes), (each.tpot_s for each in result.outcomes)),
    )


def _moved(requests: Sequence[RecordedRequest]) -> list[TracedRequest]:
    trace = sorted(as_trace(requests), key=lambda each: each.arrival_s)
    began_s = trace[0].arrival_s - _LEAD_S
    return [replace(each, arrival_s=each.arrival_s - began_s) for each in trace]


def _p90(values: list[float]) -> float | None:
    return sorted(values)[-(-9 * len(values) // 10) - 1] if values else None
