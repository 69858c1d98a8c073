"""The simulator, fitted to what the scheduler recorded of a real engine, says what was measured there.

One engine gets everything: among several, the scheduler places by what it has learned of each since its start, which a
replay does not know.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import monotonic

import pytest

from sage_client import AsyncClient, InstanceState
from sage_simulator.calibration.calibration import calibrate
from sage_simulator.calibration.replay import Replay, replay
from sage_simulator.traces.recording.log_reader import read_log
from sage_simulator.traces.recording.recorded_lines import RecordedLog, RecordedRequest
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.vllm.system.engine_settings import MAX_MODEL_LEN, NAMES

pytestmark = [pytest.mark.vllm]

RUNS = 5
RUN_S = 5.0
RATE = 15.0  # requests per second: often several at once
ENGINE, DRAINED = NAMES
PAUSE_S = 1.5  # after a run, so that the load of the next is told apart
WITHIN = 0.20  # of the measured time, median over the runs
ALIKE = 0.10  # by which repeated runs may differ for the verdict to count

Load = list[tuple[float, int, int]]
"""Arrival in seconds, prompt tokens, output tokens."""


def make_load() -> Load:
    rng, at, found = random.Random(7), 0.0, []
    while (at := at + rng.expovariate(RATE)) < RUN_S:
        prompt = min(max(16, int(rng.lognormvariate(4.8, 0.8))), MAX_MODEL_LEN // 2)
        found.append((at, prompt, min(max(4, int(rng.lognormvariate(3.4, 0.6))), 150)))
    return found


async def play(client: AsyncClient, load: Load, name: str) -> None:
    """Send the same load with prompts that no run before had: nothing of them is in a prefix cache."""
    rng, began = random.Random(name), monotonic()

    async def send(at: float, prompt: int, output: int) -> None:
        token_ids = [rng.randrange(10, 500) for _ in range(prompt)]
        await asyncio.sleep(max(0.0, began + at - monotonic()))
        await client.generate(
            token_ids=token_ids, max_tokens=output, ignore_eos=True, temperature=0, session=name
        ).result()

    await asyncio.gather(*(send(*each) for each in load))


def runs_in(log: RecordedLog) -> list[list[RecordedRequest]]:
    """The requests of each run; the name of the run is its session, hashed."""
    found: dict[str, list[RecordedRequest]] = {}
    for each in sorted(log.requests, key=lambda request: request.arrival_s):
        if each.session:
            found.setdefault(each.session, []).append(each)
    return list(found.values())


def replayed(log: RecordedLog, requests: list[RecordedRequest]) -> Replay:
    """Fit the engine to this run alone, because other work on the machine changes its pace from run to run."""
    until_s = max(each.ended_s for each in requests) + PAUSE_S / 3
    window = log.between(requests[0].arrival_s, until_s)
    engine = tuple(each for each in log.instances if each.instance == ENGINE)
    return replay(requests, calibrate(replace(window, instances=engine)).fleet)


@pytest.fixture
async def lone(fleet: FleetProcesses, client: AsyncClient) -> AsyncIterator[AsyncClient]:
    """A client of a fleet of which one engine takes requests."""
    await client.set_policy("fifo")
    await client.drain_instance(DRAINED)
    yield client
    await client.resume_instance(DRAINED)
    await fleet.until(DRAINED, InstanceState.READY)


async def test_ttft_and_tpot_are_those_that_were_measured(lone: AsyncClient, recording: Path) -> None:
    client = lone
    load = make_load()
    for run in range(-1, RUNS):
        await play(client, load, f"run {run}")
        await asyncio.sleep(PAUSE_S)
    await eventually(lambda: len(runs_in(read_log(recording))[-1]) == len(load), what="the last request")
    log = read_log(recording)
    found = [replayed(log, requests) for requests in runs_in(log)[-RUNS:]]
    off: dict[str, float] = {}
    differ: dict[str, float] = {}
    for name in found[0].measured.figures():
        measured = [value for each in found if (value := each.measured.figures()[name]) is not None]
        errors = [error for each in found if (error := each.errors()[name]) is not None]
        assert len(measured) == len(errors) == RUNS
        off[name] = median(errors)
        differ[name] = (max(measured) - min(measured)) / median(measured)
        ms, shares = ([f"{1e3 * each:.1f}" for each in measured], [f"{each:+.0%}" for each in errors])
        print(f"{name}: measured {', '.join(ms)} ms, simulated {', '.join(shares)} off")
    report = "; ".join(f"{name} off by {off[name]:+.0%}, runs differ by {differ[name]:.0%}" for name in off)
    print(report)
    if all(abs(error) <= WITHIN for error in off.values()):
        return
    if max(differ.values()) > ALIKE:
        pytest.skip(f"no verdict, as repeated runs differ among themselves: {report}")
    raise AssertionError(report)
