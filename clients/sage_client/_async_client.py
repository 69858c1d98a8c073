"""The asynchronous client."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import grpc

from sage.controlplane.v1 import inference_pb2
from sage_client import _decode as decode_events
from sage_client import _decode_admin as decode
from sage_client import _decode_detached as detached
from sage_client._async_stream import AsyncStream
from sage_client._batch_calls import BatchCalls
from sage_client._call import Call
from sage_client._channels import Channels
from sage_client._connection import Connection, address_or_default
from sage_client._detached import AsyncDetachedRequest
from sage_client._dispatcher import Dispatcher
from sage_client._durations import Seconds, timeout_of
from sage_client._embeddings import Embeddings, EmbedOptions, Input, embeddings, encode_inputs
from sage_client._enums import RequestState
from sage_client._errors import ConfigurationError, RecoveringError
from sage_client._event_queue import EventQueue
from sage_client._fleet_view import (
    Cancellation,
)
from sage_client._generate_transport import RECOVERING_S, AttachEvents, GenerateCall, GenerateTransport
from sage_client._models import Model, ModelFiles, collect_files, decode_model
from sage_client._operator_calls import OperatorCalls
from sage_client._options import GenerateOptions
from sage_client._reconnect import Reconnect
from sage_client._request import encode_request
from sage_client._request_info import RequestInfo, RequestStatus
from sage_client._retry import until_answered
from sage_client._scores import Scores, scores_of
from sage_client._session_stream import SessionCall
from sage_client._sink import Sink
from sage_client._status import error_from_rpc
from sage_client._trace import trace_metadata

DEFAULT_TIMEOUT_S = 10.0
DEFAULT_STREAM_TIMEOUT_S = 3600.0
DEADLINE_GRACE_S = 10.0
DEFAULT_BUFFER_BYTES = 1024 * 1024

SESSIONS_VARIABLE = "SAGE_SESSIONS"
"""The environment variable that switches sessions off, with 0, for clients that are not told."""


class AsyncClient(BatchCalls, OperatorCalls):
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
        connection = Connection(
            address=address_or_default(address),
            tls_ca=_path(tls_ca),
            tls=tls,
            tls_cert=_path(tls_cert),
            tls_key=_path(tls_key),
            token=token,
            insecure=insecure,
        )
        super().__init__(connection, reconnect or Reconnect(), timeout_s=timeout, stream_timeout_s=stream_timeout)
        self._tenant = tenant
        self._buffer_bytes = buffer_bytes
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

    async def score(self, query: Input, documents: Sequence[Input], **options: Unpack[EmbedOptions]) -> Scores:
        """Return how close each document is to the query: the cosine of their vectors, by one call of ``embed``.

        Args:
            query: a text or its token ids.
            documents: several of either, at most 2,047.
            options: see ``EmbedOptions``.

        Raises:
            NotSupportedError: the model scores pairs of texts itself, as rerankers do; a gateway's /v1/score asks it.
            SageError: as ``embed``.
        """
        return scores_of(await self.embed([query, *documents], **options))

    async def cancel(self, request_id: str, *, reason: str = "", tenant: str | None = None) -> Cancellation:
        """Cancel a request; idempotent."""
        return await self._cancel(request_id, self._tenant if tenant is None else tenant, reason)

    async def models(self) -> tuple[Model, ...]:
        """Return the models that the fleet serves, by name."""
        found = await self._repeated(lambda at: at.inference.ListModels, inference_pb2.ListModelsRequest())
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
        limit_s = timeout or self._timeout
        try:
            metadata = self._connection.metadata()
            call = self._channels.inference.GetModelFiles(request, timeout=limit_s, metadata=metadata)
            return await collect_files(call)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, timeout_s=limit_s) from None

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


def _attached(connection: Connection, channels: Channels, reconnect: Reconnect) -> GenerateTransport:
    """Return what reads detached work; like the others it does not refer to the client."""

    def open_call(request: inference_pb2.GenerateRequest, trace: tuple[tuple[str, str], ...]) -> AttachEvents:
        attach = inference_pb2.AttachRequest(
            request_id=request.request_id, tenant=request.tenant, after_token=request.after_token
        )
        if request.HasField("after_attempt"):
            attach.after_attempt.CopyFrom(request.after_attempt)
        attach.takes_choices = True
        attach.after.extend(request.after)
        return AttachEvents(channels.inference.Attach(attach, metadata=connection.authorization() + trace))

    return GenerateTransport(open_call, reconnect, channels, detached=True)


def _path(file: Path | str | None) -> Path | None:
    return Path(file) if file else None
