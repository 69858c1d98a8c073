"""The fleets of the benchmark, with as many slots as asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sage_simulator.fleet_spec import InstanceModel, named_fleet
from sage_simulator.simulation_settings import SimulationSettings
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.settings import SchedulerSettings

FLEETS = ("E8", "U8", "PD")


def find_fleet(name: str, slots: int) -> Sequence[InstanceModel]:
    """Return a fleet: E8, U8, or PD: four instances for prefill and four for decode.

    Raises FleetSpecError, also where the simulator does not model the roles.
    """
    if name != "PD":
        return tuple(replace(each, max_running=slots) for each in named_fleet(name))
    roles = (InstanceRole.PREFILLING,) * 4 + (InstanceRole.DECODING,) * 4
    return tuple(
        replace(each, max_running=slots, role=role) for each, role in zip(named_fleet("E8"), roles, strict=True)
    )


def settings_of(fleet: str, policy: str, seed: int) -> SimulationSettings:
    """Return the settings of a run.  Raises SimulationError where the simulator does not split requests."""
    scheduler = SchedulerSettings(policy=policy)
    if fleet == "PD":
        scheduler = replace(scheduler, pd=PdSettings(mode=SplitMode.ADAPTIVE))
    return SimulationSettings(scheduler=scheduler, seed=seed)
