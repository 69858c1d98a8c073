"""A fleet of real processes under load, and everything that can strike it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sage_client import AsyncClient
from tests.chaos.chaos_run import play
from tests.chaos.faults import Faults, Kinds
from tests.chaos.gaps import Gaps
from tests.chaos.link_faults import LinkFaults
from tests.chaos.machine_faults import SettableClock, small_disk
from tests.chaos.process_faults import Detection, ExecutorFaults, SchedulerFaults
from tests.chaos.report import Report
from tests.chaos.restart_load import RestartLoad
from tests.chaos.test_restarts_under_load import LEGS, NAMES, SPLITTING, all_is_free
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.support.network_proxy import NetworkProxy

EACH = 4  # clients of each sort
SLOW = VANISHING = 2


@dataclass(kw_only=True)
class StruckFleet:
    """``play`` has faults strike it."""

    fleet: FleetProcesses
    load: RestartLoad
    gaps: Gaps
    watcher: AsyncClient
    dice: random.Random
    scheduler: SchedulerFaults
    executors: ExecutorFaults
    links: LinkFaults
    machine: Kinds  # of the scheduler's machine, as far as they can be caused here

    async def play(self, kinds: Kinds, seed: int, seconds: float) -> None:
        """Strike for so long; wait until every request has ended and all room is free.

        Raises as ``chaos_run.play``.
        """
        processes = [self.fleet.scheduler, *self.executors.executors]
        faults = Faults(
            kinds=kinds, is_up=lambda: all(each.running for each in processes), gaps=self.gaps, dice=self.dice
        )
        report = Report(seed, seconds, self.load.tally, self.gaps, self.executors.detection.seconds)
        await play(processes, self.load, faults, report, seconds)
        await all_is_free(self.fleet, self.watcher)


@asynccontextmanager
async def struck_fleet(logs: Path, executor: Sequence[str], folder: Path, seed: int) -> AsyncIterator[StruckFleet]:
    """Start a scheduler and three executors, each behind a link of its own.

    Its journal is on a small disk and its clock can be set, where this machine allows it.
    """
    async with AsyncExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "disk"))
        clock = SettableClock.find(folder / "clock")
        flags = ["--state-dir", str(folder / "state"), "--journal.url", f"sqlite:///{folder}/disk/journal.db"]
        flags += ["--policy", "fifo", "--instance.adopt-s=30", *SPLITTING]
        environment = clock.environment if clock is not None else None
        fleet = FleetProcesses(logs, flags, listen=f"127.0.0.1:{free_port()}", environment=environment)
        await stack.enter_async_context(fleet)
        links = [await stack.enter_async_context(NetworkProxy(fleet.port)) for _ in NAMES]
        clients_link = await stack.enter_async_context(NetworkProxy(fleet.port))
        sessions = await stack.enter_async_context(AsyncClient(clients_link.address))
        calls = await stack.enter_async_context(fleet.client(use_sessions=False))
        watcher = await stack.enter_async_context(fleet.client())
        executors = [
            fleet.launch(name, [*executor, *LEGS], address=link.address)
            for name, link in zip(NAMES, links, strict=True)
        ]
        await fleet.ready(*NAMES)
        dice, gaps, detection = random.Random(seed), Gaps(), Detection(watcher)
        load = RestartLoad(
            fleet.address, sessions, calls, each=EACH, seed=seed, gaps=gaps, slow=SLOW, vanishing=VANISHING
        )
        yield StruckFleet(
            fleet=fleet,
            load=load,
            gaps=gaps,
            watcher=watcher,
            dice=dice,
            scheduler=SchedulerFaults(fleet.scheduler, dice),
            executors=ExecutorFaults(executors, detection, dice),
            links=LinkFaults(links, NAMES, clients_link, detection, dice),
            machine={
                **(disk.faults(dice) if disk is not None else {}),
                **(clock.faults(dice) if clock is not None else {}),
            },
        )
