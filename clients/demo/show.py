"""The demonstration from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import sage_client as sage
from demo.calibration import Calibration, calibrate
from demo.display import Display, LoadingDisplay
from demo.effects import effects
from demo.outcome import Outcome, play
from demo.round import Round
from demo.workload import Planned, burst, expected_burst_s, trickle
from fleet.commands import executor_processes, scheduler_process, served_name_of
from fleet.model_files import ModelNotMade, make_model_if_needed
from fleet.ports import free_address
from fleet.readiness import SchedulerProbe
from fleet.sessions import members
from fleet.spec import FleetSpec
from fleet.state_dir import StateDir
from fleet.status import FleetStatus
from fleet.supervisor import StartFailed, Supervisor

POLICIES = ("fifo", "priority", "slo_aware", "cost_optimized", "adaptive")
EXECUTORS = 2
MAX_RUNNING = 4  # sequences at once per executor: few, so that requests really queue
PRICES = (3.0, 1.0)  # per hour; the cheap one is not the one that ties would go to
BURST_S = 5.0  # how long the burst under each policy is meant to take
ROUND_TIMEOUT_S = 600.0


class Interrupted(Exception):
    """SIGINT or SIGTERM came."""


def spec_for(engine: str, model: str) -> FleetSpec:
    """Two executors on a free port of this machine."""
    return FleetSpec(
        executors=EXECUTORS,
        engine="simulated" if engine == "simulated" else "vllm",
        model=model,
        address=free_address(),
        policy=POLICIES[0],
        max_running=MAX_RUNNING,
        prices=PRICES,
        drain_timeout_s=10.0,
    )


async def show(spec: FleetSpec, display: Display, *, burst_s: float = BURST_S) -> int:
    """The exit status: 0 only if every request ended well, no process died and none is left; 130 if interrupted."""
    directory = Path(tempfile.mkdtemp(prefix="sage-demo-"))
    demo = Demo(spec, StateDir(path=directory), display, burst_s=burst_s)
    try:
        problems = await demo.run()
    except Interrupted:
        display.say("interrupted")
        problems = None
    left = members(demo.sessions)
    for member in left:
        display.error(f"a process is left: {member.pid} {member.command}")
    for problem in problems or ():
        display.error(problem)
    if problems or left:
        display.error(f"the logs are in {directory}")
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    if problems is None:
        return 130
    display.say("everything is shut down; no process is left")
    return 0


class Demo:
    """One showing.  ``sessions`` are those of every process it ever started."""

    def __init__(self, spec: FleetSpec, state: StateDir, display: Display, *, burst_s: float) -> None:
        self._spec = spec
        self._state = state
        self._display = display
        self._burst_s = burst_s
        self._model = served_name_of(spec)
        self.sessions: set[int] = set()

    async def run(self) -> list[str]:
        """Everything that went wrong.  Raises Interrupted, after the fleet was stopped."""
        try:
            await asyncio.to_thread(make_model_if_needed, self._spec)
        except ModelNotMade as error:
            return [str(error)]
        with LoadingDisplay(self._display) as loading:
            supervisor = self._supervisor(loading)
            async with supervisor:
                with _interruptible():
                    try:
                        return await self._run(supervisor)
                    except StartFailed as error:
                        return self._explain(error)
                    finally:
                        self._display.say("shutting down")

    async def _run(self, supervisor: Supervisor) -> list[str]:
        spec = self._spec
        self._display.heading(f"starting a scheduler and {spec.executors} executors ({spec.engine}, {self._model})")
        await supervisor.start()
        async with sage.AsyncClient(spec.address) as client:
            problems = await self._show_policies(client)
        return problems + deaths(supervisor.status())

    async def _show_policies(self, client: sage.AsyncClient) -> list[str]:
        try:
            calibration = await calibrate(client, burst_s=self._burst_s)
        except sage.SageError as error:
            return [f"a trial request failed: {error}"]
        self._introduce(calibration)
        rounds: dict[str, Round] = {}
        for policy in POLICIES:
            try:
                async with asyncio.timeout(ROUND_TIMEOUT_S):
                    rounds[policy] = await self._round(client, policy, calibration)
            except sage.SageError as error:
                return [f"{policy}: {error}"]
            except TimeoutError:
                return [f"{policy}: its requests did not end within {ROUND_TIMEOUT_S:g} s"]
        await self._close(client, rounds)
        return [f"{each.request_id}: {each.error}" for policy in rounds for each in rounds[policy].failures]

    def _introduce(self, calibration: Calibration) -> None:
        urgent, waiting = burst(calibration), trickle(calibration)
        self._display.say(
            f"measured: {calibration.tokens_per_s:.0f} tokens/s in all, {calibration.stream_tokens_per_s:.0f} per "
            f"stream; so the burst of {len(urgent)} requests ({sum(each.output_tokens for each in urgent)} tokens) "
            f"should take about {expected_burst_s(calibration):.1f} s; then {len(waiting)} requests trickle in"
        )
        if not calibration.has_chat_template:
            self._display.say("the model has no chat template: chats are sent as plain text")

    async def _round(self, client: sage.AsyncClient, policy: str, calibration: Calibration) -> Round:
        await client.set_policy(policy, reason="demonstration")
        status = await client.get_policy()
        summary = next((each.summary for each in status.available if each.name == policy), "")
        self._display.heading(f"{policy}: {summary}")
        began = time.monotonic()
        urgent = await self._play_all(client, burst(calibration), policy)
        waiting = await self._play_all(client, trickle(calibration), policy)
        duration_s = time.monotonic() - began
        this = Round(
            policy=policy,
            burst=urgent,
            trickle=waiting,
            switches=await _switches_since(client, policy, duration_s),
            duration_s=duration_s,
        )
        self._display.round(this)
        return this

    async def _play_all(self, client: sage.AsyncClient, plan: Sequence[Planned], policy: str) -> tuple[Outcome, ...]:
        async def one(planned: Planned) -> Outcome:
            outcome = await play(client, planned, model=self._model, prefix=policy)
            self._display.request(outcome)
            return outcome

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(planned), name=planned.name) for planned in plan]
        return tuple(task.result() for task in tasks)

    async def _close(self, client: sage.AsyncClient, rounds: dict[str, Round]) -> None:
        view = await client.list_instances()
        prices = {each.instance_id: each.price_per_hour for each in view.instances}
        self._display.heading("what the numbers show")
        for effect in effects(rounds, prices):
            self._display.say(str(effect))

    def _supervisor(self, loading: LoadingDisplay) -> Supervisor:
        def on_status(status: FleetStatus) -> None:
            self.sessions.update(each.pid for each in status.processes if each.pid is not None)
            loading.show(status)

        return Supervisor(
            scheduler_process(self._spec),
            executor_processes(self._spec),
            address=self._spec.address,
            state=self._state,
            probe=SchedulerProbe(self._spec.address),
            start_timeout_s=self._spec.start_timeout_s,
            on_status=on_status,
        )

    def _explain(self, error: StartFailed) -> list[str]:
        if tail := self._state.log_tail(error.culprit):
            self._display.say(f"the last lines of {error.culprit}'s log:")
            self._display.say("  " + tail.replace("\n", "\n  "))
        return [str(error)]


def deaths(status: FleetStatus) -> list[str]:
    """The processes that died since they were started, whether they were started again or not."""
    died = [each for each in status.processes if each.restarts or each.state != "running"]
    return [f"{each.name} died (status {each.last_exit}) while requests ran" for each in died]


async def _switches_since(client: sage.AsyncClient, policy: str, duration_s: float) -> tuple[sage.PolicySwitch, ...]:
    """What ``adaptive`` did in this round, oldest first."""
    if policy != "adaptive":
        return ()
    status = await client.get_policy()
    mine = [each for each in status.switches if each.ago_s < duration_s and each.to_policy != policy]
    return tuple(replace(each) for each in reversed(mine))


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted here, so that everything above stops in order."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    interrupted = False

    def on_signal() -> None:
        nonlocal interrupted
        interrupted = True
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    except asyncio.CancelledError:
        if interrupted:
            task.uncancel()
            raise Interrupted from None
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
