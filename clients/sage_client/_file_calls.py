"""Calls about the files that the scheduler keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sage.controlplane.v1 import batch_pb2
from sage_client import _decode_batches as decode
from sage_client._batches import FilePurpose, StoredFile
from sage_client._durations import Seconds, timeout_of
from sage_client._errors import RecoveringError, UnavailableError
from sage_client._file_source import Content, file_source
from sage_client._file_upload import upload_call
from sage_client._leader_calls import LeaderCalls
from sage_client._retry import until_answered


class FileCalls(LeaderCalls):
    """The calls about files.

    Attributes:
        _tenant: of files that are named without one.
    """

    _tenant: str

    async def upload_file(
        self,
        content: Content,
        *,
        file_id: str | None = None,
        name: str | None = None,
        keep: Seconds | None = None,
        tenant: str | None = None,
        timeout: Seconds | None = None,
    ) -> StoredFile:
        """Upload a file with the lines of a batch; it is read and sent in pieces.

        The call is sent again by itself if the scheduler is away for a while, unless ``content`` can be read only once.
        The same id and content again give the same file.

        Args:
            content: the path of a file, its bytes, or something that yields them.
            file_id: unique within the tenant; None: a random one.
            name: for the owner's own use; None: that of a path.
            keep: how long it is kept; None: the scheduler's default.  A file that a batch needs is kept longer.
            tenant: whose; None: the client's.
            timeout: that the call may take; None: the client's ``stream_timeout``.

        Raises:
            RequestConflictError: the id is that of a file with other content.
            TenantLimitError: the tenant's files are at their limit, in number or bytes.
            NoJournalError: the scheduler has no journal.
        """
        source = file_source(content)
        new = decode.new_file(file_id, self._of(tenant), source.name if name is None else name, keep)
        wait_s = self._stream_timeout_s(timeout)

        async def send(left_s: float) -> batch_pb2.UploadFileResponse:
            return await self._ask(lambda at: upload_call(at, source), new, timeout=left_s)

        if source.repeatable:
            return decode.stored_file((await until_answered(send, self._reconnect, wait_s)).file)
        # Finds the scheduler that leads before anything of what can be read only once is sent.
        await self._repeated(
            lambda at: at.inference.ListFiles, batch_pb2.ListFilesRequest(tenant=new.tenant, page_size=1)
        )
        return decode.stored_file((await send(wait_s)).file)

    async def get_file(self, file_id: str, *, tenant: str | None = None) -> StoredFile:
        """Return what is known of a file.

        Raises:
            StoredFileNotFoundError: no file has the id.
        """
        request = batch_pb2.GetFileRequest(file_id=file_id, tenant=self._of(tenant))
        return decode.stored_file((await self._repeated(lambda at: at.inference.GetFile, request)).file)

    async def list_files(
        self,
        *,
        purpose: FilePurpose | str | None = None,
        after: str = "",
        tenant: str | None = None,
        page_size: int = 0,
    ) -> AsyncGenerator[StoredFile, None]:
        """Yield a tenant's files, the latest first, page by page.

        Args:
            purpose: only files that are for this; None: all.
            after: id of the file after which the list begins; empty: from the start.
            tenant: whose; None: the client's.
            page_size: files per call; 0: the scheduler's default.

        Raises:
            ValueError: there is no such purpose.
            InvalidRequestError: there is no file ``after``.
        """
        request = batch_pb2.ListFilesRequest(
            tenant=self._of(tenant), purpose=decode.purpose_number(purpose), page_size=page_size, page_token=after
        )
        while True:
            page = await self._repeated(lambda at: at.inference.ListFiles, request)
            for each in page.files:
                yield decode.stored_file(each)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def read_file(
        self, file_id: str, *, offset: int = 0, tenant: str | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield the content of a file in pieces, at most 1 MiB each; it goes on by itself if the connection breaks.

        Of a file that a batch still writes, what is there so far.

        Args:
            file_id: of the file.
            offset: bytes to leave out from the start.
            tenant: whose file; None: the client's.

        Raises:
            StoredFileNotFoundError: no file has the id.
            InvalidRequestError: ``offset`` is behind the file's end.
        """
        request = batch_pb2.DownloadFileRequest(file_id=file_id, tenant=self._of(tenant), offset=offset)
        broken = 0
        while True:
            try:
                async with aclosing(self._pages(lambda at: at.inference.DownloadFile, request)) as pages:
                    async for page in pages:
                        if page.content:
                            broken, request.offset = 0, request.offset + len(page.content)
                            yield page.content
                return
            except (UnavailableError, RecoveringError):
                broken += 1
                if broken > self._reconnect.attempts:
                    raise
            await asyncio.sleep(self._reconnect.delay_s(broken))

    async def delete_file(self, file_id: str, *, tenant: str | None = None) -> None:
        """Delete a file.

        Raises:
            StoredFileNotFoundError: no file has the id; also if the call was sent again and the first one deleted it.
            InvalidStateError: a batch that has not ended reads or writes it.
        """
        request = batch_pb2.DeleteFileRequest(file_id=file_id, tenant=self._of(tenant))
        await self._repeated(lambda at: at.inference.DeleteFile, request)

    def _of(self, tenant: str | None) -> str:
        return self._tenant if tenant is None else tenant

    def _stream_timeout_s(self, timeout: Seconds | None) -> float:
        return timeout_of(timeout, None, default_s=self._stream_timeout, grace_s=0.0)
