"""The calls of InferenceService about batches: SubmitBatch, GetBatch, ListBatches, CancelBatch."""

from __future__ import annotations

from collections.abc import Callable

from sage.controlplane.v1 import batch_pb2, inference_pb2
from scheduler_svc.control.batches.batches import Batches
from scheduler_svc.domain.errors import NoJournal
from scheduler_svc.transport.batches.names import batch_seen, owner, page
from scheduler_svc.transport.batches.submission import batch_of
from scheduler_svc.transport.batches.views import batch_view


class BatchServicer:
    """Answers through ``Batches``."""

    def __init__(self, batches: Batches | None, wall_clock: Callable[[], float]) -> None:
        """``batches``: None without a journal.  ``wall_clock``: seconds since 1970."""
        self._found = batches
        self._wall_clock = wall_clock

    @property
    def _batches(self) -> Batches:
        """Raises NoJournal."""
        if self._found is None:
            raise NoJournal
        return self._found

    async def submit(self, request: inference_pb2.SubmitBatchRequest) -> inference_pb2.SubmitBatchResponse:
        """Accept a batch once it is written down.

        Raises PermissionDenied, NoJournal, InvalidRequest, FileNotFound, RequestConflict, TenantLimitReached,
        LimitReached, JournalUnavailable.
        """
        tenant, batches = owner(request.tenant), self._batches
        wanted = batch_of(request, tenant, batches.settings, self._wall_clock())
        batch, attached = await batches.submit(wanted)
        return inference_pb2.SubmitBatchResponse(
            batch_id=batch.key.id, batch=batch_view(batch, batches), attached=attached
        )

    async def get(self, request: batch_pb2.GetBatchRequest) -> batch_pb2.GetBatchResponse:
        """Return a batch.  Raises NoJournal, BatchNotFound."""
        batches = self._batches
        batch = batches.find(batch_seen(request.tenant, request.batch_id))
        return batch_pb2.GetBatchResponse(batch=batch_view(batch, batches))

    async def list(self, request: batch_pb2.ListBatchesRequest) -> batch_pb2.ListBatchesResponse:
        """Return a page of a tenant's batches, latest first.  Raises PermissionDenied, NoJournal, InvalidRequest."""
        tenant, batches = owner(request.tenant), self._batches
        found, token = page(batches.of_tenant(tenant), request.page_size, request.page_token)
        return batch_pb2.ListBatchesResponse(
            batches=[batch_view(each, batches) for each in found], next_page_token=token
        )

    async def cancel(self, request: batch_pb2.CancelBatchRequest) -> batch_pb2.CancelBatchResponse:
        """End a batch early.  Raises NoJournal, BatchNotFound, JournalUnavailable."""
        batches = self._batches
        batch, cancelled = await batches.cancel(batch_seen(request.tenant, request.batch_id))
        return batch_pb2.CancelBatchResponse(batch=batch_view(batch, batches), cancelled=cancelled)
