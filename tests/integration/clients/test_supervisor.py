"""A supervisor over processes that stand in for the services."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sage_local.fleet import supervisor as supervisor_module
from sage_local.fleet.command_lines import ProcessSpec
from sage_local.fleet.reaper_link import ReaperLink
from sage_local.fleet.sessions import members
from sage_local.fleet.state_dir import StateDir
from sage_local.fleet.status import FleetPhase, FleetStatus, InstanceProgress
from sage_local.fleet.supervised_process import SupervisedProcess
from sage_local.fleet.supervisor import StartFailed, Supervisor

FOREVER = ("sh", "-c", "echo up; exec sleep 600")
WITH_A_CHILD = ("sh", "-c", "sleep 600 & echo up; wait")
DEAF = ("sh", "-c", "trap '' TERM; sleep 600 & echo up; wait; wait; wait")


class ToldProbe:
    """Says what the test put in, but of nobody that it is ready who has not said in its log that it is up."""

    def __init__(self, state: StateDir) -> None:
        self.said: tuple[InstanceProgress, ...] = ()
        self.pair = False
        self._state = state

    async def pair_usable(self) -> bool:
        return self.pair

    async def instances(self) -> tuple[InstanceProgress, ...] | None:
        return tuple(each for each in self.said if each.state != "ready" or self._is_up(each.instance_id))

    def _is_up(self, name: str) -> bool:
        return "up" in self._state.log_tail(name)

    async def close(self) -> None:
        pass


def progress(name: str, state: str, message: str = "") -> InstanceProgress:
    return InstanceProgress(instance_id=name, state=state, progress=None, message=message)


READY = tuple(progress(f"executor-{n}", "ready") for n in (1, 2))


class Fleet:
    """A supervisor under test, and what it reported."""

    def __init__(self, directory: Path) -> None:
        self.state = StateDir(path=directory)
        self.probe = ToldProbe(self.state)
        self.statuses: list[FleetStatus] = []
        self.changed = asyncio.Event()
        self.supervisor: Supervisor

    def make(
        self,
        scheduler: tuple[str, ...] = FOREVER,
        executor: tuple[str, ...] = FOREVER,
        *,
        stop_timeout_s: float = 5.0,
        start_timeout_s: float = 10.0,
        wait_for_pair: bool = False,
        gateway_healthy: Callable[[], bool] | None = None,
    ) -> Supervisor:
        def process(name: str, command: tuple[str, ...]) -> ProcessSpec:
            return ProcessSpec(name=name, command=command, environment=dict(os.environ), stop_timeout_s=stop_timeout_s)

        async def answers() -> bool:
            return gateway_healthy is not None and gateway_healthy()

        self.supervisor = Supervisor(
            process("scheduler", scheduler),
            [process("executor-1", executor), process("executor-2", executor)],
            address="127.0.0.1:1",
            state=self.state,
            probe=self.probe,
            start_timeout_s=start_timeout_s,
            wait_for_pair=wait_for_pair,
            gateway=process("gateway", FOREVER) if gateway_healthy else None,
            gateway_answers=answers,
            on_status=self._on_status,
            first_backoff_s=0.01,
        )
        return self.supervisor

    async def until(self, reached: Callable[[FleetStatus], bool]) -> FleetStatus:
        async with asyncio.timeout(10):
            while not (self.statuses and reached(self.statuses[-1])):
                self.changed.clear()
                await self.changed.wait()
        return self.statuses[-1]

    def sessions(self) -> set[int]:
        return {each.pid for status in self.statuses for each in status.processes if each.pid is not None}

    def _on_status(self, status: FleetStatus) -> None:
        self.statuses.append(status)
        self.changed.set()


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    assert members(made.sessions()) == []


def starts(status: FleetStatus, name: str) -> int:
    return next(each.restarts for each in status.processes if each.name == name)


async def test_it_is_up_when_all_instances_are_ready(fleet: Fleet) -> None:
    async with fleet.make() as supervisor:
        start = asyncio.create_task(supervisor.start())
        await fleet.until(lambda status: len(status.processes) == 3 and status.processes[2].state == "running")
        fleet.probe.said = (READY[0], progress("executor-2", "loading"))
        await fleet.until(lambda status: len(status.instances) == 2)
        assert not start.done()
        fleet.probe.said = READY
        await asyncio.wait_for(start, 5)

        assert len(members(fleet.sessions())) == 3
    assert [each.phase for each in fleet.statuses[-3:]] == [
        FleetPhase.READY,
        FleetPhase.STOPPING,
        FleetPhase.STOPPED,
    ]


@pytest.mark.parametrize("usable", [True, False])
async def test_a_start_waits_for_a_usable_pair_but_not_for_ever(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, usable: bool
) -> None:
    monkeypatch.setattr(supervisor_module, "PAIR_TIMEOUT_S", 30.0 if usable else 0.1)
    fleet.probe.said = READY
    async with fleet.make(wait_for_pair=True) as supervisor:
        start = asyncio.create_task(supervisor.start())
        await fleet.until(lambda status: len(status.instances) == 2)
        assert fleet.statuses[-1].phase is FleetPhase.STARTING
        fleet.probe.pair = usable
        await asyncio.wait_for(start, 5)

        assert (fleet.statuses[-1].phase, fleet.statuses[-1].pair_usable) == (FleetPhase.READY, usable)


async def test_a_start_waits_for_the_http_gateway(fleet: Fleet) -> None:
    healthy: list[bool] = []
    fleet.probe.said = READY
    async with fleet.make(gateway_healthy=lambda: bool(healthy)) as supervisor:
        start = asyncio.create_task(supervisor.start())
        await fleet.until(lambda status: len(status.instances) == 2)
        assert fleet.statuses[-1].phase is FleetPhase.STARTING
        healthy.append(True)
        await asyncio.wait_for(start, 5)

        assert [each.name for each in fleet.statuses[-1].processes][-1] == "gateway"
        assert len(members(fleet.sessions())) == 4


async def test_a_gateway_that_does_not_become_healthy_fails_the_start(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "GATEWAY_TIMEOUT_S", 0.1)
    fleet.probe.said = READY
    async with fleet.make(gateway_healthy=lambda: False) as supervisor:
        with pytest.raises(StartFailed, match="HTTP gateway was not healthy") as caught:
            await supervisor.start()
    assert caught.value.culprit == "gateway"


async def test_a_process_that_ends_while_it_starts_is_named_with_its_last_words(fleet: Fleet) -> None:
    async with fleet.make(executor=("sh", "-c", "echo no such model; exit 3")) as supervisor:
        with pytest.raises(StartFailed, match=r"executor-. ended with status 3 while it started") as caught:
            await supervisor.start()

    assert fleet.state.log_tail(caught.value.culprit) == "no such model"
    assert fleet.statuses[-1].phase is FleetPhase.FAILED
    assert fleet.statuses[-1].reason == str(caught.value)


async def test_a_process_keeps_to_its_cores_with_all_it_starts(tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    child = f"import os; print(os.sched_getaffinity(0) == {{{core}}})"
    spec = ProcessSpec(
        name="bound",
        command=("sh", "-c", f"{sys.executable} -c '{child}'"),
        environment=dict(os.environ),
        stop_timeout_s=5.0,
        cores=str(core),
    )
    state, reaper = StateDir(path=tmp_path), ReaperLink(5.0)
    process = SupervisedProcess(spec, state, reaper)
    await process.start()
    assert await asyncio.wait_for(process.ended(), 10) == 0
    await asyncio.to_thread(reaper.close)

    assert state.log_tail("bound") == "True"


async def test_a_command_that_does_not_exist_is_a_failed_start(fleet: Fleet) -> None:
    async with fleet.make(scheduler=("/no/such/program",)) as supervisor:
        with pytest.raises(StartFailed, match="scheduler ended with status 1"):
            await supervisor.start()

    assert "cannot start /no/such/program" in fleet.state.log_tail("scheduler")


async def test_an_engine_that_fails_to_start_is_named_with_its_reason(fleet: Fleet) -> None:
    fleet.probe.said = (READY[0], progress("executor-2", "failed", "out of memory"))
    async with fleet.make() as supervisor:
        with pytest.raises(StartFailed, match="executor-2: out of memory") as caught:
            await supervisor.start()

    assert caught.value.culprit == "executor-2"


async def test_a_start_is_bounded(fleet: Fleet) -> None:
    fleet.probe.said = (READY[0], progress("executor-2", "loading"))
    async with fleet.make(start_timeout_s=0.1) as supervisor:
        with pytest.raises(StartFailed, match=r"not ready within 0\.1 s: .*executor-2$"):
            await supervisor.start()


@pytest.mark.parametrize("name", ["scheduler", "executor-2"])
async def test_what_dies_is_started_again(fleet: Fleet, name: str) -> None:
    fleet.probe.said = READY
    async with fleet.make() as supervisor:
        await supervisor.start()
        process = next(each for each in supervisor.status().processes if each.name == name)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        status = await fleet.until(lambda status: starts(status, name) == 1)

        again = next(each for each in status.processes if each.name == name)
        assert (again.state, again.last_exit) == ("running", -signal.SIGKILL)
        assert again.pid != process.pid
        assert sum(each.restarts for each in status.processes) == 1


async def test_what_a_dead_process_leaves_is_ended_before_it_starts_again(fleet: Fleet) -> None:
    fleet.probe.said = READY
    async with fleet.make(executor=WITH_A_CHILD) as supervisor:
        await supervisor.start()
        leader = supervisor.status().processes[1].pid
        assert leader is not None
        assert len(members({leader})) == 2
        os.kill(leader, signal.SIGKILL)
        await fleet.until(lambda status: starts(status, "executor-1") == 1)

        assert members({leader}) == []


async def test_what_does_not_heed_sigterm_is_killed_with_its_children(fleet: Fleet) -> None:
    fleet.probe.said = READY
    async with fleet.make(executor=DEAF, stop_timeout_s=0.2) as supervisor:
        await supervisor.start()

    assert [each.last_exit for each in fleet.statuses[-1].processes[1:]] == [-signal.SIGKILL] * 2


async def test_executors_are_stopped_before_the_scheduler(fleet: Fleet, tmp_path: Path) -> None:
    fleet.probe.said = READY
    order = tmp_path / "order"

    def noting(word: str, pause: str) -> tuple[str, ...]:
        return ("sh", "-c", f"trap 'sleep {pause}; echo {word} >> {order}; exit 0' TERM; sleep 600 & echo up; wait")

    async with fleet.make(noting("scheduler", "0"), noting("executor", "0.3")) as supervisor:
        await supervisor.start()

    assert order.read_text().split() == ["executor", "executor", "scheduler"]


async def test_stopping_in_the_middle_of_a_start_leaves_nothing(fleet: Fleet) -> None:
    async with fleet.make() as supervisor:
        start = asyncio.create_task(supervisor.start())
        await fleet.until(lambda status: status.processes[0].state == "running")
        start.cancel()
        await asyncio.wait({start})


async def test_killing_ends_all_at_once(fleet: Fleet) -> None:
    fleet.probe.said = READY
    async with fleet.make(executor=DEAF, stop_timeout_s=60) as supervisor:
        await supervisor.start()
        stop = asyncio.create_task(supervisor.stop())
        supervisor.kill()
        await asyncio.wait_for(stop, 5)


ORPHANING = """
    import asyncio, os, sys
    from pathlib import Path
    from tests.integration.clients.test_supervisor import DEAF, READY, WITH_A_CHILD, Fleet

    async def main():
        fleet = Fleet(Path(sys.argv[1]))
        fleet.probe.said = READY
        async with fleet.make(WITH_A_CHILD, DEAF, stop_timeout_s=0.3) as supervisor:
            await supervisor.start()
            print(*sorted(fleet.sessions()), supervisor._reaper.pid, flush=True)
            await asyncio.sleep(600)

    asyncio.run(main())
