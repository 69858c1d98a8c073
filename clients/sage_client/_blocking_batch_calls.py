"""Calls about files and batches, for callers without an event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing

from sage_client._batch_calls import POLL_S, input_file_id_of
from sage_client._batch_wait import BatchWait
from sage_client._batches import Batch, BatchAnswer, BatchOutcome, BatchState, FilePurpose, StoredFile
from sage_client._durations import Seconds, seconds_of, timeout_of
from sage_client._enums import Priority
from sage_client._errors import BatchFailedError
from sage_client._file_source import Content
from sage_client._loop_calls import LoopCalls
from sage_client._stream import WAIT_MARGIN_S


class BlockingBatchCalls(LoopCalls):
    """The calls about files and batches; ``BatchCalls`` and ``FileCalls`` say more about each."""

    def upload_file(
        self,
        content: Content,
        *,
        file_id: str | None = None,
        name: str | None = None,
        keep: Seconds | None = None,
        tenant: str | None = None,
        timeout: Seconds | None = None,
    ) -> StoredFile:
        """Upload a file with the lines of a batch; see ``AsyncClient.upload_file``.

        What yields the content is called by the client's thread, which serves all its requests.
        """
        wait_s = timeout_of(timeout, None, default_s=self._stream_timeout, grace_s=WAIT_MARGIN_S)
        sent = self._client.upload_file(content, file_id=file_id, name=name, keep=keep, tenant=tenant, timeout=timeout)
        return self._loop.run(sent, timeout_s=wait_s + WAIT_MARGIN_S)

    def get_file(self, file_id: str, *, tenant: str | None = None) -> StoredFile:
        """Return what is known of a file; see ``AsyncClient.get_file``."""
        return self._run(self._client.get_file(file_id, tenant=tenant))

    def list_files(
        self,
        *,
        purpose: FilePurpose | str | None = None,
        after: str = "",
        tenant: str | None = None,
        page_size: int = 0,
    ) -> Generator[StoredFile, None, None]:
        """Yield a tenant's files, the latest first; see ``AsyncClient.list_files``."""
        found = self._client.list_files(purpose=purpose, after=after, tenant=tenant, page_size=page_size)
        return self._each(found, wait_s=self._timeout)

    def read_file(self, file_id: str, *, offset: int = 0, tenant: str | None = None) -> Generator[bytes, None, None]:
        """Yield the content of a file in pieces; see ``AsyncClient.read_file``."""
        return self._each(self._client.read_file(file_id, offset=offset, tenant=tenant), wait_s=self._stream_timeout)

    def delete_file(self, file_id: str, *, tenant: str | None = None) -> None:
        """Delete a file; see ``AsyncClient.delete_file``."""
        self._run(self._client.delete_file(file_id, tenant=tenant))

    def submit_batch(
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
        """Have the scheduler run the lines of a file; see ``AsyncClient.submit_batch``."""
        submitted = self._client.submit_batch(
            input_file_id,
            endpoint=endpoint,
            batch_id=batch_id,
            deadline=deadline,
            priority=priority,
            metadata=metadata,
            keep_result=keep_result,
            tenant=tenant,
        )
        return self._run(submitted)

    def get_batch(self, batch_id: str, *, tenant: str | None = None) -> Batch:
        """Return a batch as it is now; see ``AsyncClient.get_batch``."""
        return self._run(self._client.get_batch(batch_id, tenant=tenant))

    def list_batches(
        self, *, after: str = "", tenant: str | None = None, page_size: int = 0
    ) -> Generator[Batch, None, None]:
        """Yield a tenant's batches, the latest first; see ``AsyncClient.list_batches``."""
        return self._each(
            self._client.list_batches(after=after, tenant=tenant, page_size=page_size), wait_s=self._timeout
        )

    def cancel_batch(self, batch_id: str, *, tenant: str | None = None) -> Batch:
        """Cancel a batch, and return it; see ``AsyncClient.cancel_batch``."""
        return self._run(self._client.cancel_batch(batch_id, tenant=tenant))

    def watch_batch(
        self, batch_id: str, *, poll: Seconds = POLL_S, tenant: str | None = None
    ) -> Generator[Batch, None, None]:
        """Yield a batch again and again until it is over; see ``AsyncClient.watch_batch``."""
        seen = self._client.watch_batch(batch_id, poll=poll, tenant=tenant)
        return self._each(seen, wait_s=seconds_of(poll) + self._timeout)

    def wait_batch(
        self,
        batch_id: str,
        *,
        on_progress: Callable[[Batch], None] | None = None,
        poll: Seconds = POLL_S,
        timeout: Seconds | None = None,
        tenant: str | None = None,
    ) -> Batch:
        """Wait until a batch is over, and return it; see ``AsyncClient.wait_batch``."""
        wait = BatchWait(timeout, time.monotonic)
        with closing(self.watch_batch(batch_id, poll=poll, tenant=tenant)) as seen:
            for batch in seen:
                if on_progress is not None:
                    on_progress(batch)
                wait.check(batch)
        return batch

    def batch_answers(self, batch: Batch) -> Generator[BatchAnswer, None, None]:
        """Yield what became of a batch's lines; see ``AsyncClient.batch_answers``."""
        return self._each(self._client.batch_answers(batch), wait_s=self._stream_timeout)

    def run_batch(
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
        """Upload a file, run its lines as a batch, and return all answers; see ``AsyncClient.run_batch``."""
        stored = self.upload_file(content, file_id=input_file_id_of(batch_id))
        made = self.submit_batch(
            stored.file_id,
            endpoint=endpoint,
            batch_id=batch_id,
            deadline=deadline,
            priority=priority,
            metadata=metadata,
            keep_result=keep_result,
        )
        batch = self.wait_batch(made.batch_id, on_progress=on_progress, poll=poll, timeout=timeout, tenant=made.tenant)
        if batch.state is BatchState.FAILED:
            raise BatchFailedError.of_batch(batch)
        return BatchOutcome(batch=batch, answers=tuple(self.batch_answers(batch)))
