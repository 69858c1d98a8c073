"""What a caller is told who is refused: the status and all its details, read without the SDK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sage.controlplane.v1 import inference_pb2, inference_pb2_grpc

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    code: grpc.StatusCode
    message: str
    reason: str  # of the error catalogue
    metadata: Mapping[str, str]
    fields: Mapping[str, str]  # violation by field
    retry_s: float | None


def refusal(error: grpc.aio.AioRpcError) -> Refusal:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it reads what both kinds of call have
    details = {d.TypeName(): d for d in status.details} if status is not None else {}
    info = _unpacked(details.get("google.rpc.ErrorInfo"), error_details_pb2.ErrorInfo())
    bad = _unpacked(details.get("google.rpc.BadRequest"), error_details_pb2.BadRequest())
    retry = details.get("google.rpc.RetryInfo")
    return Refusal(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason,
        metadata=dict(info.metadata),
        fields={v.field: v.description for v in bad.field_violations},
        retry_s=None
        if retry is None
        else _unpacked(retry, error_details_pb2.RetryInfo()).retry_delay.ToTimedelta().total_seconds(),
    )


def _unpacked(packed, message: M) -> M:  # type: ignore[no-untyped-def]  # Any, whose stubs name it Any too
    if packed is not None:
        packed.Unpack(message)
    return message


async def end_of(call: Any) -> Refusal:
    """Read a stream to its end.  Raises AssertionError if it ends without an error."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return refusal(error)
    raise AssertionError("the stream ended without an error")


async def generate(
    channel: grpc.aio.Channel, request: inference_pb2.GenerateRequest, *, timeout_s: float = 15.0
) -> Refusal | list[inference_pb2.GenerateResponse]:
    """The whole stream, or how it was refused or failed."""
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    try:
        return [event async for event in stub.Generate(request, timeout=timeout_s)]
    except grpc.aio.AioRpcError as error:
        return refusal(error)


async def refused(channel: grpc.aio.Channel, request: inference_pb2.GenerateRequest) -> Refusal:
    """Raises AssertionError if it is taken."""
    answer = await generate(channel, request)
    assert isinstance(answer, Refusal), f"taken: {answer[:2]}"
    return answer
