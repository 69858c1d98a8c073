"""Files and batches of a scheduler that runs no line: a test says what becomes of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from sage.controlplane.v1 import batch_pb2, inference_pb2, inference_pb2_grpc
from sage_wire.errors import ErrorReason
from tests.integration.clients.fake_session import bad_fields, refusal

Context = Any
_T = TypeVar("_T")

CREATED_S = 1_700_000_000
DEADLINE_S = 86_400
OVER = (
    batch_pb2.BATCH_STATE_COMPLETED,
    batch_pb2.BATCH_STATE_FAILED,
    batch_pb2.BATCH_STATE_EXPIRED,
    batch_pb2.BATCH_STATE_CANCELLED,
)


async def refuse(context: Context, reason: ErrorReason, message: str) -> None:
    await context.abort(reason.status, message, trailing_metadata=refusal(reason, message))


def answered(custom_id: str, text: str) -> bytes:
    """A line of an output file."""
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}
    response = {"status_code": 200, "request_id": "r", "body": body}
    return json.dumps({"id": "b", "custom_id": custom_id, "response": response, "error": None}).encode() + b"\n"


def failed(custom_id: str, code: str, message: str) -> bytes:
    """A line of an error file."""
    error = {"code": code, "message": message}
    return json.dumps({"id": "b", "custom_id": custom_id, "response": None, "error": error}).encode() + b"\n"


class FakeBatches(inference_pb2_grpc.InferenceServiceServicer):
    """The calls about files and batches, for one tenant."""

    def __init__(self) -> None:
        self.files: dict[str, batch_pb2.FileView] = {}
        self.contents: dict[str, bytes] = {}
        self.batches: dict[str, batch_pb2.BatchView] = {}
        self.submitted: list[inference_pb2.SubmitBatchRequest] = []
        self.uploads = 0  # calls that began
        self.largest_piece = 0  # bytes
        self.broken_uploads = 0  # so many end in the middle, as if the scheduler had gone
        self.refuses_uploads: ErrorReason | None = None  # after the first piece
        self.breaks_downloads_at: list[int] = []  # bytes sent of a call, one for each call that breaks
        self.piece_bytes = 1024  # of a download
        self.asked_before: dict[str, int] = {}  # how often, by batch
        self.ends_after = 3  # so many times that it was asked for, a batch is over
        self.tokens: list[str] = []  # what each call was authorized by

    def add_file(self, file_id: str, content: bytes, purpose: int = batch_pb2.FILE_PURPOSE_BATCH_OUTPUT) -> None:
        view = batch_pb2.FileView(
            file_id=file_id,
            tenant="acme",
            purpose=purpose,  # type: ignore[arg-type]  # a number of the enum
            bytes=len(content),
            created_at=Timestamp(seconds=CREATED_S + len(self.files)),
        )
        self.files[file_id], self.contents[file_id] = view, content

    def end_batch(self, batch_id: str, output: bytes = b"", errors: bytes = b"") -> None:
        """A batch is over, with these files."""
        batch = self.batches[batch_id]
        batch.state = batch_pb2.BATCH_STATE_COMPLETED
        batch.ended_at.FromSeconds(CREATED_S + 60)
        for suffix, content in (("output", output), ("errors", errors)):
            if content:
                self.add_file(f"{batch_id}-{suffix}", content)
        batch.output_file_id = f"{batch_id}-output" if output else ""
        batch.error_file_id = f"{batch_id}-errors" if errors else ""
        done, lost = output.count(b"\n"), errors.count(b"\n")
        batch.counts.CopyFrom(batch_pb2.BatchCounts(total=done + lost, completed=done, failed=lost))

    async def UploadFile(
        self, requests: AsyncIterator[batch_pb2.UploadFileRequest], context: Context
    ) -> batch_pb2.UploadFileResponse:
        self._note(context)
        self.uploads += 1
        new, content, complete = batch_pb2.NewFile(), bytearray(), False
        async for request in requests:
            if request.HasField("file"):
                new = request.file
            content += request.content
            complete = request.complete
            self.largest_piece = max(self.largest_piece, len(request.content))
            if request.content and self.broken_uploads:
                self.broken_uploads -= 1
                await context.abort(ErrorReason.NO_INSTANCE.status, "gone")
        if not complete:
            await refuse(context, ErrorReason.INVALID_REQUEST, "the upload broke off")
        if self.refuses_uploads is not None:
            await refuse(context, self.refuses_uploads, "no room for it")
        existed = new.file_id in self.files
        if existed and self.contents[new.file_id] != bytes(content):
            await refuse(context, ErrorReason.REQUEST_CONFLICT, f"file {new.file_id} has other content")
        self.add_file(new.file_id, bytes(content), batch_pb2.FILE_PURPOSE_BATCH)
        view = self.files[new.file_id]
        view.filename = new.filename
        if new.HasField("keep"):
            view.keep_until.FromSeconds(CREATED_S + new.keep.seconds)
        return batch_pb2.UploadFileResponse(file=view, existed=existed)

    async def GetFile(self, request: batch_pb2.GetFileRequest, context: Context) -> batch_pb2.GetFileResponse:
        return batch_pb2.GetFileResponse(file=await self._file(request.file_id, context))

    async def ListFiles(self, request: batch_pb2.ListFilesRequest, context: Context) -> batch_pb2.ListFilesResponse:
        self._note(context)
        found = [each for each in reversed(self.files.values()) if request.purpose in (0, each.purpose)]
        page, token = await self._page(found, "file_id", request.page_size, request.page_token, context)
        return batch_pb2.ListFilesResponse(files=page, next_page_token=token)

    async def DownloadFile(
        self, request: batch_pb2.DownloadFileRequest, context: Context
    ) -> AsyncIterator[batch_pb2.DownloadFileResponse]:
        view = await self._file(request.file_id, context)
        yield batch_pb2.DownloadFileResponse(file=view)
        content = self.contents[request.file_id][request.offset :]
        breaks_at = self.breaks_downloads_at.pop(0) if self.breaks_downloads_at else None
        for start in range(0, len(content), self.piece_bytes):
            if breaks_at is not None and start >= breaks_at:
                await context.abort(ErrorReason.NO_INSTANCE.status, "gone")
            yield batch_pb2.DownloadFileResponse(content=content[start : start + self.piece_bytes])

    async def DeleteFile(self, request: batch_pb2.DeleteFileRequest, context: Context) -> batch_pb2.DeleteFileResponse:
        await self._file(request.file_id, context)
        if any(b.input_file_id == request.file_id and b.state not in OVER for b in self.batches.values()):
            await refuse(context, ErrorReason.INVALID_TRANSITION, "a batch reads it")
        del self.files[request.file_id]
        return batch_pb2.DeleteFileResponse()

    async def SubmitBatch(
        self, request: inference_pb2.SubmitBatchRequest, context: Context
    ) -> inference_pb2.SubmitBatchResponse:
        await self._file(request.input_file_id, context)
        self.submitted.append(request)
        attached = request.batch_id in self.batches
        if not attached:
            batch = self.batches[request.batch_id] = batch_pb2.BatchView(
                batch_id=request.batch_id,
                tenant="acme",
                input_file_id=request.input_file_id,
                endpoint=request.endpoint,
                priority=request.priority,
                state=batch_pb2.BATCH_STATE_VALIDATING,
                metadata=request.metadata,
                created_at=Timestamp(seconds=CREATED_S),
            )
            batch.expires_at.FromSeconds(CREATED_S + (request.deadline.seconds or DEADLINE_S))
        return inference_pb2.SubmitBatchResponse(
            batch_id=request.batch_id, batch=self.batches[request.batch_id], attached=attached
        )

    async def GetBatch(self, request: batch_pb2.GetBatchRequest, context: Context) -> batch_pb2.GetBatchResponse:
        batch = await self._batch(request.batch_id, context)
        asked = self.asked_before[request.batch_id] = self.asked_before.get(request.batch_id, 0) + 1
        if batch.state not in OVER:
            lines = self.contents[batch.input_file_id].splitlines()
            batch.state = batch_pb2.BATCH_STATE_IN_PROGRESS
            batch.counts.CopyFrom(batch_pb2.BatchCounts(total=len(lines), completed=min(asked - 1, len(lines))))
            if asked >= self.ends_after:
                ids = [json.loads(line)["custom_id"] for line in lines]
                self.end_batch(request.batch_id, b"".join(answered(each, f"about {each}") for each in ids))
        return batch_pb2.GetBatchResponse(batch=batch)

    async def ListBatches(
        self, request: batch_pb2.ListBatchesRequest, context: Context
    ) -> batch_pb2.ListBatchesResponse:
        self._note(context)
        found = list(reversed(self.batches.values()))
        page, token = await self._page(found, "batch_id", request.page_size, request.page_token, context)
        return batch_pb2.ListBatchesResponse(batches=page, next_page_token=token)

    async def CancelBatch(
        self, request: batch_pb2.CancelBatchRequest, context: Context
    ) -> batch_pb2.CancelBatchResponse:
        batch = await self._batch(request.batch_id, context)
        cancelled = batch.state not in OVER
        if cancelled:
            batch.state = batch_pb2.BATCH_STATE_CANCELLED
            batch.cancelling_at.FromSeconds(CREATED_S + 30)
            batch.ended_at.FromSeconds(CREATED_S + 31)
        return batch_pb2.CancelBatchResponse(batch=batch, cancelled=cancelled)

    def _note(self, context: Context) -> None:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self.tokens.append(metadata.get("authorization", ""))

    async def _file(self, file_id: str, context: Context) -> batch_pb2.FileView:
        self._note(context)
        if file_id not in self.files:
            await refuse(context, ErrorReason.FILE_NOT_FOUND, f"no file {file_id!r}")
        return self.files[file_id]

    async def _batch(self, batch_id: str, context: Context) -> batch_pb2.BatchView:
        self._note(context)
        if batch_id not in self.batches:
            await refuse(context, ErrorReason.BATCH_NOT_FOUND, f"no batch {batch_id!r}")
        return self.batches[batch_id]

    async def _page(
        self, found: Sequence[_T], id_field: str, size: int, token: str, context: Context
    ) -> tuple[Sequence[_T], str]:
        ids = [getattr(each, id_field) for each in found]
        if token and token not in ids:
            message = f"page_token: there is no {token!r}"
            bad = bad_fields(page_token="is unknown")
            trailing = refusal(ErrorReason.INVALID_REQUEST, message, bad)
            await context.abort(ErrorReason.INVALID_REQUEST.status, message, trailing_metadata=trailing)
        start = ids.index(token) + 1 if token else 0
        page = found[start : start + (size or 100)]
        return page, ids[start + len(page) - 1] if start + len(page) < len(found) else ""
