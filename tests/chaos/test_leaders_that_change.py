"""Two schedulers on one PostgreSQL under every kind of request: leaders, the database and executors are struck."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos.chaos_run import play
from tests.chaos.faults import Faults
from tests.chaos.gaps import Gaps
from tests.chaos.leader_faults import LeaderFaults
from tests.chaos.process_faults import Detection, ExecutorFaults
from tests.chaos.report import Report
from tests.chaos.restart_load import RestartLoad
from tests.chaos.test_restarts_under_load import LEGS, NAMES, SPLITTING, all_is_free
from tests.support.postgres import running_postgres
from tests.support.standby_fleet import StandbyFleet

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1_200)]

EACH = 3  # clients of each sort


@pytest.mark.parametrize("executors_die", [False, True], ids=["executors stay", "executors die"])
async def test_nothing_is_doubled_or_changed_and_what_is_lost_is_told(
    logs: Path, simulated: list[str], seconds: float, seed: int, executors_die: bool
) -> None:
    dice, gaps = random.Random(seed), Gaps()
    seconds = seconds if executors_die else seconds / 2
    with running_postgres() as postgres:
        async with (
            StandbyFleet(logs, postgres.url, ("--policy", "fifo", "--instance.adopt-s=30", *SPLITTING)) as fleet,
            fleet.client() as sessions,
            fleet.client(use_sessions=False) as calls,
            fleet.client() as watcher,
        ):
            executors = [fleet.launch(name, [*simulated, *LEGS]) for name in NAMES]
            await fleet.ready(*NAMES)
            load = RestartLoad(fleet.address, sessions, calls, each=EACH, seed=seed, gaps=gaps, slow=1, vanishing=2)
            processes = [*fleet.addresses, *executors]
            struck = ExecutorFaults(executors, Detection(watcher), dice)
            faults = Faults(
                kinds={**LeaderFaults(fleet, postgres, dice).kinds, **(struck.kinds if executors_die else {})},
                is_up=lambda: all(each.running for each in processes),
                gaps=gaps,
                dice=dice,
            )
            report = Report(seed, seconds, load.tally, gaps, struck.detection.seconds)
            await play(processes, load, faults, report, seconds)
            assert executors_die or not load.tally.losses
            await all_is_free(fleet, watcher)
