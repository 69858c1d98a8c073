"""The demonstration of the five policies: runs the same load under each and compares the results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import sage_client as sage
from sage_local.demo.calibration import Calibration, calibrate
from sage_local.demo.demo_fleet import run_on_fleet
from sage_local.demo.display import Display
from sage_local.demo.effects import effects
from sage_local.demo.outcome import Outcome, run_planned
from sage_local.demo.round import Round
from sage_local.demo.workload import Planned, burst, expected_burst_s, trickle
from sage_local.fleet.command_lines import served_name_of
from sage_local.fleet.ports import free_address
from sage_local.fleet.spec import FleetSpec

POLICIES = ("fifo", "priority", "slo_aware", "cost_optimized", "adaptive")
EXECUTORS = 2
MAX_RUNNING = 4  # sequences per executor at the same time; few, so that requests really queue
PRICES = (3.0, 1.0)  # per hour; ties go to the expensive instance
BURST_S = 5.0  # intended seconds of the burst under each policy
#: Seconds between the burst and the trickle under cost_optimized: what a burst needed stays in use for a while, as
#: instances are not switched off at once.  No other policy's placement depends on how long ago the burst was.
PAUSE_S = 60.0
ROUND_TIMEOUT_S = 600.0


def policy_demo_spec(engine: str, model: str) -> FleetSpec:
    """Return the spec of two executors on a free port of this machine."""
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


async def run_policy_demo(
    spec: FleetSpec, display: Display, *, burst_s: float = BURST_S, pause_s: float = PAUSE_S
) -> int:
    """Run the demonstration; return the exit status of ``run_on_fleet``, 0 only if every request finished."""
    return await run_on_fleet(spec, display, PolicyDemo(spec, display, burst_s=burst_s, pause_s=pause_s).run)


class PolicyDemo:
    """Runs the load under each policy on a fleet that is READY."""

    def __init__(self, spec: FleetSpec, display: Display, *, burst_s: float, pause_s: float) -> None:
        self._display = display
        self._burst_s = burst_s
        self._pause_s = pause_s
        self._model = served_name_of(spec)

    async def run(self, client: sage.AsyncClient) -> list[str]:
        """Run all rounds; return what went wrong."""
        try:
            calibration = await calibrate(client, burst_s=self._burst_s)
        except sage.SageError as error:
            return [f"a trial request failed: {error}"]
        await self._introduce(client, calibration)
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

    async def _introduce(self, client: sage.AsyncClient, calibration: Calibration) -> None:
        urgent, waiting = burst(calibration), trickle(calibration)
        self._display.say(
            f"measured: {calibration.tokens_per_s:.0f} tokens/s in all, {calibration.stream_tokens_per_s:.0f} per "
            f"stream; so the burst of {len(urgent)} requests ({sum(each.output_tokens for each in urgent)} tokens) "
            f"should take about {expected_burst_s(calibration):.1f} s; then {len(waiting)} requests trickle in"
        )
        if not calibration.has_chat_template:
            self._display.say("the model has no chat template: chats are sent as plain text")
        prices = {each.instance_id: each.price_per_hour for each in (await client.list_instances()).instances}
        for line in about_the_load([*urgent, *waiting], prices):
            self._display.say(line)

    async def _round(self, client: sage.AsyncClient, policy: str, calibration: Calibration) -> Round:
        began = time.monotonic()  # before the policy is set: adaptive may switch at once
        await client.set_policy(policy, reason="demonstration")
        status = await client.get_policy()
        summary = next((each.summary for each in status.available if each.name == policy), "")
        self._display.heading(f"{policy}: {summary}")
        urgent = await self._run_all(client, burst(calibration), policy)
        if policy == "cost_optimized":
            self._display.say(f"a pause of {self._pause_s:g} s, in which the instances that the burst needed fall idle")
            await asyncio.sleep(self._pause_s)
        waiting = await self._run_all(client, trickle(calibration), policy)
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

    async def _run_all(self, client: sage.AsyncClient, plan: Sequence[Planned], policy: str) -> tuple[Outcome, ...]:
        async def one(planned: Planned) -> Outcome:
            outcome = await run_planned(client, planned, model=self._model, prefix=policy)
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


def about_the_load(planned: Sequence[Planned], prices: Mapping[str, float]) -> list[str]:
    """Return what a reader must know of the load, the targets, the cost and the rows, a line each."""
    targets = {each.priority: each.ttft_target_s for each in planned}
    wanted = ", ".join(
        f"{priority.name} {targets[priority]:.1f} s" for priority in sage.Priority if priority in targets
    )
    per_hour = ", ".join(f"{name} {price:g}" for name, price in prices.items())
    return [
        "the burst begins with BACKGROUND and LOW requests, which take every slot, and ends with HIGH and CRITICAL;"
        " so under fifo BACKGROUND waits least",
        f"targets for the first token, the same in burst and trickle: {wanted}",
        f"prices per hour, in any currency: {per_hour}; a request costs its share of the engine's time at that price",
        "rows come in the order in which the requests end; b01, b02, ... are the burst and t01, t02, ... the trickle,"
        " numbered in the order in which they are sent",
    ]


async def _switches_since(client: sage.AsyncClient, policy: str, duration_s: float) -> tuple[sage.PolicySwitch, ...]:
    """Return the switches that ``adaptive`` made in this round, oldest first."""
    if policy != "adaptive":
        return ()
    status = await client.get_policy()
    mine = [each for each in status.switches if each.ago_s < duration_s and each.to_policy != policy]
    return tuple(replace(each) for each in reversed(mine))
