"""The calls of InferenceService about files: UploadFile, GetFile, ListFiles, DownloadFile, DeleteFile."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator

from sage.controlplane.v1 import batch_pb2
from sage_common.clock import Clock
from sage_wire import durations
from sage_wire.batches import FILE_PIECE_BYTES
from scheduler_svc.access.identity import PermissionDenied
from scheduler_svc.control.batches.batches import Batches
from scheduler_svc.control.journal.batches import OwnedId
from scheduler_svc.control.timing.time_limit import TimeLimit
from scheduler_svc.domain.errors import DeadlineExceeded, FieldViolation, InvalidRequest, NoJournal, SchedulerError
from scheduler_svc.transport.batches.names import check_text, file_seen, owner, page, raise_any
from scheduler_svc.transport.batches.views import PURPOSE_TO_WIRE, file_view
from scheduler_svc.transport.violations import Violations

SILENCE_S = 30.0
"""How long an upload waits for its next message."""

UPLOAD_S = 3_600.0
"""How long an upload may take, however fast its client sends: others wait for its place."""

READ_ON_BYTES = 256 * 2**20
READ_ON_S = 10.0
"""How much of an upload is read on, and for how long, once it is refused.

A client that still writes when its call ends may be told that the stream broke, instead of why it was refused.
"""

ALL_PURPOSES = batch_pb2.FILE_PURPOSE_UNSPECIFIED

Uploaded = AsyncIterator[batch_pb2.UploadFileRequest]


class FileServicer:
    """Answers through ``Files``."""

    def __init__(self, batches: Batches | None, clock: Clock) -> None:
        """``batches``: None without a journal."""
        self._found = batches
        self._clock = clock

    @property
    def _batches(self) -> Batches:
        """Raises NoJournal."""
        if self._found is None:
            raise NoJournal
        return self._found

    async def upload(self, messages: Uploaded) -> batch_pb2.UploadFileResponse:
        """Take a file.

        Raises PermissionDenied, NoJournal, InvalidRequest, RequestConflict, TenantLimitReached, LimitReached,
        JournalUnavailable, and DeadlineExceeded for a client that sends nothing or takes too long; then nothing is
        kept.
        """
        try:
            async with TimeLimit(self._clock, self._clock.now() + UPLOAD_S, "while a file was uploaded"):
                return await self._upload(messages)
        except DeadlineExceeded:
            raise
        except (SchedulerError, PermissionDenied):
            await self._read_on(messages)
            raise

    async def _upload(self, messages: Uploaded) -> batch_pb2.UploadFileResponse:
        first = await self._next(messages)
        if first is None or not first.HasField("file"):
            raise _invalid("file", "is missing: the first message has it")
        new = first.file
        key = OwnedId(tenant=owner(new.tenant), id=new.file_id or f"file-{uuid.uuid4().hex}")
        _check(new, key)
        keep_s = durations.from_wire(new.keep) if new.HasField("keep") else None
        batches = self._batches
        pieces = self._pieces(first, messages)
        file, existed = await batches.files.upload(key, new.filename, keep_s, pieces)
        return batch_pb2.UploadFileResponse(file=file_view(file, batches), existed=existed)

    async def get(self, request: batch_pb2.GetFileRequest) -> batch_pb2.GetFileResponse:
        """Return what is known of a file.  Raises NoJournal, FileNotFound."""
        batches = self._batches
        file = batches.files.find(file_seen(request.tenant, request.file_id))
        return batch_pb2.GetFileResponse(file=file_view(file, batches))

    async def list(self, request: batch_pb2.ListFilesRequest) -> batch_pb2.ListFilesResponse:
        """Return a page of a tenant's files, the latest first.  Raises PermissionDenied, NoJournal, InvalidRequest."""
        tenant, batches, purpose = owner(request.tenant), self._batches, request.purpose
        if purpose and purpose not in PURPOSE_TO_WIRE.values():
            raise _invalid("purpose", f"{purpose} is not one of its values")
        of_tenant = batches.files.of_tenant(tenant)
        wanted = (each for each in of_tenant if purpose in (PURPOSE_TO_WIRE[each.purpose], ALL_PURPOSES))
        found, token = page(wanted, request.page_size, request.page_token)
        return batch_pb2.ListFilesResponse(files=[file_view(each, batches) for each in found], next_page_token=token)

    async def download(self, request: batch_pb2.DownloadFileRequest) -> AsyncGenerator[batch_pb2.DownloadFileResponse]:
        """Yield a file's content in messages.  Raises NoJournal, FileNotFound, InvalidRequest, JournalUnavailable."""
        batches, offset = self._batches, request.offset
        key = file_seen(request.tenant, request.file_id)
        file = batches.files.find(key)
        if offset > file.size_bytes:
            raise _invalid("offset", f"is {offset}; the file has {file.size_bytes} bytes")
        yield batch_pb2.DownloadFileResponse(file=file_view(file, batches))
        while offset < file.size_bytes:
            content = await batches.files.read(key, offset)
            content = content[: min(FILE_PIECE_BYTES, file.size_bytes - offset)]  # a batch may have written more
            if not content:
                return  # it was deleted meanwhile
            offset += len(content)
            yield batch_pb2.DownloadFileResponse(content=content)

    async def delete(self, request: batch_pb2.DeleteFileRequest) -> batch_pb2.DeleteFileResponse:
        """Delete a file.  Raises NoJournal, FileNotFound, InvalidTransition, JournalUnavailable."""
        await self._batches.files.delete(file_seen(request.tenant, request.file_id))
        return batch_pb2.DeleteFileResponse()

    # --- inside -------------------------------------------------------------------------------------

    async def _pieces(self, first: batch_pb2.UploadFileRequest, messages: Uploaded) -> AsyncIterator[bytes]:
        """Yield the content of an upload.  Raises InvalidRequest, DeadlineExceeded.

        A stream that its client cancelled, or whose connection broke, can end like one that its client closed.
        """
        yield _checked(first.content)
        complete = first.complete
        while (message := await self._next(messages)) is not None:
            if message.HasField("file"):
                raise _invalid("file", "is only in the first message")
            if complete:
                raise _invalid("complete", "was said before the last message")
            complete = message.complete
            yield _checked(message.content)
        if first.file.says_complete and not complete:
            raise _invalid("complete", "was not said: the upload broke off")

    async def _next(self, messages: Uploaded) -> batch_pb2.UploadFileRequest | None:
        """Return the next message; None at the end.  Raises DeadlineExceeded."""
        async with TimeLimit(self._clock, self._clock.now() + SILENCE_S, "while the next piece of a file was awaited"):
            return await anext(messages, None)

    async def _read_on(self, messages: Uploaded) -> None:
        """Read what a client sends on, for a while, and keep nothing of it."""
        size = 0
        try:
            async with TimeLimit(self._clock, self._clock.now() + READ_ON_S, "while a refused file was read"):
                async for message in messages:
                    size += len(message.content)
                    if size > READ_ON_BYTES:
                        return
        except SchedulerError:
            return


def _checked(content: bytes) -> bytes:
    if len(content) > FILE_PIECE_BYTES:
        raise _invalid("content", f"has {len(content)} bytes; the limit of a message is {FILE_PIECE_BYTES}")
    return content


def _check(new: batch_pb2.NewFile, key: OwnedId) -> None:
    """Raise InvalidRequest with every field at fault."""
    violations = Violations()
    check_text("file.file_id", new.file_id, violations)
    check_text("file.tenant", key.tenant, violations)
    check_text("file.filename", new.filename, violations)
    if new.purpose not in (batch_pb2.FILE_PURPOSE_UNSPECIFIED, batch_pb2.FILE_PURPOSE_BATCH):
        violations.add("file.purpose", "is not BATCH, the only one of files that are uploaded")
    raise_any(violations)


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([FieldViolation(field=field, description=description)])
