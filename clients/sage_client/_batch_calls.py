"""Calls about batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from sage.controlplane.v1 import batch_pb2
from sage_client import _decode_batches as decode
from sage_client._batch_lines import answer_of_line, lines_of
from sage_client._batch_wait import BatchWait
from sage_client._batches import Batch, BatchAnswer, BatchOutcome, BatchState
from sage_client._durations import Seconds, seconds_of
from sage_client._enums import Priority
from sage_client._errors import BatchFailedError
from sage_client._file_calls import FileCalls
from sage_client._file_source import Content

FIRST_POLL_S = 0.1
"""Seconds until a batch that is waited for is asked for again; they double up to ``poll``."""

POLL_S = 2.0
INPUT_SUFFIX = "-input"
"""What the id of a batch's input file has after the batch's, where the SDK uploads it."""


class BatchCalls(FileCalls):
    """The calls about batches, and about their files."""

    async def submit_batch(
        self,
        input_file_id: str,
        *,
        endpoint: str = "",
        batch_id: str | None = None,
        deadline: Seconds | None = None,
        priority: Priority | int | str | None = None,
        metadata: Mapping[str, str] | None = None,
        keep_result: Seconds | None = None,
        tenant: str | None = None,
    ) -> Batch:
        """Have the scheduler run the lines of a file.  It needs no client from here on, and survives the scheduler.

        Returns once the batch is written down.  The same id and content again give the same batch, so the SDK repeats
        a call whose connection breaks.

        Args:
            input_file_id: of a file that was uploaded.
            endpoint: what all lines ask for: "/v1/chat/completions", "/v1/completions" or "/v1/embeddings"; empty: each
                line says its own.
            batch_id: unique within the tenant; None: a random one.
            deadline: how long it may take; None: the scheduler's default, a day.
            priority: class of lines that name none; None: BACKGROUND.
            metadata: for the owner's own use; at most 16 texts by their keys.
            keep_result: how long the batch and its files are kept after its end; None: the scheduler's default.
            tenant: whose; None: the client's.

        Raises:
            StoredFileNotFoundError: no file has the id.
            RequestConflictError: the id is that of another batch.
            TenantLimitError: the tenant's batches are at their limit.
            NoJournalError: the scheduler has no journal.
        """
        request = decode.submit_batch_request(
            input_file_id,
            self._of(tenant),
            endpoint=endpoint,
            batch_id=batch_id,
            deadline=deadline,
            priority=priority,
            metadata=metadata or {},
            keep_result=keep_result,
        )
        return decode.batch((await self._repeated(lambda at: at.inference.SubmitBatch, request)).batch)

    async def get_batch(self, batch_id: str, *, tenant: str | None = None) -> Batch:
        """Return a batch as it is now.

        Raises:
            BatchNotFoundError: no batch has the id.
        """
        request = batch_pb2.GetBatchRequest(batch_id=batch_id, tenant=self._of(tenant))
        return decode.batch((await self._repeated(lambda at: at.inference.GetBatch, request)).batch)

    async def list_batches(
        self, *, after: str = "", tenant: str | None = None, page_size: int = 0
    ) -> AsyncGenerator[Batch, None]:
        """Yield a tenant's batches, the latest first, page by page; see ``list_files``."""
        request = batch_pb2.ListBatchesRequest(tenant=self._of(tenant), page_size=page_size, page_token=after)
        while True:
            page = await self._repeated(lambda at: at.inference.ListBatches, request)
            for each in page.batches:
                yield decode.batch(each)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def cancel_batch(self, batch_id: str, *, tenant: str | None = None) -> Batch:
        """Cancel a batch, and return it; idempotent.  Its files keep what had finished.

        Raises:
            BatchNotFoundError: no batch has the id.
        """
        request = batch_pb2.CancelBatchRequest(batch_id=batch_id, tenant=self._of(tenant))
        return decode.batch((await self._repeated(lambda at: at.inference.CancelBatch, request)).batch)

    async def watch_batch(
        self, batch_id: str, *, poll: Seconds = POLL_S, tenant: str | None = None
    ) -> AsyncGenerator[Batch, None]:
        """Yield a batch at once and again and again until it is over, over restarts of the scheduler.

        Args:
            batch_id: of the batch.
            poll: longest time between two questions.
            tenant: whose; None: the client's.

        Raises:
            BatchNotFoundError: no batch has the id.
        """
        pause_s, longest_s = FIRST_POLL_S, max(seconds_of(poll), FIRST_POLL_S)
        while True:
            batch = await self.get_batch(batch_id, tenant=tenant)
            yield batch
            if batch.ended:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, longest_s)

    async def wait_batch(
        self,
        batch_id: str,
        *,
        on_progress: Callable[[Batch], None] | None = None,
        poll: Seconds = POLL_S,
        timeout: Seconds | None = None,
        tenant: str | None = None,
    ) -> Batch:
        """Wait until a batch is over, over restarts of the scheduler, and return it.

        Args:
            batch_id: of the batch.
            on_progress: called with the batch each time that it was asked for.
            poll: longest time between two questions.
            timeout: how long to wait; None: until 5 minutes after the batch's deadline.
            tenant: whose; None: the client's.

        Raises:
            BatchNotFoundError: no batch has the id.
            WaitTimeoutError: it is not over; it goes on.
        """
        clock = asyncio.get_running_loop().time
        wait = BatchWait(timeout, clock)
        async with aclosing(self.watch_batch(batch_id, poll=poll, tenant=tenant)) as seen:
            async for batch in seen:
                if on_progress is not None:
                    on_progress(batch)
                wait.check(batch)
        return batch

    async def batch_answers(self, batch: Batch) -> AsyncGenerator[BatchAnswer, None]:
        """Yield what became of a batch's lines: the answers as they ended, then those that failed.

        Raises:
            StoredFileNotFoundError: a file was deleted.
        """
        for file_id in (batch.output_file_id, batch.error_file_id):
            if not file_id:
                continue
            async with aclosing(self.read_file(file_id, tenant=batch.tenant)) as pieces:
                async for line in lines_of(pieces):
                    yield answer_of_line(line)

    async def run_batch(
        self,
        content: Content,
        *,
        batch_id: str | None = None,
        on_progress: Callable[[Batch], None] | None = None,
        poll: Seconds = POLL_S,
        timeout: Seconds | None = None,
        endpoint: str = "",
        deadline: Seconds | None = None,
        priority: Priority | int | str | None = None,
        metadata: Mapping[str, str] | None = None,
        keep_result: Seconds | None = None,
    ) -> BatchOutcome:
        """Upload a file, run its lines as a batch, wait for its end, and return all answers.

        Called again with the same ``batch_id`` and content it goes on with the batch that there is.

        Args:
            content: as for ``upload_file``.
            batch_id: as for ``submit_batch``, like ``endpoint``, ``deadline``, ``priority``, ``metadata`` and
                ``keep_result``.
            on_progress: as for ``wait_batch``, like ``poll``.
            timeout: how long to wait for the end; None: until 5 minutes after the batch's deadline.
            endpoint: see ``batch_id``.
            deadline: see ``batch_id``.
            priority: see ``batch_id``.
            metadata: see ``batch_id``.
            keep_result: see ``batch_id``.
            poll: see ``on_progress``.

        Raises:
            BatchFailedError: the lines cannot be run; names them.
        """
        stored = await self.upload_file(content, file_id=input_file_id_of(batch_id))
        made = await self.submit_batch(
            stored.file_id,
            endpoint=endpoint,
            batch_id=batch_id,
            deadline=deadline,
            priority=priority,
            metadata=metadata,
            keep_result=keep_result,
        )
        batch = await self.wait_batch(
            made.batch_id, on_progress=on_progress, poll=poll, timeout=timeout, tenant=made.tenant
        )
        if batch.state is BatchState.FAILED:
            raise BatchFailedError.of_batch(batch)
        async with aclosing(self.batch_answers(batch)) as answers:
            return BatchOutcome(batch=batch, answers=tuple([each async for each in answers]))


def input_file_id_of(batch_id: str | None) -> str | None:
    """Return the id of the input file that is uploaded for a batch; None for a batch without an id of its caller's."""
    return None if batch_id is None else f"{batch_id}{INPUT_SUFFIX}"
