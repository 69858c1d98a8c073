"""Old and new schedulers, executors and SDKs together: each pairing streams, and fails over on the way."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from executor_svc.runtime.engine_port import Sampling
from tests.integration.skew import older_sources
from tests.integration.skew.older_sources import CHECKOUT, environment
from tests.support.fleet_processes import FleetProcesses
from tests.support.simulated_answer import ENDLESS, answer
from tests.support.token_check import assert_tokens

PROMPT = "Once upon a time"
LENGTH = 150
KILLED_AFTER = 20  # output tokens
BURST, BURST_LENGTH = 48, 8  # requests at once, tokens of each
SIMULATED = [
    *("--engine.kind", "simulated", "--model", "sim", "--engine.simulated.step-base-s=0.02"),
    f"--engine.simulated.mean-output-tokens={ENDLESS.mean_output_tokens}",
]
NEW, OLD = "new", "old"
PATIENCE_S = 60.0

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="session")
def checkouts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    older = tmp_path_factory.mktemp("older")
    older_sources.take_out(older)
    return {NEW: CHECKOUT, OLD: older}


@pytest.mark.parametrize(
    ("scheduler", "executors", "sdk"),
    [
        pytest.param(NEW, (OLD, OLD), NEW, id="old executors under a new scheduler"),
        pytest.param(NEW, (OLD, NEW), NEW, id="old and new executors under a new scheduler"),
        pytest.param(OLD, (NEW, NEW), OLD, id="new executors under an old scheduler"),
        pytest.param(NEW, (NEW, NEW), OLD, id="an old SDK with a new scheduler"),
        pytest.param(OLD, (OLD, OLD), NEW, id="a new SDK with an old scheduler"),
    ],
)
async def test_a_stream_goes_on_over_the_death_of_its_executor(
    scheduler: str, executors: tuple[str, str], sdk: str, checkouts: Mapping[str, Path], tmp_path: Path
) -> None:
    wanted = await answer(PROMPT, Sampling(temperature=0, max_tokens=LENGTH, ignore_eos=True))
    fleet = FleetProcesses(tmp_path, ["--policy", "fifo"], environment=environment(checkouts[scheduler]))
    async with fleet:
        for name, version in zip("ab", executors, strict=True):
            fleet.launch(name, SIMULATED, environment=environment(checkouts[version]))
        await fleet.ready("a", "b")
        async with streaming(fleet.address, checkouts[sdk]) as lines:
            events = await whole_stream(fleet, lines)
    done = events[-1]
    assert_tokens(done["all_token_ids"], wanted.token_ids)
    assert_tokens([token for event in events for token in event.get("token_ids", ())], wanted.token_ids)
    assert done["text"] == wanted.text
    assert done["attempts"] == 2
    assert {event["instance"] for event in events if "instance" in event} == {"a", "b"}


@pytest.mark.parametrize(
    ("scheduler", "executor"),
    [
        pytest.param(NEW, OLD, id="an old executor under a new scheduler"),
        pytest.param(OLD, NEW, id="a new executor under an old scheduler"),
        pytest.param(NEW, NEW, id="both new"),
    ],
)
async def test_a_burst_is_served(scheduler: str, executor: str, checkouts: Mapping[str, Path], tmp_path: Path) -> None:
    """A new scheduler sends the Assigns of a burst together only to an executor that reads them so."""
    wanted = await answer(PROMPT, Sampling(temperature=0, max_tokens=BURST_LENGTH, ignore_eos=True))
    fleet = FleetProcesses(tmp_path, ["--policy", "fifo"], environment=environment(checkouts[scheduler]))
    async with fleet:
        fleet.launch("a", SIMULATED, environment=environment(checkouts[executor]))
        await fleet.ready("a")
        async with fleet.client() as client:
            streams = [
                client.generate(PROMPT, temperature=0, max_tokens=BURST_LENGTH, ignore_eos=True, timeout=PATIENCE_S)
                for _ in range(BURST)
            ]
            all_done = await asyncio.gather(*(stream.result() for stream in streams))
    for done in all_done:
        assert_tokens(done.token_ids, wanted.token_ids)
    assert {done.attempts for done in all_done} == {1}


@pytest.mark.parametrize("version", [NEW, OLD])
def test_a_process_runs_the_sources_that_it_is_given(version: str, checkouts: Mapping[str, Path]) -> None:
    program = (
        "import executor_svc, sage_client, sage_wire.protocol, scheduler_svc.__main__, sys\n"
        "for name, module in list(sys.modules.items()):\n"
        "    if name.split('.')[0] in sys.argv[1:] and getattr(module, '__file__', None): print(module.__file__)"
    )
    rooms = ("executor_svc", "sage", "sage_client", "sage_wire", "scheduler_svc")
    printed = subprocess.run(
        [sys.executable, "-c", program, *rooms],
        env={**os.environ, **environment(checkouts[version])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(printed) > 100
    assert [path for path in printed if not Path(path).is_relative_to(checkouts[version])] == []


async def whole_stream(fleet: FleetProcesses, lines: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every event of the stream; the first executor is killed once KILLED_AFTER tokens are there."""
    events: list[dict[str, Any]] = []
    instance, tokens, killed = "", 0, False
    async with asyncio.timeout(PATIENCE_S):
        async for event in lines:
            events.append(event)
            instance = event.get("instance", instance)
            tokens += len(event.get("token_ids", ()))
            if tokens >= KILLED_AFTER and not killed:
                fleet.executors[instance].kill()
                fleet.executors.pop(instance).reap()
                killed = True
    return events


@asynccontextmanager
async def streaming(address: str, checkout: Path) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The events of one request, streamed by the SDK of ``checkout`` in a process of its own."""
    script = Path(__file__).with_name("stream_client.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        *(address, PROMPT, str(LENGTH)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **environment(checkout)},
    )
    try:
        yield _lines(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    assert process.stdout is not None
    async for line in process.stdout:
        yield json.loads(line)
