"""The asynchronous client."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc

from sage.controlplane.v1 import admin_pb2, inference_pb2
from sage_client import _decode as decode_events
from sage_client import _decode_admin as decode
from sage_client import _decode_detached as detached
from sage_client import _decode_fleet_snapshot as fleet_snapshot
from sage_client import _decode_prefill_decode as prefill_decode
from sage_client._async_stream import AsyncStream
from sage_client._call import Call
from sage_client._channels import Channels
from sage_client._connection import Connection, address_or_default
from sage_client._decode_scheduler_status import scheduler_status
from sage_client._detached import AsyncDetachedRequest, RequestInfo, RequestStatus
from sage_client._dispatcher import Dispatcher
from sage_client._durations import Seconds, timeout_of
from sage_client._embeddings import Embeddings, EmbedOptions, Input, embeddings, encode_inputs
from sage_client._enums import InstanceRole, RequestState
from sage_client._errors import ConfigurationError, NotLeaderError, RecoveringError, SageError, WaitTimeoutError
from sage_client._event_queue import EventQueue
from sage_client._fleet_feed import WatchCall, newest_snapshots
from sage_client._fleet_snapshot import FleetSnapshot
from sage_client._fleet_view import (
    Cancellation,
    Explanation,
    FleetView,
    Instance,
    PolicyChange,
    PolicyStatus,
    ShadowPolicy,
    ShadowPolicyChange,
)
from sage_client._generate_transport import RECOVERING_S, AttachEvents, GenerateCall, GenerateTransport
from sage_client._journal import JournalCompaction, JournalStatus, journal_compaction, journal_status
from sage_client._models import Model, ModelFiles, collect_files, decode_model
from sage_client._options import GenerateOptions
from sage_client._prefill_decode import PrefillDecodeConfig, PrefillDecodeStatus, SplitMode
from sage_client._reconnect import Reconnect
from sage_client._request import encode_request
from sage_client._retry import until_answered
from sage_client._scheduler_status import SchedulerStatus
from sage_client._session_stream import SessionCall
from sage_client._sink import Sink
from sage_client._status import error_from_rpc, is_transport_break
from sage_client._trace import trace_metadata
from sage_client._usage import (
    UsageGroup,
    UsageRecord,
    UsageSum,
    encode_groups,
    usage_filter,
    usage_record,
    usage_sum,
)

_Q = TypeVar("_Q")
_R = TypeVar("_R")

DEFAULT_TIMEOUT_S = 10.0
DEFAULT_STREAM_TIMEOUT_S = 3600.0
DEADLINE_GRACE_S = 10.0
DEFAULT_BUFFER_BYTES = 1024 * 1024
COMPACT_TIMEOUT_S = 900.0

TRY_S = 2.0
"""Least seconds for which one of several schedulers is waited for."""

SESSIONS_VARIABLE = "SAGE_SESSIONS"
"""The environment variable that switches sessions off, with 0, for clients that are not told."""


class AsyncClient:
    """Calls the scheduler that leads.  Use it on the event loop of its first call; any number of tasks may share it.

    Args:
        address: ``host:port`` of the scheduler; of several schedulers, separated by commas.  None: as the environment
            variable SAGE_SCHEDULER_ADDRESS says, else 127.0.0.1:50051.
        tenant: owner of the requests.  Empty: the tenant that the scheduler knows the caller by, if it has only one.
        tls_ca: PEM file of the certificate authority that signed the scheduler's certificate; enables TLS.
        tls: use TLS with the system's certificate authorities.
        tls_cert: PEM file of the client certificate, if the scheduler requires one; needs ``tls_key``.
        tls_key: PEM file of the client certificate's private key.
        token: bearer token sent with every call.  None: that of the environment variable SAGE_TOKEN, if it is set;
            an empty string: none.
        insecure: allow a connection without TLS to an address that is not loopback.
        timeout: seconds that a call other than a stream may take.
        stream_timeout: seconds that a stream may take if its request has no deadline; otherwise the deadline plus 10.
        reconnect: how often and how fast a broken stream reattaches to its request.
        use_sessions: carry all requests over one stream; False: a ``Generate`` call for each.  None: as the environment
            variable SAGE_SESSIONS says (0: False), else True.  A scheduler without sessions gets ``Generate`` calls.
        buffer_bytes: bytes of output that may wait for the reader of one stream before the stream pauses.

    Every method raises ``SageError``; see ``sage_client._errors`` for the tree.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        tenant: str = "",
        tls_ca: Path | str | None = None,
        tls: bool = False,
        tls_cert: Path | str | None = None,
        tls_key: Path | str | None = None,
        token: str | None = None,
        insecure: bool = False,
        timeout: float = DEFAULT_TIMEOUT_S,
        stream_timeout: float = DEFAULT_STREAM_TIMEOUT_S,
        reconnect: Reconnect | None = None,
        use_sessions: bool | None = None,
        buffer_bytes: int = DEFAULT_BUFFER_BYTES,
    ) -> None:
        if buffer_bytes < 1:
            raise ConfigurationError(f"buffer_bytes: {buffer_bytes} is not positive")
        self._connection = Connection(
            address=address_or_default(address),
            tls_ca=_path(tls_ca),
            tls=tls,
            tls_cert=_path(tls_cert),
            tls_key=_path(tls_key),
            token=token,
            insecure=insecure,
        )
        self._tenant = tenant
        self._timeout = timeout
        self._stream_timeout = stream_timeout
        self._buffer_bytes = buffer_bytes
        self._channels = Channels(self._connection)
        self._reconnect = reconnect or Reconnect()
        self._generate, self._dispatcher = _transports(self._connection, self._channels, self._reconnect, use_sessions)
        self._attached = _attached(self._connection, self._channels, self._reconnect)
        weakref.finalize(self, self._dispatcher.abandon).atexit = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; open streams end with RequestCancelledError."""
        await self._dispatcher.close()
        self._generate.close()
        self._attached.close()
        await self._channels.close()

    def generate(self, prompt: str | None = None, **options: Unpack[GenerateOptions]) -> AsyncStream:
        """Submit a request and return its stream; the request is sent without waiting for the first read.

        Args:
            prompt: text to continue; or give ``messages`` or ``token_ids``.
            options: see ``GenerateOptions`` and, for sampling, ``SamplingOptions``.

        Raises:
            InvalidRequestError: a value does not fit the contract; the stream raises what the server finds.
            UnavailableError: the client is closed.
        """
        events = EventQueue(self._buffer_bytes)
        call = self._call(prompt, options, events)
        stream = AsyncStream(call, events, options.get("response_format"))
        self._dispatcher.start(call)
        return stream

    def start(self, prompt: str | None = None, *, sink: Sink, **options: Unpack[GenerateOptions]) -> Call:
        """Submit a request whose events go to ``sink``, by callbacks without a task or an object per token.

        The call lives until the request ends or ``Call.leave``, also when nobody holds it.

        Args:
            prompt: text to continue; or give ``messages`` or ``token_ids``.
            sink: receives the events; it pauses the call when it cannot take more.
            options: as for ``generate``.

        Raises:
            InvalidRequestError: a value does not fit the contract; the sink gets what the server finds.
            UnavailableError: the client is closed.
        """
        call = self._call(prompt, options, sink)
        self._dispatcher.start(call)
        return call

    async def submit(
        self, prompt: str | None = None, *, keep_result: Seconds | None = None, **options: Unpack[GenerateOptions]
    ) -> AsyncDetachedRequest:
        """Submit detached work: it needs no client, survives the scheduler, and its result is kept.

        Returns once the scheduler has written the request down.  Idempotent: the same ``request_id`` and content again
        give the same request, so the SDK repeats a call whose connection breaks.

        Args:
            prompt: text to continue; or give ``messages`` or ``token_ids``.
            keep_result: how long after its end the result is kept; None: the scheduler's default.
            options: as for ``generate``, without ``after_token``; ``timeout`` bounds this call.

        Raises:
            NoJournalError: the scheduler has no journal.
            JournalUnavailableError: its journal cannot be written now.
            TenantLimitError: the tenant's detached work is at its limit.
        """
        self._channels.check()
        made = encode_request(prompt, options, tenant=self._tenant)
        request = detached.submit_request(made, keep_result)
        answer = await self._repeated(
            lambda at: at.inference.Submit, request, self._call_timeout_s(options.get("timeout"))
        )
        return AsyncDetachedRequest(self, request.tenant, decode_events.accepted(answer.accepted))

    def attach(
        self, request_id: str, *, after_token: int = 0, tenant: str | None = None, timeout: Seconds | None = None
    ) -> AsyncStream:
        """Return a stream of a request's events by its id alone, from an output position on.

        It reattaches over restarts of the scheduler.  Leaving the stream does not end detached work.

        Args:
            request_id: of the request.
            after_token: output position to stream from.
            tenant: that it belongs to; None: the client's.
            timeout: that the stream may take; None: the client's ``stream_timeout``.

        Raises:
            InvalidRequestError: ``timeout`` is no length of time.
            RequestNotFoundError: no request has the id; raised by the stream.
        """
        self._channels.check()
        request = inference_pb2.GenerateRequest(
            request_id=request_id,
            tenant=self._tenant if tenant is None else tenant,
            detached=True,
            after_token=after_token,
        )
        events = EventQueue(self._buffer_bytes)
        wait_s = timeout_of(timeout, None, default_s=self._stream_timeout, grace_s=0.0)
        call = Call(request, events, cancel=self._cancel, timeout_s=wait_s, trace=trace_metadata())
        stream = AsyncStream(call, events)
        self._attached.start(call)
        return stream

    async def get(self, request_id: str, *, tenant: str | None = None) -> RequestStatus:
        """Return a request's state, and the result of detached work that ended.

        Raises:
            RequestNotFoundError: no request has the id.
        """
        request = inference_pb2.GetRequest(request_id=request_id, tenant=self._tenant if tenant is None else tenant)
        return detached.status(await self._repeated(lambda at: at.inference.Get, request))

    async def list(
        self,
        *,
        states: Iterable[RequestState | str] = (),
        model: str = "",
        tenant: str | None = None,
        page_size: int = 0,
    ) -> AsyncGenerator[RequestInfo, None]:
        """Yield a tenant's detached work, the latest first, page by page.

        Args:
            states: only requests in these states; empty: all.
            model: only requests for this model; empty: all.
            tenant: whose; None: the client's.
            page_size: requests per call; 0: the scheduler's default.

        Raises:
            NoJournalError: the scheduler has no journal.
        """
        request = inference_pb2.ListRequest(
            tenant=self._tenant if tenant is None else tenant,
            states=detached.states(states),
            model=model,
            page_size=page_size,
        )
        while True:
            page = await self._repeated(lambda at: at.inference.List, request)
            for each in page.requests:
                yield detached.info(each)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def embed(self, inputs: Input | Sequence[Input], **options: Unpack[EmbedOptions]) -> Embeddings:
        """Return a vector of each input.  The call is sent again by itself if the scheduler is away for a while.

        Args:
            inputs: a text or its token ids, or several of them, at most 2,048.
            options: see ``EmbedOptions``.

        Raises:
            InvalidRequestError: a value does not fit the contract or the model; fields are named as in EmbedRequest.
            SageError: the first input that failed; no vectors come then.
        """
        request = encode_inputs(inputs, options, tenant=self._tenant)
        timeout_s = self._timeout_of(options)

        def may_be_known() -> None:
            request.fresh = False

        async def call(left_s: float) -> inference_pb2.EmbedResponse:
            try:
                return await self._ask(lambda at: at.inference.Embed, request, timeout=left_s, again=may_be_known)
            finally:
                may_be_known()

        return embeddings(await until_answered(call, self._reconnect, timeout_s))

    async def cancel(self, request_id: str, *, reason: str = "", tenant: str | None = None) -> Cancellation:
        """Cancel a request; idempotent."""
        return await self._cancel(request_id, self._tenant if tenant is None else tenant, reason)

    async def get_scheduler(self) -> SchedulerStatus:
        """Return what the scheduler that is called says of itself; one that stands by answers, too.

        Of several addresses the one is asked that other calls go to now.
        """
        request = admin_pb2.GetSchedulerRequest()
        return scheduler_status(await self._ask(lambda at: at.admin.GetScheduler, request))

    async def get_policy(self) -> PolicyStatus:
        """Return the current policy, the available ones and the latest switches."""
        return decode.policy_status(await self._ask(lambda at: at.admin.GetPolicy, admin_pb2.GetPolicyRequest()))

    async def set_policy(self, policy: str, *, reason: str = "") -> PolicyChange:
        """Switch the policy; waiting requests are reordered.

        Raises:
            UnknownPolicyError: the scheduler has no policy of this name.
        """
        request = admin_pb2.SetPolicyRequest(policy=policy, reason=reason)
        return decode.policy_change(await self._ask(lambda at: at.admin.SetPolicy, request))

    async def get_shadow_policy(self) -> ShadowPolicy | None:
        """Return the policy that decides beside the current one, and the comparison; None if there is none."""
        return decode.shadow_policy(
            await self._ask(lambda at: at.admin.GetShadowPolicy, admin_pb2.GetShadowPolicyRequest())
        )

    async def set_shadow_policy(self, policy: str) -> ShadowPolicyChange:
        """Let a policy decide beside the current one, which places no request; empty: none from now on.

        Raises:
            UnknownPolicyError: the scheduler has no policy of this name.
        """
        request = admin_pb2.SetShadowPolicyRequest(policy=policy)
        return decode.shadow_policy_change(await self._ask(lambda at: at.admin.SetShadowPolicy, request))

    async def models(self) -> tuple[Model, ...]:
        """Return the models that the fleet serves, by name."""
        found = await self._ask(lambda at: at.inference.ListModels, inference_pb2.ListModelsRequest())
        return tuple(decode_model(each) for each in found.models)

    async def get_model_files(self, model: str = "", *, timeout: float | None = None) -> ModelFiles:
        """Return the tokenizer and the configuration of a model.

        Args:
            model: name of the model; may be empty if the fleet serves exactly one.
            timeout: seconds that it may take; None: the client's.

        Raises:
            UnknownModelError: the fleet serves no model of this name.
            NoInstanceError: no instance of the model has been ready yet.
        """
        request = inference_pb2.GetModelFilesRequest(model=model)
        try:
            metadata = self._connection.metadata()
            call = self._channels.inference.GetModelFiles(request, timeout=timeout or self._timeout, metadata=metadata)
            return await collect_files(call)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from None

    async def list_instances(self, *, model: str = "", timeout: float | None = None) -> FleetView:
        """Return all instances and queues, or those of one model."""
        request = admin_pb2.ListInstancesRequest(model=model)
        return decode.fleet(await self._ask(lambda at: at.admin.ListInstances, request, timeout=timeout))

    async def get_instance(self, instance_id: str) -> Instance:
        """Return one instance.

        Raises:
            InstanceNotFoundError: no instance has this id.
        """
        request = admin_pb2.GetInstanceRequest(instance_id=instance_id)
        return decode.instance((await self._ask(lambda at: at.admin.GetInstance, request)).instance)

    async def drain_instance(self, instance_id: str, *, reason: str = "") -> Instance:
        """Drain an instance: it finishes its requests and gets no new ones.

        Raises:
            InstanceNotFoundError: no instance has this id.
        """
        request = admin_pb2.DrainInstanceRequest(instance_id=instance_id, reason=reason)
        return decode.instance((await self._ask(lambda at: at.admin.DrainInstance, request)).instance)

    async def resume_instance(self, instance_id: str) -> Instance:
        """Resume a drained instance: it gets new requests again.

        Raises:
            InstanceNotFoundError: no instance has this id.
            InvalidStateError: the instance cannot be resumed in its state.
        """
        request = admin_pb2.ResumeInstanceRequest(instance_id=instance_id)
        return decode.instance((await self._ask(lambda at: at.admin.ResumeInstance, request)).instance)

    async def set_instance_role(self, instance_id: str, role: InstanceRole | str) -> Instance:
        """Change an instance's role while it runs.

        Raises:
            ValueError: the role does not exist.
            InstanceNotFoundError: no instance has this id.
            InvalidRequestError: to or from EMBEDDING, which only an executor's start can set.
        """
        request = admin_pb2.SetInstanceRoleRequest(instance_id=instance_id, role=decode.encode_role(role))
        return decode.instance((await self._ask(lambda at: at.admin.SetInstanceRole, request)).instance)

    async def get_prefill_decode(self) -> PrefillDecodeStatus:
        """Return when requests are split, the instance pairs, and conditions that prevent it."""
        request = admin_pb2.GetPrefillDecodeRequest()
        return prefill_decode.status(await self._ask(lambda at: at.admin.GetPrefillDecode, request))

    async def set_prefill_decode(
        self,
        mode: SplitMode | str | None = None,
        *,
        threshold_input_tokens: int | None = None,
        threshold_ratio: float | None = None,
    ) -> PrefillDecodeConfig:
        """Change when requests are split; None leaves a setting unchanged.

        Args:
            mode: one of ``SplitMode``.
            threshold_input_tokens: prompt tokens from which THRESHOLD splits.
            threshold_ratio: prompt tokens per predicted output token from which THRESHOLD splits.

        Returns:
            The settings after the change.

        Raises:
            ValueError: the mode does not exist.
            InvalidRequestError: a threshold is out of range.
        """
        request = prefill_decode.change(mode, threshold_input_tokens, threshold_ratio)
        answer = await self._ask(lambda at: at.admin.SetPrefillDecode, request)
        return prefill_decode.config(answer.config, answer.not_kept)

    async def explain(self, request_id: str, *, tenant: str | None = None) -> Explanation:
        """Return a request's history and the decisions about it, with candidates and reasons.

        Raises:
            RequestNotFoundError: the scheduler has no record of this request.
        """
        request = admin_pb2.ExplainRequest(request_id=request_id, tenant=self._tenant if tenant is None else tenant)
        return decode.explanation(await self._ask(lambda at: at.admin.Explain, request))

    async def list_usage(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        tenants: Iterable[str] = (),
        models: Iterable[str] = (),
        limit: int | None = None,
    ) -> AsyncGenerator[UsageRecord, None]:
        """Yield the usage records of requests that ended from ``since`` on and before ``until``, the oldest first.

        A time without a zone is local time.  Operators and observers may call it.

        Raises:
            InvalidRequestError: ``until`` is not after ``since``.
            JournalUnavailableError: the scheduler's journal cannot be read, or there is none.
        """
        request = admin_pb2.ListUsageRequest(filter=usage_filter(since, until, tenants, models), limit=limit or 0)
        async with aclosing(self._pages(lambda at: at.admin.ListUsage, request)) as pages:
            async for page in pages:
                for record in page.records:
                    yield usage_record(record)

    async def sum_usage(
        self,
        by: Sequence[UsageGroup | str] = (),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        tenants: Iterable[str] = (),
        models: Iterable[str] = (),
    ) -> Sequence[UsageSum]:
        """Return sums over usage records, one for each combination of the groups ``by``; see ``list_usage``.

        Raises:
            ValueError: a group does not exist.
            LimitReachedError: there are too many groups.
        """
        wanted = usage_filter(since, until, tenants, models)
        request = admin_pb2.SumUsageRequest(filter=wanted, group_by=encode_groups(by))
        return [usage_sum(each) for each in (await self._ask(lambda at: at.admin.SumUsage, request)).sums]

    async def get_journal(self) -> JournalStatus | None:
        """Return what the scheduler's journal is, what it holds and whether it works; None if there is none."""
        return journal_status(await self._ask(lambda at: at.admin.GetJournal, admin_pb2.GetJournalRequest()))

    async def compact_journal(self) -> JournalCompaction:
        """Have the journal delete what it need not keep and give space back, which may take minutes.

        Raises:
            JournalUnavailableError: the journal cannot be used, or there is none.
        """
        request = admin_pb2.CompactJournalRequest()
        answer = await self._ask(lambda at: at.admin.CompactJournal, request, timeout=COMPACT_TIMEOUT_S)
        return journal_compaction(answer)

    async def export_journal(self, *, tables: Iterable[str] = ()) -> AsyncGenerator[str, None]:
        """Yield every row of the journal, or of some tables, as a line of JSON.

        Raises:
            InvalidRequestError: there is no such table.
            JournalUnavailableError: the journal cannot be read, or there is none.
        """
        request = admin_pb2.ExportJournalRequest(tables=tables)
        async with aclosing(self._pages(lambda at: at.admin.ExportJournal, request)) as pages:
            async for page in pages:
                for line in page.lines:
                    yield line

    async def watch_fleet(
        self, *, interval: float = 1.0, recent_decisions: int = 20
    ) -> AsyncGenerator[FleetSnapshot, None]:
        """Yield the fleet's state at once and then every ``interval`` seconds, until the caller stops reading.

        A slow reader gets the newest snapshot and skips those it missed.  The watch ends with an error if the
        connection breaks or the scheduler ends; calling again is safe.

        Args:
            interval: seconds between two snapshots, 0.25 to 60.
            recent_decisions: maximum number of recent decisions in a snapshot, up to 64.

        Raises:
            InvalidRequestError: the interval is out of range.
            LimitReachedError: too many clients are watching.
            UnavailableError: no connection, a broken connection, or a closed client.
            WaitTimeoutError: nothing arrived for ``interval`` plus the client's ``timeout``.
        """
        if recent_decisions < 0:
            raise ConfigurationError(f"recent_decisions: {recent_decisions} is negative")
        request = fleet_snapshot.request(interval, recent_decisions)

        def begin(at: Channels) -> AsyncGenerator[FleetSnapshot, None]:
            call: WatchCall = at.admin.WatchFleet(request, metadata=self._connection.metadata())
            return newest_snapshots(call, wait_s=interval + self._timeout)

        async with aclosing(self._streamed(begin)) as snapshots:
            async for each in snapshots:
                yield each

    async def _pages(
        self, method: Callable[[Channels], Callable[..., AsyncIterable[_R]]], request: object
    ) -> AsyncGenerator[_R, None]:
        """Yield the messages of a streamed answer."""

        async def begin(at: Channels) -> AsyncGenerator[_R, None]:
            metadata = self._connection.metadata()
            try:
                async for page in method(at)(request, timeout=self._stream_timeout, metadata=metadata):
                    yield page
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error) from None

        async with aclosing(self._streamed(begin)) as pages:
            async for page in pages:
                yield page

    async def _streamed(self, begin: Callable[[Channels], AsyncGenerator[_R, None]]) -> AsyncGenerator[_R, None]:
        """Yield what a call streams; before its first message another scheduler is asked where one does not lead."""
        loop, channels, began = asyncio.get_running_loop(), self._channels, False
        end = loop.time() + self._timeout
        while True:
            turn = channels.turn
            try:
                async with aclosing(begin(channels)) as messages:
                    async for each in messages:
                        began = True
                        channels.answered()
                        yield each
                return
            except SageError as error:
                channels.failed(turn, error)
                pause_s = _pause_s(error, channels)
                if began or pause_s is None or loop.time() + pause_s >= end:
                    raise
            await asyncio.sleep(pause_s)

    def _timeout_of(self, options: GenerateOptions | EmbedOptions) -> float:
        timeout, deadline = options.get("timeout"), options.get("deadline")
        return timeout_of(timeout, deadline, default_s=self._stream_timeout, grace_s=DEADLINE_GRACE_S)

    def _call(self, prompt: str | None, options: GenerateOptions, sink: Sink) -> Call:
        self._channels.check()
        request = encode_request(prompt, options, tenant=self._tenant)
        timeout = self._timeout_of(options)
        return Call(request, sink, cancel=self._cancel, timeout_s=timeout, trace=trace_metadata())

    async def _cancel(self, request_id: str, tenant: str, reason: str) -> Cancellation:
        request = inference_pb2.CancelRequest(request_id=request_id, tenant=tenant, reason=reason)
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        while True:
            try:
                return decode.cancellation(await self._ask(lambda at: at.inference.Cancel, request))
            except RecoveringError as error:  # the request may still come back, with its executor
                pause_s = error.retry_after_s or RECOVERING_S
                if loop.time() + pause_s >= end:
                    raise
                await asyncio.sleep(pause_s)

    def _call_timeout_s(self, timeout: Seconds | None) -> float:
        return timeout_of(timeout, None, default_s=self._timeout, grace_s=0.0)

    async def _repeated(
        self,
        method: Callable[[Channels], Callable[..., Awaitable[_R]]],
        request: object,
        timeout: float | None = None,
    ) -> _R:
        """Ask what may be asked twice, and again while the scheduler is away or recovers."""

        async def call(left_s: float) -> _R:
            return await self._ask(method, request, timeout=left_s)

        return await until_answered(call, self._reconnect, timeout or self._timeout)

    async def _ask(
        self,
        method: Callable[[Channels], Callable[..., Awaitable[_R]]],
        request: object,
        *,
        timeout: float | None = None,
        again: Callable[[], None] = lambda: None,
    ) -> _R:
        """Call the scheduler that leads: another one is asked where one does not, until ``timeout`` is over.

        A call may reach two schedulers, so it has to be one that does no more when it comes twice; ``again`` runs
        before it is sent again.
        """
        loop, channels = asyncio.get_running_loop(), self._channels
        limit_s = timeout or self._timeout
        end = loop.time() + limit_s
        try_s = limit_s if channels.alone else max(limit_s / len(channels.addresses), TRY_S)
        while True:
            turn, left_s = channels.turn, min(try_s, end - loop.time())
            try:
                answer = await method(channels)(request, timeout=left_s, metadata=self._connection.metadata())
            except grpc.aio.AioRpcError as error:
                failure = error_from_rpc(error)
            else:
                channels.answered()
                return answer
            channels.failed(turn, failure)
            pause_s = _pause_s(failure, channels)
            if pause_s is None or loop.time() + pause_s >= end:
                raise failure
            again()
            await asyncio.sleep(pause_s)


