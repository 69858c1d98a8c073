"""Many requests at once: how long until the last of them is at its executor, and what each process pays for one.

Executors cost next to nothing.  The client is the SDK in a process of its own; requests go over one session, or over
Generate, and are read as events.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from sage_client import AsyncClient, Tokens
from tests.bench.child import Child, child
from tests.bench.light_plane import LightPlane, light_plane
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.workload import Workload

READY = "burst client: ready"
RESULT = "burst client: result "
START_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 60.0
PROMPT_TOKENS = 32
MAX_TOKENS = 4
STEP_S = 0.025
SETTLE_S = 0.7  # until the scheduler has the first heartbeats


@dataclass(frozen=True, kw_only=True, slots=True)
class Burst:
    """One burst: seconds from the first submission on, ascending, and CPU seconds."""

    submitted: list[float]
    assigned: list[float]  # when each Assign was at its executor
    first_tokens: list[float]
    client_s: float
    scheduler_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What the client tells of a burst."""

    submitted: list[float]
    assigned: list[float]
    first_tokens: list[float]
    client_s: float


async def measure(*, rounds: int, streams: int, over_session: bool = True) -> list[Row]:
    """Bursts of ``streams`` requests, one after the other."""
    way = "session" if over_session else "generate"
    async with light_plane(executors=1, step_s=STEP_S) as plane, _client(plane.address, way) as client:
        await asyncio.sleep(SETTLE_S)
        bursts = [await _burst(plane, client, streams, number) for number in range(rounds + 1)][1:]
    return _rows(f"a burst of {streams} requests, {way}", streams, bursts)


async def _burst(plane: LightPlane, client: Child, streams: int, number: int) -> Burst:
    workload = Workload(streams=streams, prompt_tokens=PROMPT_TOKENS, max_tokens=MAX_TOKENS, seed=number)
    before = plane.scheduler.cpu_s()
    await client.tell(json.dumps(asdict(workload)))
    told = json.loads((await client.wait_for(RESULT, RUN_TIMEOUT_S)).partition(RESULT)[2])
    await asyncio.sleep(0.1)
    return Burst(**told, scheduler_s=plane.scheduler.cpu_s() - before)


def _rows(benchmark: str, streams: int, bursts: list[Burst]) -> list[Row]:
    def times(name: str) -> tuple[list[float], str]:
        each = [getattr(burst, name) for burst in bursts]
        first = statistics.median(one[0] for one in each) * 1e3
        middle = statistics.median(statistics.median(one) for one in each) * 1e3
        return [one[-1] * 1e3 for one in each], f"the first {first:.0f}, the median {middle:.0f} ms"

    rows = []
    for name, case in (
        ("submitted", "the last request is given to the SDK"),
        ("assigned", "the last Assign is at its executor"),
        ("first_tokens", "the last first token is at the client"),
    ):
        figures, note = times(name)
        rows.append(Row(benchmark=benchmark, case=case, unit="ms", note=note, **spread(figures)))
    for name, case in (("client_s", "client"), ("scheduler_s", "scheduler")):
        figures = [getattr(burst, name) / streams * 1e3 for burst in bursts]
        note = f"{MAX_TOKENS} tokens included"
        rows.append(Row(benchmark=benchmark, case=case, unit="CPU ms / request", note=note, **spread(figures)))
    return rows


@asynccontextmanager
async def _client(address: str, way: str) -> AsyncIterator[Child]:
    async with child("burst client", "tests.bench.burst", address, way) as process:
        await process.wait_for(READY, START_TIMEOUT_S)
        yield process


# --- the child's side -----------------------------------------------------------------------------------------------


async def _run(client: AsyncClient, workload: Workload) -> Told:
    submitted, assigned, first_tokens = [], [], []

    async def one(prompt: list[int]) -> None:
        submitted.append(time.monotonic())
        stream = client.generate(
            token_ids=prompt,
            max_tokens=workload.max_tokens,
            ignore_eos=True,
            temperature=0.0,
            timeout=RUN_TIMEOUT_S,
        )
        began = False
        async for event in stream:
            if not began and isinstance(event, Tokens):
                began = True
                first_tokens.append(time.monotonic())
                assigned.append(int(event.text.split()[0]) / 1e9)

    prompts = workload.prompts()
    cpu_s = time.process_time()
    await asyncio.gather(*map(one, prompts))
    client_s = time.process_time() - cpu_s
    start = min(submitted)
    seconds = (sorted(at - start for at in each) for each in (submitted, assigned, first_tokens))
    return Told(**dict(zip(("submitted", "assigned", "first_tokens"), seconds, strict=True)), client_s=client_s)


async def _serve(address: str, way: str) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with AsyncClient(address, use_sessions=way == "session") as client:
        print(READY, flush=True)
        while line := await lines.readline():
            print(RESULT + json.dumps(asdict(await _run(client, Workload(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2]))
