"""The call that uploads a file."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

import grpc

from sage.controlplane.v1 import batch_pb2
from sage_client._channels import Channels
from sage_client._errors import UnavailableError, WaitTimeoutError
from sage_client._file_source import FileSource


def upload_call(at: Channels, source: FileSource) -> Callable[..., Awaitable[batch_pb2.UploadFileResponse]]:
    """Return the call that uploads the pieces of a source."""

    async def upload(
        new: batch_pb2.NewFile, *, timeout: float, metadata: Sequence[tuple[str, str]]
    ) -> batch_pb2.UploadFileResponse:
        call = at.inference.UploadFile(timeout=timeout, metadata=tuple(metadata))
        try:
            async with asyncio.timeout(timeout) as limit, aclosing(source.pieces()) as pieces:
                new.says_complete = True
                await call.write(batch_pb2.UploadFileRequest(file=new))
                async for piece in pieces:
                    await call.write(batch_pb2.UploadFileRequest(content=piece))
                await call.write(batch_pb2.UploadFileRequest(complete=True))
                await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # it has ended; its status says why
        except BaseException:
            call.cancel()
            if limit.expired():
                raise WaitTimeoutError(f"the upload did not end within {timeout:g} s") from None
            raise
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INTERNAL and not error.trailing_metadata():
                # gRPC puts a status of its own in place of the server's where a call ends while it is written to.
                raise UnavailableError(f"the upload broke: {error.details()}", status="INTERNAL") from None
            raise

    return upload