def _transports(
    connection: Connection,
    channels: Channels,
    reconnect: Reconnect,
    use_sessions: bool | None,
) -> tuple[GenerateTransport, Dispatcher]:
    """Return what carries requests; it does not refer to the client, which may be dropped before its requests' end."""

    def open_call(request: inference_pb2.GenerateRequest, trace: tuple[tuple[str, str], ...]) -> GenerateCall:
        return channels.inference.Generate(request, metadata=connection.authorization() + trace)

    def open_session() -> SessionCall:
        return channels.inference.Session(metadata=connection.authorization())

    if use_sessions is None:
        use_sessions = os.environ.get(SESSIONS_VARIABLE, "") != "0"
    generate = GenerateTransport(open_call, reconnect, channels)
    return generate, Dispatcher(open_session, generate, reconnect, channels, enabled=use_sessions)


def _pause_s(failure: SageError, channels: Channels) -> float | None:
    """Return after how many seconds a call is worth another try, at the address that is next; None if it is not."""
    if isinstance(failure, NotLeaderError):
        return failure.retry_after_s or RECOVERING_S
    silent = isinstance(failure, WaitTimeoutError) and not failure.reason
    if (silent or is_transport_break(failure)) and not channels.exhausted:
        return 0.0
    return None


def _attached(connection: Connection, channels: Channels, reconnect: Reconnect) -> GenerateTransport:
    """Return what reads detached work; like the others it does not refer to the client."""

    def open_call(request: inference_pb2.GenerateRequest, trace: tuple[tuple[str, str], ...]) -> AttachEvents:
        attach = inference_pb2.AttachRequest(
            request_id=request.request_id, tenant=request.tenant, after_token=request.after_token
        )
        if request.HasField("after_attempt"):
            attach.after_attempt.CopyFrom(request.after_attempt)
        return AttachEvents(channels.inference.Attach(attach, metadata=connection.authorization() + trace))

    return GenerateTransport(open_call, reconnect, channels, repeatable=True)


def _path(file: Path | str | None) -> Path | None:
    return Path(file) if file else None
