"""What the journal takes and costs.

Durable accepts: rows of 2 KiB, each waited for until it is on the disk, by many callers at once; how many share a
transaction is said.  Interactive requests: CPU of the scheduler per request with a journal over that without, both
schedulers up throughout, in pairs whose order alternates; every request leaves a usage record, and none waits.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import grpc
from sqlalchemy import Connection

from scheduler_svc.storage.journal.journal import Journal, JournalSettings
from scheduler_svc.storage.journal.tables.decisions import FLEET_DECISIONS
from tests.bench.light_plane import LightPlane, light_plane
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.short_requests import over_session
from tests.bench.telemetry_cost import upper_bound
from tests.bench.workload import Workload
from tests.support.postgres import running_postgres

CALLERS = (1, 64, 512)
ROW_BYTES = 2_048
STREAMS = 32
LENGTHS = {4: 1.0, 64: 0.16, 256: 0.05}
"""Output tokens of a request, and which share of the requests a turn with such requests has."""

PROMPT_TOKENS = 32
STEP_S = 0.004
SETTLE_S = 1.5  # longer than records wait to be written
TARGETS = {"SQLite": ">= 2,000", "PostgreSQL": ">= 1,000"}


async def measure(*, rounds: int, seconds: float, pairs: int, requests: int) -> list[Row]:
    rows = []
    for name, database in databases().items():
        with database() as url:
            for callers in CALLERS:
                rows.append(await _accepts(name, url, callers, rounds, seconds))
    for tokens, share in LENGTHS.items():
        rows += await interactive(tokens, pairs, round(share * requests))
    return rows


def databases() -> dict[str, Callable[[], AbstractContextManager[str]]]:
    """Return what makes a journal's database and gives its URL, by name."""
    return {"SQLite": _sqlite, "PostgreSQL": _postgresql}


@contextmanager
def _sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:  # a disk: /tmp may be memory
        yield f"sqlite:///{folder}/journal.db"


@contextmanager
def _postgresql() -> Iterator[str]:
    with running_postgres(fsync=True) as server:
        yield server.url


async def _accepts(name: str, url: str, callers: int, rounds: int, seconds: float) -> Row:
    rates, batches, waits = [], [], []
    for _ in range(rounds):
        journal = await asyncio.to_thread(Journal, JournalSettings(url=url))
        journal.start()
        before, started = journal.writer.figures, time.perf_counter()
        waits += await _load(journal, callers, started + seconds)
        took_s, after = time.perf_counter() - started, journal.writer.figures
        await journal.close()
        rates.append((after.writes - before.writes) / took_s)
        batches.append((after.writes - before.writes) / (after.commits - before.commits))
    note = (
        f"{statistics.median(batches):.1f} a transaction; each waits {1e3 * statistics.median(waits):.1f} ms (median)"
    )
    return Row(
        benchmark=f"durable accepts, {name}",
        case=f"{callers} callers, rows of {ROW_BYTES:,} bytes",
        unit="accepts/s",
        target=TARGETS[name] if callers == max(CALLERS) else "",
        note=note,
        **spread(rates),
    )


async def _load(journal: Journal, callers: int, until: float) -> list[float]:
    """Write until then; return what single writes waited, in seconds."""
    names, waits = count(time.time_ns()), list[float]()

    async def write() -> None:
        while (began := time.perf_counter()) < until:
            await journal.writer.write(partial(_insert, f"{next(names)}"), ROW_BYTES)
            waits.append(time.perf_counter() - began)

    await asyncio.gather(*(write() for _ in range(callers)))
    return waits


def _insert(name: str, connection: Connection) -> None:
    connection.execute(FLEET_DECISIONS.insert().values(name=name, value="x" * ROW_BYTES, made_at=0.0))


async def interactive(tokens: int, pairs: int, requests: int) -> list[Row]:
    """Compare requests of a length with a journal and without; ``requests``: in each turn."""
    off, on = list[float](), list[float]()
    async with _plane("none") as (silent, silent_channel), _plane("") as (writing, writing_channel):
        arms = [(silent, silent_channel, off), (writing, writing_channel, on)]
        for number in range(pairs + 1):
            for plane, channel, costs in arms if number % 2 else reversed(arms):
                costs.append(await _turn(plane, channel, number, tokens, requests))
    ratios = [one / other for one, other in zip(on[1:], off[1:], strict=True)]
    cost = upper_bound([ratio - 1 for ratio in ratios])
    per_request = [statistics.median(arm[1:]) for arm in (on, off)]
    note = f"cost at most {cost:.1%} (95 %); {per_request[0]:.3f} after {per_request[1]:.3f} CPU ms a request"
    return [
        Row(
            benchmark="interactive requests with a journal",
            case=f"{tokens} tokens, one session, a usage record each; {pairs} pairs of {requests:,}",
            unit="of without",
            target="cost <= 1%",
            note=note,
            **spread(ratios),
        )
    ]


@asynccontextmanager
async def _plane(url: str) -> AsyncIterator[tuple[LightPlane, grpc.aio.Channel]]:
    """Give a control plane whose state directory has a journal, or none for the URL `none`."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        flags = ["--state-dir", folder, *(["--journal.url", url] if url else [])]
        async with (
            light_plane(executors=2, step_s=STEP_S, scheduler_flags=flags) as plane,
            grpc.aio.insecure_channel(plane.address) as channel,
        ):
            await asyncio.sleep(SETTLE_S)
            yield plane, channel


async def _turn(plane: LightPlane, channel: grpc.aio.Channel, number: int, tokens: int, requests: int) -> float:
    """CPU milliseconds of the scheduler per request, until its usage record is written."""
    workload = Workload(streams=STREAMS, prompt_tokens=PROMPT_TOKENS, max_tokens=tokens, seed=number)
    before = plane.scheduler.cpu_s()
    await over_session(channel, workload, requests)
    await asyncio.sleep(SETTLE_S)
    return (plane.scheduler.cpu_s() - before) / requests * 1e3
