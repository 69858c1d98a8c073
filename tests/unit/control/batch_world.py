"""A scheduler with batches whose journal outlives it, in virtual time."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any, Self

from sage_common.virtual_clock import VirtualClock
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.batches.batches import Batches
from scheduler_svc.control.journal.batches import OwnedId, StoredBatch, StoredFile
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.domain.request import Priority
from scheduler_svc.wiring.control_plane import build_control
from scheduler_svc.wiring.earlier_scheduler import EarlierScheduler
from tests.support.memory_batch_store import MemoryBatchStore
from tests.support.raw_batches import jsonl, line
from tests.unit.control.world import EPOCH, KEY, NoTokenizers, World

WALL_S = 1.8e9
"""Seconds since 1970 when a test begins."""


class BatchWorld(World):
    """A world whose files and batches are kept in ``store``."""

    def __init__(
        self,
        *,
        store: MemoryBatchStore | None = None,
        epoch: int = EPOCH,
        expected: tuple[str, ...] = (),
        started_at: float = 0.0,
        **settings: Any,
    ) -> None:
        """``started_at``: seconds after the tests' beginning, on the wall clock."""
        super().__init__(policy="fifo", step_s=settings.pop("step_s", 0.01))
        self.store = store or MemoryBatchStore()
        self.clock = VirtualClock()
        self.started_at = started_at
        config = SchedulerConfig(policy=settings.pop("policy", "priority"), **settings)
        self.plane = build_control(
            config,
            self.clock,
            NoTokenizers(),
            epoch=epoch,
            earlier=EarlierScheduler(instances={each: EarlierInstance() for each in expected}, proofs=KEY),
            batch_store=self.store,
            wall_clock=self.wall,
        )

    def wall(self) -> float:
        return WALL_S + self.started_at + self.clock.now()

    async def __aenter__(self) -> Self:
        await self.batches.load()
        await super().__aenter__()
        self._tasks.append(asyncio.get_running_loop().create_task(self.batches.run()))
        return self

    @property
    def batches(self) -> Batches:
        assert self.plane.batches is not None
        return self.plane.batches

    async def file(self, lines: list[dict[str, Any]] | bytes, file_id: str = "in") -> StoredFile:
        content = lines if isinstance(lines, bytes) else jsonl(lines)

        async def pieces() -> Any:
            for start in range(0, len(content), 1_000):
                yield content[start : start + 1_000]

        return (await self.batches.files.upload(OwnedId(tenant="t", id=file_id), "in.jsonl", None, pieces()))[0]

    async def submit(  # type: ignore[override]  # a batch, not a request
        self, lines: list[dict[str, Any]] | bytes, *, batch_id: str = "b", deadline_s: float = 1_000.0, **changes: Any
    ) -> OwnedId:
        """Upload lines, and submit them as a batch."""
        file = await self.file(lines, f"in-{batch_id}")
        wanted: dict[str, Any] = {
            "key": OwnedId(tenant="t", id=batch_id),
            "digest": hashlib.sha256(file.digest).digest(),
            "input_file_id": file.key.id,
            "endpoint": "",
            "priority": Priority.BACKGROUND,
            "metadata": {},
            "created_at": self.wall(),
            "expires_at": self.wall() + deadline_s,
            "keep_s": 100.0,
            **changes,
        }
        return (await self.batches.submit(StoredBatch(**wanted)))[0].key

    def batch(self, key: OwnedId) -> StoredBatch:
        return self.batches.find(key)

    def results(self, key: OwnedId) -> tuple[dict[str, Any], dict[str, Any]]:
        """The lines of a batch's output and error files, by custom id; no line has two."""
        batch = self.store.batches[key]
        found = []
        for each in (batch.output, batch.error_output):
            lines = [json.loads(content) for content in self.store.content(each).splitlines()]
            by_id = {one["custom_id"]: one for one in lines}
            assert len(by_id) == len(lines), "a line has two results"
            found.append(by_id)
        assert not found[0].keys() & found[1].keys()
        return found[0], found[1]


def numbered(count: int, **body: Any) -> list[dict[str, Any]]:
    """Lines with the custom ids 0, 1, 2 ..."""
    return [line(str(number), prompt=[number + 1], **body) for number in range(count)]