"""


async def test_a_supervisor_killed_outright_takes_everything_with_it(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(ORPHANING), str(tmp_path)), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    sessions = {int(word) for word in (await asyncio.wait_for(process.stdout.readline(), 20)).split()}
    before = members(sessions)
    process.kill()
    await process.wait()
    async with asyncio.timeout(10):
        while members(sessions):
            await asyncio.sleep(0.02)

    assert len(before) == 3 * 2 + 1  # each with a child, and the reaper


async def test_executors_come_and_go_while_the_others_run(fleet: Fleet) -> None:
    fleet.probe.said = READY
    async with fleet.make() as supervisor:
        await supervisor.start()
        before = {each.name: each.pid for each in supervisor.status().processes}
        await supervisor.add(replace(supervisor.processes[1].spec, name="executor-3"))
        await supervisor.remove("executor-1")
        await supervisor.remove("nobody")
        after = {each.name: each.pid for each in supervisor.status().processes}
        assert after.keys() == {"scheduler", "executor-2", "executor-3"}
        assert (after["executor-2"], after["scheduler"]) == (before["executor-2"], before["scheduler"])
        assert before["executor-1"] not in {each.pid for each in members({before["executor-1"] or 0})}


async def test_what_cannot_be_started_or_reported_for_a_while_is_tried_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory for a process, and a full disk."""
    fleet.probe.said = READY
    tried = 0
    starts_it, reports = SupervisedProcess.start, fleet._on_status

    async def refused(process: SupervisedProcess) -> None:
        nonlocal tried
        tried += 1
        if tried < 3:
            raise OSError("Resource temporarily unavailable")
        await starts_it(process)

    def full(status: FleetStatus) -> None:
        if tried < 3:
            raise OSError("No space left on device")
        reports(status)

    async with fleet.make() as supervisor:
        await supervisor.start()
        monkeypatch.setattr(SupervisedProcess, "start", refused)
        monkeypatch.setattr(supervisor, "_on_status", full)
        supervisor.kill_executor("executor-1")
        status = await fleet.until(lambda status: starts(status, "executor-1") == 1)
        assert tried == 3
        assert all(each.state == "running" for each in status.processes)


