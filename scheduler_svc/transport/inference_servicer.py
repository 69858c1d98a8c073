"""InferenceService: what applications call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from sage.controlplane.v1 import batch_pb2, inference_pb2, inference_pb2_grpc
from sage_wire.metadata import trace_headers
from scheduler_svc.access.caller import caller
from scheduler_svc.control.requests.intake import Intake
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import CLIENT_GONE, DELIVERY_FAILED, Finished, RecordedFailure
from scheduler_svc.control.requests.output_log import TokenSlice
from scheduler_svc.control.requests.placement import Placement
from scheduler_svc.control.requests.request_group import MemberFailed, RequestGroup
from scheduler_svc.control.requests.subscription import ChoiceEnd, Subscription
from scheduler_svc.domain.errors import SchedulerError
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.transport import embeddings, events
from scheduler_svc.transport.batches.batch_servicer import BatchServicer
from scheduler_svc.transport.batches.file_servicer import FileServicer
from scheduler_svc.transport.client_sessions.session_servicer import SessionServicer
from scheduler_svc.transport.clipping import stated_reason
from scheduler_svc.transport.detached_servicer import DetachedServicer
from scheduler_svc.transport.enums import REQUEST_STATE_TO_WIRE
from scheduler_svc.transport.model_files import ModelFiles
from scheduler_svc.transport.submissions import key_seen, submission
from scheduler_svc.transport.take_limit import Writing

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Answer InferenceService's calls through the intake."""

    def __init__(
        self,
        intake: Intake,
        scheduler: Scheduler,
        sessions: SessionServicer,
        detached: DetachedServicer,
        batches: BatchServicer,
        files: FileServicer,
        models: ModelFiles,
        *,
        epoch: int,
    ) -> None:
        self._intake = intake
        self._detached = detached
        self._batches = batches
        self._files = files
        self._scheduler = scheduler
        self._sessions = sessions
        self._models = models
        self._epoch = epoch

    async def Generate(  # type: ignore[override]  # it writes to the context instead of yielding
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> None:
        """Accept a request, or attach to it, and stream its events until it ends or the client leaves.

        Raises PermissionDenied for a tenant that is not the caller's, what ``Intake.submit`` raises, the error of a
        request that does not finish, and LimitReached for a client that takes no message; the request is let go when
        that is clear.
        """
        tenant = caller().tenant_for(request.tenant)
        submitted = await submission(request, trace_headers(context.invocation_metadata()), tenant=tenant)
        del request  # else the prompt would be kept for as long as the stream lasts: here, and below in its submission
        subscription = await self._intake.submit(submitted)
        del submitted
        await self._deliver(subscription, context, context.write)

    async def _deliver(
        self, subscription: Subscription, context: Context, write_event: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Write a subscription's events by ``write_event`` until its request ends or the client leaves."""
        why = CLIENT_GONE

        def let_go() -> None:
            self._intake.readers.leave(subscription)
            subscription.release()

        try:
            with Writing(write_event, let_go) as write:
                await self._stream(subscription, write)
            self._settle(subscription.live)
        except (SchedulerError, RecordedFailure) as error:
            if not subscription.released and subscription.live.whole_outcome is error:
                self._settle(subscription.live)
            raise
        except Exception:
            if not context.cancelled():  # else writing failed because the client went away
                why = DELIVERY_FAILED
            raise
        finally:
            # Runs also when the client goes away: gRPC then cancels this coroutine.
            if not subscription.released:
                self._intake.readers.leave(subscription, why)

    def _settle(self, live: LiveRequest) -> None:
        for each in live.members:
            self._intake.ends.settles(each)

    async def _stream(self, subscription: Subscription, write: Writing) -> None:
        # A request that can be placed at once reaches its executor before its client gets Accepted.
        await self._intake.first_pass(subscription)
        await write(self._accepted(subscription))
        while True:
            event = await subscription.next()
            source = subscription.source  # not its request, which is let go while a client takes nothing
            if isinstance(event, TokenSlice):
                await write(events.tokens(event, source.live, self._epoch))
            elif isinstance(event, Placement):
                instance = self._scheduler.find_instance(event.decision.instance_id)
                await write(events.scheduled(event, instance, source.live, self._epoch))
            elif isinstance(event, ChoiceEnd):
                await write(events.choice_finished(event.finished, source.live))
            elif isinstance(event, Finished):
                await write(events.finished(event))
                return
            else:
                raise event

    def _accepted(self, subscription: Subscription) -> inference_pb2.GenerateResponse:
        live = subscription.live
        wait_s = self._intake.expected_wait_s(live)
        receipt = self._intake.receipts.of(live)
        return events.accepted(live, attached=subscription.attached, expected_wait_s=wait_s, receipt=receipt)

    async def Session(  # type: ignore[override]  # it writes to the context instead of yielding
        self, request_iterator: AsyncIterator[inference_pb2.SessionRequest], context: Context
    ) -> None:
        """Carry all requests of one client process.  Raises what ``SessionServicer.run`` raises."""
        await self._sessions.run(request_iterator, context)

    async def Cancel(self, request: inference_pb2.CancelRequest, context: Context) -> inference_pb2.CancelResponse:
        """End a request early; ``cancelled`` is false if it had ended.

        Raises RequestNotFound, InvalidRequest, Recovering; of detached work also JournalUnavailable: it is ended, and
        that is not written down yet.
        """
        key = key_seen(caller(), request.tenant, request.request_id)
        if self._intake.known.in_journal(key):
            await self._intake.known.find(key)
        cancelled, live = self._intake.cancel(key, stated_reason(request.reason) or "cancelled by the caller")
        await self._detached.cancelled(live)
        return inference_pb2.CancelResponse(cancelled=cancelled, state=REQUEST_STATE_TO_WIRE[live.whole_state])

    async def Submit(self, request: inference_pb2.SubmitRequest, context: Context) -> inference_pb2.SubmitResponse:
        """Accept detached work.  Raises what ``DetachedServicer.submit`` raises."""
        return await self._detached.submit(request, trace_headers(context.invocation_metadata()))

    async def Attach(  # type: ignore[override]  # it writes to the context instead of yielding
        self, request: inference_pb2.AttachRequest, context: Context
    ) -> None:
        """Stream a request by its id alone.  Raises what ``DetachedServicer.attach`` raises, and the request's end."""
        subscription = await self._detached.attach(request)

        async def write_event(event: inference_pb2.GenerateResponse) -> None:
            await context.write(inference_pb2.AttachResponse(event=event))

        await self._deliver(subscription, context, write_event)

    async def Get(self, request: inference_pb2.GetRequest, context: Context) -> inference_pb2.GetResponse:
        """Return a request's state and result.  Raises what ``DetachedServicer.get`` raises."""
        return await self._detached.get(request)

    async def List(self, request: inference_pb2.ListRequest, context: Context) -> inference_pb2.ListResponse:
        """List detached work.  Raises what ``DetachedServicer.list`` raises."""
        return await self._detached.list(request)

    async def Embed(self, request: inference_pb2.EmbedRequest, context: Context) -> inference_pb2.EmbedResponse:
        """Compute a vector of each input.

        Raises PermissionDenied for a tenant that is not the caller's, and the error of the first input that fails.
        """
        tenant = caller().tenant_for(request.tenant)
        inputs = await embeddings.submissions(request, trace_headers(context.invocation_metadata()), tenant=tenant)
        request_id = request.request_id or inputs[0].key.request_id.partition("/")[0]
        as_bytes = request.as_bytes
        del request  # else its texts would be kept until the last vector came

        def accepted(live: LiveRequest) -> None:
            dimensions = max(
                (each.embedding_dimensions for each in self._scheduler.served_facts(live.request.model)), default=0
            )
            if (error := embeddings.too_large(len(inputs), dimensions)) is not None:
                raise error

        try:
            group = RequestGroup(self._intake, inputs)
            found = await group.run(accepted)
        except MemberFailed as failed:
            raise embeddings.failure_of(failed) from failed
        group.settle(found)
        classifies = any(each.classifies for each in self._scheduler.served_facts(found[0].request.model))
        return embeddings.response(request_id, found, as_bytes=as_bytes, classifies=classifies)

    async def SubmitBatch(
        self, request: inference_pb2.SubmitBatchRequest, context: Context
    ) -> inference_pb2.SubmitBatchResponse:
        """Accept a batch.  Raises what ``BatchServicer.submit`` raises."""
        return await self._batches.submit(request)

    async def GetBatch(self, request: batch_pb2.GetBatchRequest, context: Context) -> batch_pb2.GetBatchResponse:
        """Return a batch.  Raises what ``BatchServicer.get`` raises."""
        return await self._batches.get(request)

    async def ListBatches(
        self, request: batch_pb2.ListBatchesRequest, context: Context
    ) -> batch_pb2.ListBatchesResponse:
        """List batches.  Raises what ``BatchServicer.list`` raises."""
        return await self._batches.list(request)

    async def CancelBatch(
        self, request: batch_pb2.CancelBatchRequest, context: Context
    ) -> batch_pb2.CancelBatchResponse:
        """End a batch early.  Raises what ``BatchServicer.cancel`` raises."""
        return await self._batches.cancel(request)

    async def UploadFile(
        self, request_iterator: AsyncIterator[batch_pb2.UploadFileRequest], context: Context
    ) -> batch_pb2.UploadFileResponse:
        """Take a file.  Raises what ``FileServicer.upload`` raises."""
        return await self._files.upload(request_iterator)

    async def GetFile(self, request: batch_pb2.GetFileRequest, context: Context) -> batch_pb2.GetFileResponse:
        """Return a file.  Raises what ``FileServicer.get`` raises."""
        return await self._files.get(request)

    async def ListFiles(self, request: batch_pb2.ListFilesRequest, context: Context) -> batch_pb2.ListFilesResponse:
        """List files.  Raises what ``FileServicer.list`` raises."""
        return await self._files.list(request)

    async def DownloadFile(  # type: ignore[override]  # it writes to the context instead of yielding
        self, request: batch_pb2.DownloadFileRequest, context: Context
    ) -> None:
        """Stream a file.  Raises what ``FileServicer.download`` raises, and LimitReached."""
        async with aclosing(self._files.download(request)) as messages:
            with Writing(context.write, lambda: None) as write:
                async for message in messages:
                    await write(message)

    async def DeleteFile(self, request: batch_pb2.DeleteFileRequest, context: Context) -> batch_pb2.DeleteFileResponse:
        """Delete a file.  Raises what ``FileServicer.delete`` raises."""
        return await self._files.delete(request)

    async def ListModels(
        self, request: inference_pb2.ListModelsRequest, context: Context
    ) -> inference_pb2.ListModelsResponse:
        """Return the models that the fleet serves."""
        return self._models.listed()

    async def GetModelFiles(  # type: ignore[override]  # it writes to the context instead of yielding
        self, request: inference_pb2.GetModelFilesRequest, context: Context
    ) -> None:
        """Stream a model's configuration and tokenizer.

        Raises UnknownModel, NoInstance, InvalidRequest, and LimitReached for a client that takes no message.
        """
        messages = await self._models.files(request.model)
        with Writing(context.write, lambda: None) as write:
            for message in messages:
                await write(message)
