"""A process that is killed while it writes to its journal: what it was told is written is there, whole."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler_svc.storage.journal.journal import Journal, JournalSettings
from scheduler_svc.storage.journal.tables.decisions import FLEET_DECISIONS
from tests.support.postgres import running_postgres

KILLS = 5
AT_ONCE = 16

WRITING = """
import asyncio, sys
from scheduler_svc.storage.journal.journal import Journal, JournalSettings
from scheduler_svc.storage.journal.tables.decisions import FLEET_DECISIONS

def both(connection, name):
    for half in ("a", "b"):
        connection.execute(FLEET_DECISIONS.insert().values(name=f"{name}{half}", value="x" * 2_000, made_at=0.0))

async def write(journal, prefix):
    for number in range(100_000):
        name = f"{prefix}.{number}."
        await journal.writer.write(lambda connection: both(connection, name))
        print(name, flush=True)

async def main(url, start, at_once):
    journal = Journal(JournalSettings(url=url))
    journal.start()
    await asyncio.gather(*(write(journal, f"{start}.{each}") for each in range(int(at_once))))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/journal.db"
        return
    with running_postgres() as postgres:
        yield postgres.url


async def test_what_was_written_is_there_after_a_kill(url: str) -> None:
    told: list[str] = []
    for start in range(KILLS):
        command = (sys.executable, "-c", WRITING, url, str(start), str(AT_ONCE))
        writer = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(random.Random(start).randrange(10, 200)):
            told.append((await writer.stdout.readline()).decode().strip())
        writer.send_signal(signal.SIGKILL)
        told += (await writer.stdout.read()).decode().split("\n")[:-1]
        await writer.wait()
    journal = Journal(JournalSettings(url=url))
    rows = await journal.database.read(lambda connection: connection.execute(FLEET_DECISIONS.select()).all())
    await journal.close()
    found = {row.name for row in rows}
    assert len(told) > 10 * KILLS
    assert [name for name in told if f"{name}a" not in found or f"{name}b" not in found] == []
    assert {name[:-1] for name in found if name.endswith("a")} == {name[:-1] for name in found if name.endswith("b")}
