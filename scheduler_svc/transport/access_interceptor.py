"""Finds out who makes each call, refuses what the table of RPCs does not allow, and writes the audit log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf import text_format
from google.rpc import code_pb2

from sage_wire.handlers import Handler, rewrapped
from sage_wire.metadata import AUTHORIZATION, Metadata
from scheduler_svc.access import rpcs
from scheduler_svc.access.audit import Audit
from scheduler_svc.access.authenticator import Authenticator
from scheduler_svc.access.caller import set_caller
from scheduler_svc.access.certificates import PeerCertificate
from scheduler_svc.access.identity import Denied, Identity, Unauthenticated
from scheduler_svc.access.open_calls import OpenCalls
from scheduler_svc.control.instances.registration import DuplicateInstance, UnknownSession
from scheduler_svc.transport.errors import to_status

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

REFUSALS = (Denied, DuplicateInstance, UnknownSession)
"""What is a refusal to the audit log: who a caller is, and executors that claim what is another's."""

ACTION_BYTES = 4_096
"""Largest message of an action that the audit log repeats; a larger one is refused for its size or names nothing."""

UNKNOWN = "unknown"  # who calls, where that is what is wrong


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Wrap every handler so that it runs for callers that may call it, and finds them in ``caller()``."""

    def __init__(
        self, authenticator: Authenticator, audit: Audit, open_calls: OpenCalls, *, clients_have_certificates: bool
    ) -> None:
        self._authenticator = authenticator
        self._audit = audit
        self._open_calls = open_calls
        # A call without a token may be somebody's, which the connection has to tell.
        self._by_certificate = clients_have_certificates and authenticator.by_certificate

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of a call, wrapped; None for an unknown method."""
        handler = await continuation(handler_call_details)
        if handler is None or rpcs.rule_of(handler_call_details.method).public:
            return handler
        judged = self._judged(handler_call_details)
        if judged.denied is not None:
            return self._refusing(judged)
        return rewrapped(
            handler,
            unary=lambda call: self._unary(call, judged),
            stream=lambda call: self._stream(call, judged),
            decoder=handler.request_deserializer,
        )

    def _refusing(self, judged: _Judged) -> Handler:
        """Return a handler that refuses a call without waiting for its message.

        It takes a stream of messages, whatever the method takes: for those gRPC runs the handler at once, for others
        it would first keep up to 16 MiB of nobody's.
        """

        async def refuse(requests: Any, context: Context) -> None:
            with self._admitted(judged, None, context):
                pass

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _judged(self, details: grpc.HandlerCallDetails) -> _Judged:
        """Return what the call's headers tell."""
        judged = _Judged(details.method)
        try:
            header = _authorization(details.invocation_metadata)
            if header is not None or not self._by_certificate:
                judged.identity = self._authenticator.identity(header, None)
                rpcs.check(judged.identity, judged.method)
        except Denied as denied:
            judged.denied = denied
        return judged

    def _unary(self, behavior: Any, judged: _Judged) -> Any:
        async def handle(request: Any, context: Context) -> Any:
            with self._admitted(judged, request, context):
                return await behavior(request, context)

        return handle

    def _stream(self, behavior: Any, judged: _Judged) -> Any:
        async def write(request: Any, context: Context) -> None:
            with self._admitted(judged, None, context):
                running = behavior(request, context)
                del request  # it may hold a prompt: the handler alone decides how long that is kept
                await running

        async def yielding(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._admitted(judged, None, context):
                async for response in behavior(request, context):
                    yield response

        return write if asyncio.iscoroutinefunction(behavior) else yielding

    @contextmanager
    def _admitted(self, judged: _Judged, request: Any, context: Context) -> Iterator[None]:
        """Run the body for a caller that may make the call; note in the audit log what it did, or that it may not.

        Raises Denied.
        """
        outcome = grpc.StatusCode.CANCELLED.name  # the client leaves before the handler ends
        # Now: a handler that yields may be closed long after its call, and to ask an ended call this ends the process.
        peer = context.peer()
        certificate = _certificate(context) if self._by_certificate else None
        try:
            identity = self._identity(judged, certificate)
            set_caller(identity, lambda: self._judged_again(judged.method, context, certificate))
            with self._open_calls.answering(identity):
                yield
            outcome = grpc.StatusCode.OK.name
        except REFUSALS as error:
            outcome = _outcome(error)
            self._audit.refused(judged.who, peer, judged.method, str(error))
            raise
        except Exception as error:
            outcome = _outcome(error)
            raise
        finally:
            if judged.is_action and outcome != _DENIED:
                self._audit.action(judged.who, peer, judged.method, _in_words(request), outcome)

    def _identity(self, judged: _Judged, certificate: PeerCertificate | None) -> Identity:
        """Return who calls, if it may call this.  Raises Denied."""
        if judged.denied is not None:
            raise judged.denied
        if judged.identity is None:
            judged.identity = self._authenticator.identity(None, certificate)
            rpcs.check(judged.identity, judged.method)
        return judged.identity

    def _judged_again(self, method: str, context: Context, certificate: PeerCertificate | None) -> Identity:
        """Return who makes a call that is under way, by what is configured now.  Raises Denied."""
        header = _authorization(context.invocation_metadata())
        identity = self._authenticator.identity(header, certificate if header is None else None)
        rpcs.check(identity, method)
        return identity


@dataclass(slots=True)
class _Judged:
    """A call as its headers tell, before its message is read: nobody's 16 MiB are read to refuse them."""

    method: str
    identity: Identity | None = None  # None without ``denied``: the client certificate has to tell
    denied: Denied | None = None

    @property
    def who(self) -> str:
        """The caller's name, for the audit log."""
        return self.identity.name if self.identity is not None else UNKNOWN

    @property
    def is_action(self) -> bool:
        """Whether the audit log has a line for this call whatever its outcome."""
        return self.identity is not None and rpcs.is_action(self.identity, self.method)


_DENIED = grpc.StatusCode.PERMISSION_DENIED.name


def _outcome(error: Exception) -> str:
    return code_pb2.Code.Name(to_status(error).code)


def _in_words(request: Any) -> str:
    """Return the message of an action: names, settings and an operator's reason, never a prompt or a stream."""
    if request is None:
        return ""
    size = request.ByteSize()
    if size > ACTION_BYTES:
        return f"a message of {size} bytes"
    return text_format.MessageToString(request, as_one_line=True)


def _authorization(metadata: Metadata) -> str | None:
    """Return the header that tells who calls; None without one.

    Raises:
        Unauthenticated: there are several, of which a proxy in front may have checked another one.
    """
    found = [value for key, value in metadata or () if key == AUTHORIZATION]
    if len(found) > 1:
        raise Unauthenticated(f"the header `{AUTHORIZATION}` is there {len(found)} times")
    value = next(iter(found), None)
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _certificate(context: Context) -> PeerCertificate | None:
    """Return the names of the certificate that the TLS handshake verified; None without one."""
    found = context.auth_context() or {}
    names = {key: [value.decode(errors="replace") for value in values] for key, values in found.items()}
    if "x509_pem_cert" not in names:
        return None
    return PeerCertificate(
        common_name=next(iter(names.get("x509_common_name", [])), ""),
        alternative_names=tuple(names.get("x509_subject_alternative_name", [])),
    )
