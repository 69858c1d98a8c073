"""The fleets of the benchmark, with as many slots as asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sage_simulator.fleet_spec import NAMED_FLEETS, InstanceModel, named_fleet
from sage_simulator.simulation_settings import SimulationSettings
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.settings import SchedulerSettings
from tests.bench.policies.variants import with_variant

FLEETS = tuple(NAMED_FLEETS)

#: The fleet whose instances compute prompts or outputs only.
SEPARATED = "PD"


def find_fleet(name: str, slots: int) -> Sequence[InstanceModel]:
    """Return a fleet by its name: E8 (equal), U8 (unequal) or PD (prefill and decode).  Raises FleetSpecError."""
    return tuple(replace(each, max_running=slots) for each in named_fleet(name))


def settings_of(fleet: str, policy: str, seed: int) -> SimulationSettings:
    """Return the settings of a run; on ``SEPARATED`` requests are split where it pays.

    ``policy``: its name, or ``policy/variant``.  Raises UnknownVariant.
    """
    scheduler = SchedulerSettings()
    if fleet == SEPARATED:
        scheduler = replace(scheduler, pd=PdSettings(mode=SplitMode.ADAPTIVE))
    return SimulationSettings(scheduler=with_variant(scheduler, policy), seed=seed)
