"""The link to a scheduler over gRPC: the control stream and the output stream, each on a channel of its own.

HTTP/2 flow control applies to the whole connection: on a shared one, many tokens could delay a heartbeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from executor_svc.runtime.link import LinkBroken, LinkRefused, NotLeader
from executor_svc.runtime.messages.commands import Command
from executor_svc.runtime.messages.outputs import Ack, StepFrame
from executor_svc.runtime.messages.registration import Register, Welcome
from executor_svc.runtime.messages.reports import ControlUp
from executor_svc.transport import control_messages, output_messages
from executor_svc.transport.control_messages import commands_from_wire
from executor_svc.transport.output_messages import output_requests
from executor_svc.transport.tls import UNUSABLE, DialCredentials
from sage.controlplane.v1 import executor_pb2
from sage_wire import connection_failures, durations
from sage_wire.decoding import Undecodable, decoder
from sage_wire.errors import ErrorReason
from sage_wire.keepalive import keepalive
from sage_wire.protocol import MAX_MESSAGE_BYTES, STEP_FRAMES

log = logging.getLogger(__name__)

SERVICE = executor_pb2.DESCRIPTOR.services_by_name["ExecutorService"].full_name

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.use_local_subchannel_pool", 1),  # else both channels would share one connection
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    *keepalive(10.0, 5.0),
    ("grpc.keepalive_permit_without_calls", 1),
]
CREDENTIALS = frozenset({ErrorReason.UNAUTHENTICATED, ErrorReason.PERMISSION_DENIED})
"""Reasons for a refusal that are about who the executor is."""

PERMANENT = CREDENTIALS | {ErrorReason.INVALID_REGISTRATION, ErrorReason.PROTOCOL_VERSION}
"""Reasons for a refusal that do not change when the same scheduler is asked again."""

COMMANDS_PER_TURN = 16
"""Commands of one message that are yielded in one turn of the event loop: an Assign takes up to a millisecond."""

_CORE = "Internal error from Core"  # gRPC's details where a call ends under one of its own operations

ControlCall = grpc.aio.StreamStreamCall[executor_pb2.ControlRequest, executor_pb2.ControlResponse]
OutputsCall = grpc.aio.StreamStreamCall[executor_pb2.OutputsRequest, executor_pb2.OutputsResponse]
M = TypeVar("M")
W = TypeVar("W", bound=Message)


class GrpcLink:
    """A link over gRPC.  Implements ``runtime.link.Link``."""

    def __init__(self, channel: Callable[[], grpc.aio.Channel], metadata: tuple[tuple[str, str], ...]) -> None:
        self._channels = [channel(), channel()]
        self._metadata = metadata  # of both calls: who calls
        self._control: ControlCall | None = None
        self._outputs: OutputsCall | None = None
        self._epoch = 0  # of the session
        self._step_frames = False  # the scheduler reads StepFrame

    async def register(self, register: Register) -> Welcome:
        """Open the control stream and register.  Raises LinkBroken, LinkRefused."""
        control = _stream(self._channels[0], "Control", executor_pb2.ControlRequest, executor_pb2.ControlResponse)
        call: ControlCall = control(metadata=self._metadata)
        self._control = call
        await _write(call, control_messages.register_request(register))
        first = await _read(call)
        if first is None:
            await _raise_end(call)
        if first.WhichOneof("message") != "welcome":
            raise LinkBroken("the scheduler did not answer Register with Welcome")
        self._epoch = first.welcome.epoch
        self._step_frames = STEP_FRAMES in first.welcome.capabilities
        try:
            return control_messages.welcome_from_wire(first.welcome)
        except ValueError as error:
            raise LinkBroken(str(error)) from error

    async def open_outputs(self, session_id: str) -> None:
        """Open the output stream of a session.  Raises LinkBroken."""
        outputs = _stream(self._channels[1], "Outputs", executor_pb2.OutputsRequest, executor_pb2.OutputsResponse)
        call: OutputsCall = outputs(metadata=self._metadata)
        self._outputs = call
        await _write(call, executor_pb2.OutputsRequest(hello=executor_pb2.Hello(session_id=session_id)))

    async def send_control(self, message: ControlUp) -> None:
        """Send on the control stream.  Raises LinkBroken."""
        await _write(_opened(self._control), control_messages.control_request(message))

    async def send_output(self, frame: StepFrame) -> None:
        """Send on the output stream.  Raises LinkBroken."""
        call = _opened(self._outputs)
        for message in output_requests(frame, step_frames=self._step_frames):
            await _write(call, message)

    async def commands(self) -> AsyncIterator[Command]:
        """Yield commands until the scheduler closes the stream.  Raises LinkBroken."""
        call = _opened(self._control)
        while (response := await _read(call)) is not None:
            for number, command in enumerate(commands_from_wire(response)):
                if number and not number % COMMANDS_PER_TURN:
                    await asyncio.sleep(0)
                if command is None:
                    log.warning("ignored a message from the scheduler that this version does not know")
                else:
                    yield command

    async def acks(self) -> AsyncIterator[Sequence[Ack]]:
        """Yield acknowledgements until the scheduler closes the stream.  Raises LinkBroken."""
        call = _opened(self._outputs)
        while (response := await _read(call)) is not None:
            yield output_messages.acks(response, self._epoch)

    async def leave(self) -> None:
        """Half-close both streams and wait until the scheduler has closed them too.

        The control stream goes first, so that the scheduler reads Goodbye before it sees the output stream end.
        """
        for call in (self._control, self._outputs):
            if call is not None:
                with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await call.done_writing()
                    await call.code()

    async def close(self) -> None:
        """Cancel both streams and close their channels.  Idempotent."""
        for call in (self._control, self._outputs):
            if call is not None:
                _cancel(call)
        for channel in self._channels:
            await channel.close()


def _stream(channel: grpc.aio.Channel, name: str, request: type[Message], response: type[Message]) -> Any:
    """Return what opens a stream of ExecutorService, as the generated stub has it but for decoding without raising."""
    return channel.stream_stream(
        f"/{SERVICE}/{name}",
        request_serializer=request.SerializeToString,
        response_deserializer=decoder(response.FromString),
    )


def _cancel(call: grpc.aio.StreamStreamCall[Any, Any]) -> None:
    """Cancel a call, also one that grpc.aio counts as over because a write failed.

    Of such a call it would keep what was not read, and a task, for ever: its public ``cancel`` does nothing then.
    """
    if not call.cancel():
        inner = getattr(call, "_cython_call", None)
        if inner is not None:
            inner.cancel("the link is closed")


def _opened(call: M | None) -> M:
    if call is None:
        raise LinkBroken("the stream is not open")
    return call


async def _write(call: grpc.aio.StreamStreamCall[M, Any], message: M) -> None:
    try:
        await call.write(message)
    except grpc.aio.AioRpcError as error:
        _raise(error)
    except asyncio.InvalidStateError:
        await _raise_end(call)


async def _read(call: grpc.aio.StreamStreamCall[Any, M]) -> M | None:
    """Return the next message; None if the scheduler closed the stream with status OK.

    Raises LinkBroken, also for a message that cannot be decoded.
    """
    try:
        message = await call.read()
    except grpc.aio.AioRpcError as error:
        _raise(error)
    if isinstance(message, Undecodable):
        raise LinkBroken(f"a message of the scheduler {message.why}")
    return None if message is grpc.aio.EOF else message  # type: ignore[return-value]


def in_words(code: grpc.StatusCode, details: str | None) -> str:
    """Return what ended a stream, for the log.  gRPC names its own code where a connection ends under a write."""
    if details is not None and _CORE in details:
        return "the connection ended; the scheduler has stopped, or the network is gone"
    return connection_failures.in_words(details) if details else code.name


async def _raise_end(call: grpc.aio.StreamStreamCall[Any, Any]) -> NoReturn:
    code = await call.code()
    details = await call.details()
    raise LinkBroken(f"the scheduler ended the stream: {in_words(code, details)}")


def _raise(error: grpc.aio.AioRpcError) -> NoReturn:
    details = _details(error)
    info = _unpacked(details, error_details_pb2.ErrorInfo())
    reason = ErrorReason.from_code(info.reason) if info is not None else None
    text = in_words(error.code(), error.details())
    if reason is ErrorReason.NOT_LEADER and info is not None:
        leaders = [each for each in info.metadata.get("leader", "").split(",") if each]
        retry = _unpacked(details, error_details_pb2.RetryInfo())
        retry_s = durations.from_wire(retry.retry_delay) if retry is not None else None
        raise NotLeader(text, leaders=leaders, retry_s=retry_s) from error
    if reason in PERMANENT or reason is ErrorReason.DUPLICATE_INSTANCE:
        permanent, about_credentials = reason in PERMANENT, reason in CREDENTIALS
        raise LinkRefused(reason.code, text, permanent=permanent, about_credentials=about_credentials) from error
    raise LinkBroken(text) from error


def _details(error: grpc.aio.AioRpcError) -> Sequence[any_pb2.Any]:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it reads only what both kinds of call have
    return status.details if status is not None else ()


def _unpacked(details: Sequence[any_pb2.Any], wanted: W) -> W | None:
    """Return the first detail of the type of ``wanted``; None if there is none."""
    return wanted if any(detail.Unpack(wanted) for detail in details) else None


class GrpcDialer:
    """Makes links over gRPC.  Implements ``runtime.link.Dialer``."""

    def __init__(self, credentials: DialCredentials) -> None:
        self._credentials = credentials

    def dial(self, address: str) -> GrpcLink:
        """Return a link to ``address``; nothing is sent yet.  Raises LinkBroken if the credentials cannot be read."""
        try:
            channel, metadata = self._credentials.channel(), self._credentials.metadata()
        except UNUSABLE as error:
            raise LinkBroken(str(error)) from error
        return GrpcLink(lambda: _channel(address, channel), metadata)


def _channel(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
