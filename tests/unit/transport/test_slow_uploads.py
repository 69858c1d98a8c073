"""How long a client may take to upload a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sage.controlplane.v1 import batch_pb2
from scheduler_svc.access.caller import set_caller
from scheduler_svc.access.identity import ANYONE
from scheduler_svc.domain.errors import DeadlineExceeded
from scheduler_svc.transport.batches import file_servicer
from scheduler_svc.transport.batches.file_servicer import SILENCE_S, FileServicer
from tests.unit.control.batch_world import BatchWorld

UPLOAD_S = 100.0


@pytest.mark.parametrize(("pause_s", "ends_within_s"), [(SILENCE_S + 1, SILENCE_S), (SILENCE_S - 1, UPLOAD_S)])
async def test_an_upload_ends_that_never_would(
    pause_s: float, ends_within_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_servicer, "UPLOAD_S", UPLOAD_S)
    set_caller(ANYONE)
    async with BatchWorld() as world:

        async def messages() -> AsyncIterator[batch_pb2.UploadFileRequest]:
            yield batch_pb2.UploadFileRequest(file=batch_pb2.NewFile(file_id="f", tenant="t"))
            while True:
                await world.clock.sleep(pause_s)
                yield batch_pb2.UploadFileRequest(content=b"x")

        upload = asyncio.create_task(FileServicer(world.batches, world.clock).upload(messages()))
        await world.advance(ends_within_s + 1)
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(upload, 1)
        assert not list(world.batches.files.of_tenant("t"))
