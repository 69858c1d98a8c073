"""The reconciler goes on after what keeps one executor from starting, or a file from being written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sage_client as sage
from sage_fleet.errors import FleetError
from sage_fleet.local_place import hung_watch
from sage_fleet.local_place.device_pool import DevicePool
from sage_fleet.local_place.reconciler import Reconciler
from sage_fleet.local_place.wanted_fleet import FleetFiles, Progress, WantedFleet
from sage_fleet.processes import scheduler_processes
from sage_fleet.specification.fleet_file import parse_fleet
from sage_local.fleet.command_lines import ProcessSpec
from sage_local.fleet.status import FleetPhase, FleetStatus, ProcessStatus
from tests.unit.fleet.test_controller import Sleepers

FLEET = parse_fleet("groups: {small: {model: m, engine: simulated, count: 2}}")


class Supervisor:
    """Remembers what was started and killed; refuses what the test says."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.refused: set[str] = set()
        self.killed: list[str] = []

    async def add(self, executor: ProcessSpec) -> None:
        if executor.name in self.refused:
            raise OSError("Resource temporarily unavailable")
        self.names.append(executor.name)

    def kill_executor(self, name: str) -> None:
        self.killed.append(name)

    def status(self) -> FleetStatus:
        processes = tuple(
            ProcessStatus(name=name, state="running", pid=1, restarts=0, last_exit=None, where="", warning="")
            for name in self.names
        )
        return FleetStatus(
            phase=FleetPhase.READY,
            reason="",
            culprit="",
            address="",
            supervisor_pid=1,
            processes=processes,
            instances=(),
        )


class Instances(Sleepers):
    """The scheduler's instances, of which the test says which are lost, and which it never heard of."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: set[str] = set()
        self.unknown: set[str] = set()
        self.down = False

    async def list_instances(self) -> sage.FleetView:
        if self.down:
            raise sage.TryAgainError("no scheduler answers")
        view = await super().list_instances()
        return replace(view, instances=tuple(i for i in view.instances if i.instance_id not in self.unknown))

    def _instance(self, name: str) -> sage.Instance:
        found = super()._instance(name)
        return replace(found, state=sage.InstanceState.LOST) if name in self.lost else found


class Files(FleetFiles):
    """Files on a disk that may be full."""

    full = False

    def report(self, progress: Progress) -> None:
        if self.full:
            raise FleetError("cannot write: No space left on device")
        super().report(progress)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.supervisor, self.instances, self.files = Supervisor(), Instances(), Files(folder)
        self.files.want(WantedFleet(fleet=FLEET, counts={"small": 2}))
        *_, scheduler = scheduler_processes(FLEET, folder)
        parts: Any = (self.supervisor, self.files, folder, DevicePool([], [0]), self.instances, (scheduler, None))
        self.reconciler = Reconciler(*parts)

    async def step(self) -> Progress | None:
        await self.reconciler._step()
        return self.files.progress()


async def test_an_executor_that_cannot_be_started_is_told_and_tried_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.supervisor.refused = {"small-1"}
    progress = await bench.step()
    assert progress is not None
    assert progress.problems == {"small-1": "cannot be started: Resource temporarily unavailable"}
    bench.supervisor.refused = set()
    progress = await bench.step()
    assert (sorted(bench.supervisor.names), progress and progress.problems) == (["small-1", "small-2"], {})


async def test_a_full_disk_ends_nothing_and_the_progress_is_written_once_there_is_room(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.files.full = True
    assert await bench.step() is None
    assert len(bench.supervisor.names) == 2
    bench.files.full = False
    assert await bench.step() is not None


async def test_an_executor_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    await bench.step()
    bench.instances.lost = {"small-2"}
    await bench.step()
    assert bench.supervisor.killed == []
    monkeypatch.setattr(hung_watch, "HUNG_S", 0.0)
    await bench.step()
    assert bench.supervisor.killed == ["small-2"]


async def test_an_executor_hangs_that_a_later_scheduler_never_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.instances.unknown = {"small-1"}
    await bench.step()
    await bench.step()
    bench.instances.unknown = {"small-1", "small-2"}
    await bench.step()
    monkeypatch.setattr(hung_watch, "HUNG_S", 0.0)
    await bench.step()
    assert bench.supervisor.killed == ["small-2"], "small-1 was not READY yet: it may still start"


async def test_nobody_hangs_while_no_scheduler_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    await bench.step()
    await bench.step()
    monkeypatch.setattr(hung_watch, "HUNG_S", 0.0)
    bench.instances.down = True
    for _ in range(3):
        await bench.step()
    assert bench.supervisor.killed == []
