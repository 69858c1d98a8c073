"""An upload that breaks off keeps nothing, although its stream ends like one that was closed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sage.controlplane.v1 import batch_pb2
from scheduler_svc.access.caller import set_caller
from scheduler_svc.access.identity import ANYONE
from scheduler_svc.domain.errors import InvalidRequest
from scheduler_svc.transport.batches.file_servicer import FileServicer
from tests.unit.control.batch_world import BatchWorld

PIECE = batch_pb2.UploadFileRequest(content=b"x")
LAST = batch_pb2.UploadFileRequest(complete=True)


async def upload(world: BatchWorld, *rest: batch_pb2.UploadFileRequest, says_complete: bool = True) -> int:
    """Return the bytes that were kept."""
    set_caller(ANYONE)

    async def messages() -> AsyncIterator[batch_pb2.UploadFileRequest]:
        new = batch_pb2.NewFile(file_id="f", tenant="t", says_complete=says_complete)
        yield batch_pb2.UploadFileRequest(file=new)
        for each in rest:
            yield each

    answer = await FileServicer(world.batches, world.clock).upload(messages())
    return answer.file.bytes


async def test_an_upload_that_says_complete_is_kept() -> None:
    async with BatchWorld() as world:
        assert await upload(world, PIECE, PIECE, LAST) == 2


async def test_so_is_one_of_a_client_that_does_not_say_it() -> None:
    async with BatchWorld() as world:
        assert await upload(world, PIECE, says_complete=False) == 1


@pytest.mark.parametrize("rest", [(), (PIECE,), (LAST, PIECE)])
async def test_one_that_breaks_off_or_goes_on_keeps_nothing(rest: tuple[batch_pb2.UploadFileRequest, ...]) -> None:
    async with BatchWorld() as world:
        with pytest.raises(InvalidRequest, match="complete"):
            await upload(world, *rest)
        assert not list(world.batches.files.of_tenant("t"))
