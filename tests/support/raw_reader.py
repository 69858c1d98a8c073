"""A client on the generated stub alone that reads on after its scheduler died, as docs/scheduler-life.md describes."""

from __future__ import annotations

import asyncio
from collections.abc import MutableSequence
from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sage.controlplane.v1 import common_pb2, inference_pb2, inference_pb2_grpc
from tests.support.broken_call import is_break

PAUSE_S = 0.2


class GaveUp(Exception):
    """The request did not come to its end; says how its last call ended."""

    def __init__(self, message: str, *, code: grpc.StatusCode, reason: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


@dataclass
class RawReader:
    """One request, read to its end over as many calls as it takes."""

    address: str  # of the scheduler, or of several, separated by commas
    request: inference_pb2.GenerateRequest
    within_s: float = 60.0
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[common_pb2.TokenLogprobs] = field(default_factory=list)  # one per token, if asked for
    attached: bool = False  # the latest call read a request that the scheduler had already
    split: bool = False  # an attempt ran on two instances
    calls: int = 0
    longest_gap_s: float = 0.0
    finished: inference_pb2.Finished | None = None
    attempt: common_pb2.Attempt | None = None
    receipt: bytes = b""
    times: MutableSequence[float] = field(default_factory=list)  # when tokens came, on the event loop's clock

    _turn: int = 0  # calls that found no leader: each goes to the next address

    async def run(self) -> None:
        """Read to the end.  Raises GaveUp."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.within_s
        self._last = loop.time()
        while self.finished is None:
            try:
                await self._call(end - loop.time())
            except grpc.aio.AioRpcError as error:
                if not _may_pass(error) or loop.time() >= end:
                    message = f"{self.request.request_id}: {error.code()}: {error.details()}"
                    raise GaveUp(message, code=error.code(), reason=_info(error)) from error
                if _info(error) != "RECOVERING":
                    self._turn += 1
                await asyncio.sleep(_retry_after_s(error))

    async def _call(self, timeout_s: float) -> None:
        self.calls += 1
        request = inference_pb2.GenerateRequest()
        request.CopyFrom(self.request)
        request.receipt = self.receipt
        if self.token_ids:
            request.after_token = len(self.token_ids)
            assert self.attempt is not None
            request.after_attempt.CopyFrom(self.attempt)
        addresses = self.address.split(",")
        async with grpc.aio.insecure_channel(addresses[self._turn % len(addresses)]) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            async for response in stub.Generate(request, timeout=timeout_s):
                self._take(response)

    def _take(self, response: inference_pb2.GenerateResponse) -> None:
        kind = response.WhichOneof("event")
        if kind == "accepted":
            self.attached = response.accepted.attached
            self.receipt = response.accepted.receipt
        elif kind == "scheduled":
            self.split |= bool(response.scheduled.decision.prefill_instance_id)
        elif kind == "tokens":
            tokens = response.tokens
            assert tokens.first_index == len(self.token_ids), f"{tokens.first_index} after {len(self.token_ids)}"
            known = len(self.text) - tokens.text_offset  # text may come again: it belongs to the last of its tokens
            assert known >= 0, f"text at {tokens.text_offset} after {len(self.text)}"
            assert tokens.text.startswith(self.text[tokens.text_offset :])
            now = asyncio.get_running_loop().time()
            if self.token_ids:
                self.longest_gap_s = max(self.longest_gap_s, now - self._last)
            self._last = now
            self.times.append(now)
            self.token_ids += tokens.token_ids
            self.text += tokens.text[known:]
            self.logprobs += tokens.logprobs
            self.attempt = common_pb2.Attempt()
            self.attempt.CopyFrom(tokens.attempt)
        elif kind == "finished":
            assert self.finished is None
            self.finished = inference_pb2.Finished()
            self.finished.CopyFrom(response.finished)


def _info(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it reads only what both kinds of call have
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return ""


def _may_pass(error: grpc.aio.AioRpcError) -> bool:
    """Whether to call again: the connection broke, or the scheduler asks for it."""
    reason = _info(error)
    return reason in ("RECOVERING", "NOT_LEADER") or (is_break(error) and not reason)


def _retry_after_s(error: grpc.aio.AioRpcError) -> float:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    for detail in status.details if status is not None else ():
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(retry):
            return retry.retry_delay.ToTimedelta().total_seconds()
    return PAUSE_S