async def test_a_scheduler_and_a_gateway_that_cannot_start_at_once_start_later(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.probe.said = READY
    tried: list[str] = []
    starts_it = SupervisedProcess.start

    async def refused(process: SupervisedProcess) -> None:
        tried.append(process.spec.name)
        if tried.count(process.spec.name) < 3:
            raise OSError("Resource temporarily unavailable")
        await starts_it(process)

    async with fleet.make() as supervisor:
        await supervisor.start()
        first = supervisor.processes[0].spec
        monkeypatch.setattr(SupervisedProcess, "start", refused)
        await supervisor.restart_scheduler(replace(first, command=WITH_A_CHILD))
        await supervisor.set_gateway(replace(first, name="gateway"))
        await fleet.until(lambda status: all(each.state == "running" for each in status.processes))
        assert {name: tried.count(name) for name in tried} == {"scheduler": 3, "gateway": 3}


async def test_an_executor_that_cannot_be_added_is_none_of_the_fleet(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(process: SupervisedProcess) -> None:
        raise OSError("Resource temporarily unavailable")

    fleet.probe.said = READY
    async with fleet.make() as supervisor:
        await supervisor.start()
        with monkeypatch.context() as patch:
            patch.setattr(SupervisedProcess, "start", refused)
            with pytest.raises(OSError, match="temporarily"):
                await supervisor.add(replace(supervisor.processes[1].spec, name="executor-3"))
        assert "executor-3" not in {each.name for each in supervisor.status().processes}


async def test_an_executor_that_hangs_is_killed_and_started_again(fleet: Fleet) -> None:
    fleet.probe.said = READY
    async with fleet.make(executor=DEAF) as supervisor:
        await supervisor.start()
        supervisor.kill_executor("nobody")
        supervisor.kill_executor("executor-1")
        status = await fleet.until(lambda status: starts(status, "executor-1") == 1)
        assert sum(each.restarts for each in status.processes) == 1
        supervisor.kill()


async def test_one_that_is_asked_to_stop_is_said_to_be_stopping_and_is_not_restarted(fleet: Fleet) -> None:
    fleet.probe.said = READY
    async with fleet.make() as supervisor:
        await supervisor.start()
        await supervisor.remove("executor-2")
    states = [each.state for status in fleet.statuses for each in status.processes if each.name == "executor-2"]
    assert "stopping" in states
    assert max(starts(each, "executor-2") for each in fleet.statuses if len(each.processes) == 3) == 0


async def test_the_scheduler_and_the_gateway_start_again_with_another_command(fleet: Fleet) -> None:
    fleet.probe.said = READY
    async with fleet.make() as supervisor:
        await supervisor.start()
        first = supervisor.processes[0].spec
        await supervisor.restart_scheduler(replace(first, command=WITH_A_CHILD))
        await supervisor.set_gateway(replace(first, name="gateway"))
        assert supervisor.processes[0].spec.command == WITH_A_CHILD
        assert [each.name for each in supervisor.status().processes] == [
            "scheduler",
            "executor-1",
            "executor-2",
            "gateway",
        ]
        await supervisor.set_gateway(None)
        assert "gateway" not in {each.name for each in supervisor.status().processes}
