"""A scheduler small enough to read: it answers as a test tells it to, and writes down what it was asked."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from sage.controlplane.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    common_pb2,
    decision_pb2,
    inference_pb2,
    inference_pb2_grpc,
)
from sage_wire.errors import ErrorReason
from tests.integration.clients.fake_batches import FakeBatches
from tests.integration.clients.fake_session import Aborted, FakeSession, refusal

Context = Any
Generator = Callable[[inference_pb2.GenerateRequest, Context], AsyncIterator[inference_pb2.GenerateResponse]]


def accepted(request: inference_pb2.GenerateRequest, *, attached: bool = False) -> inference_pb2.GenerateResponse:
    message = inference_pb2.Accepted(request_id=request.request_id, model="tiny", prompt_tokens=3, attached=attached)
    message.expected_wait.FromMilliseconds(250)
    return inference_pb2.GenerateResponse(accepted=message)


def scheduled(instance_id: str = "executor-1", *, resumed_from: int = 0) -> inference_pb2.GenerateResponse:
    decision = decision_pb2.Decision(
        instance_id=instance_id,
        policy="fifo",
        phase=common_pb2.PHASE_HYBRID,
        reasons=["earliest predicted finish 0.00 s"],
        attempt=common_pb2.Attempt(epoch=7, number=1),
    )
    return inference_pb2.GenerateResponse(
        scheduled=inference_pb2.Scheduled(decision=decision, resumed_from_token=resumed_from)
    )


def tokens(first: int, count: int = 1) -> inference_pb2.GenerateResponse:
    """Token i has the id 100 + i and the text of two letters, so that its text begins at 2 * i."""
    return inference_pb2.GenerateResponse(
        tokens=inference_pb2.Tokens(
            first_index=first,
            token_ids=[100 + i for i in range(first, first + count)],
            text_offset=2 * first,
            text="".join(text_of(i) for i in range(first, first + count)),
        )
    )


def text_of(index: int) -> str:
    return chr(ord("a") + index % 26) + chr(ord("a") + index // 26)


def whole_text(count: int) -> str:
    return "".join(text_of(i) for i in range(count))


def finished(count: int) -> inference_pb2.GenerateResponse:
    message = inference_pb2.Finished(
        finish_reason=common_pb2.FINISH_REASON_LENGTH,
        usage=common_pb2.Usage(prompt_tokens=3, completion_tokens=count),
        attempts=1,
        slo=[inference_pb2.SloResult(target="ttft", met=True)],
    )
    message.timings.time_to_first_token.FromMilliseconds(20)
    message.timings.queue.FromMilliseconds(5)
    message.timings.decode.FromMilliseconds(100)
    return inference_pb2.GenerateResponse(finished=message)


def events(
    request: inference_pb2.GenerateRequest, count: int, *, attached: bool = False
) -> list[inference_pb2.GenerateResponse]:
    """A whole life of ``count`` tokens, from ``after_token`` on."""
    middle = [tokens(i) for i in range(request.after_token, count)]
    return [accepted(request, attached=attached), scheduled(), *middle, finished(count)]


async def fail(context: Context, reason: ErrorReason, message: str, *details: Any) -> None:
    """Ends a call as the scheduler's interceptor does."""
    await context.abort(reason.status, message, trailing_metadata=refusal(reason, message, *details))


def retry_in(seconds: float) -> error_details_pb2.RetryInfo:
    delay = Duration()
    delay.FromNanoseconds(int(seconds * 1e9))
    return error_details_pb2.RetryInfo(retry_delay=delay)


async def default_generate(
    request: inference_pb2.GenerateRequest, context: Context
) -> AsyncIterator[inference_pb2.GenerateResponse]:
    for event in events(request, request.spec.sampling.max_tokens or 4):
        yield event


def letters(text: str) -> bytes:
    """A vector of how often each letter occurs."""
    return struct.pack("<26f", *(text.count(chr(ord("a") + place)) for place in range(26)))


class FakeScheduler(FakeBatches, admin_pb2_grpc.AdminServiceServicer):
    """Both services a client speaks to, on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        super().__init__()
        self.generate: Generator = default_generate
        self.admin: dict[str, Callable[[Any, Context], Awaitable[Any]]] = {}
        self.requests: list[inference_pb2.GenerateRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.embed: Callable[[inference_pb2.EmbedRequest, Context], Awaitable[None]] | None = None  # comes first
        self.embed_requests: list[inference_pb2.EmbedRequest] = []
        self.cancels: list[inference_pb2.CancelRequest] = []
        self.models: list[inference_pb2.ModelView] = []
        self.asked: list[Any] = []
        self.knows_requests = True  # else a cancel finds none
        self.left = asyncio.Event()  # set when a client left a stream before its end
        self.sessions: list[FakeSession] = []
        self.session_metadata: list[dict[str, str]] = []
        self.recovers_for = 0  # so many cancels
        self.refuse_sessions: grpc.StatusCode | None = None  # with this status
        self.repeats = 0  # tokens that a session's reattachment is sent a second time
        self.silence_s = 15.0  # as Opened says
        self.epoch = 7
        self.leader: str | None = None  # address of the one that leads instead; None: this one leads, without a lease
        self.led = False  # by a lease, as Opened says
        self.dumb = False  # whether sessions answer no ping
        self._submitted: dict[str, inference_pb2.GenerateRequest] = {}
        self.refused = 0  # calls, because another one leads
        self.port = 0

    async def start(self, credentials: grpc.ServerCredentials | None = None, *, port: int = 0) -> Self:
        self._server = grpc.aio.server()
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(self, self._server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self, self._server)
        if credentials is None:
            self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            self.port = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)
        await self._server.start()
        return self

    async def stop(self) -> None:
        await self._server.stop(0)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        await self._refuse_if_standby(context)
        self.requests.append(request)
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        try:
            async for event in self.generate(request, context):
                yield event
        except asyncio.CancelledError:
            self.left.set()
            raise

    async def ListModels(
        self, request: inference_pb2.ListModelsRequest, context: Context
    ) -> inference_pb2.ListModelsResponse:
        return inference_pb2.ListModelsResponse(models=self.models)

    async def Session(
        self, requests: AsyncIterator[inference_pb2.SessionRequest], context: Context
    ) -> AsyncIterator[inference_pb2.SessionResponse]:
        await self._refuse_if_standby(context)
        if self.refuse_sessions is not None:
            await context.abort(self.refuse_sessions, "no session")
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self.session_metadata.append(metadata)

        def note(request: inference_pb2.GenerateRequest, trace: dict[str, str]) -> None:
            self.requests.append(request)
            self.metadata.append(metadata | trace)

        def generate(request: inference_pb2.GenerateRequest, of: Any) -> AsyncIterator[inference_pb2.GenerateResponse]:
            return self.generate(request, of)  # read at each request: a test may exchange it

        session = FakeSession(
            generate,
            self._submitted,
            note,
            self.left,
            repeats=self.repeats,
            silence_s=self.silence_s,
            epoch=self.epoch,
            led=self.led,
            dumb=self.dumb,
        )
        self.sessions.append(session)
        try:
            async for message in session.run(requests, context):
                yield message
        except Aborted as aborted:
            packed = (("grpc-status-details-bin", aborted.status.SerializeToString()),)
            await context.abort(aborted.code, aborted.status.message, packed if aborted.status.details else ())

    async def _refuse_if_standby(self, context: Context) -> None:
        if self.leader is not None:
            self.refused += 1
            reason, text = ErrorReason.NOT_LEADER, "another scheduler leads"
            trailing = refusal(reason, text, retry_in(0.01), leader=self.leader)
            await context.abort(reason.status, text, trailing_metadata=trailing)

    def forget(self, request_id: str) -> None:
        """Attaching to this request by its id finds none from now on."""
        self._submitted.pop(request_id, None)

    async def Embed(self, request: inference_pb2.EmbedRequest, context: Context) -> inference_pb2.EmbedResponse:
        self.embed_requests.append(request)
        if self.embed is not None:
            await self.embed(request, context)
        return inference_pb2.EmbedResponse(
            embeddings=[inference_pb2.Embedding(data=letters(each.text)) for each in request.inputs],
            usage=common_pb2.Usage(prompt_tokens=7),
            request_id=request.request_id,
            model="embedder",
            cost=0.5,
            classifies=request.model == "reranker",
        )

    async def Cancel(self, request: inference_pb2.CancelRequest, context: Context) -> inference_pb2.CancelResponse:
        self.cancels.append(request)
        if len(self.cancels) <= self.recovers_for:
            await fail(context, ErrorReason.RECOVERING, "the request may still come back")
        if not self.knows_requests:
            await fail(context, ErrorReason.REQUEST_NOT_FOUND, f"no request {request.request_id!r}")
        return inference_pb2.CancelResponse(cancelled=True, state=inference_pb2.REQUEST_STATE_CANCELLED)

    async def GetScheduler(self, request: Any, context: Context) -> Any:
        return await self.admin["GetScheduler"](request, context)  # a standby answers it, too

    async def GetPolicy(self, request: Any, context: Context) -> Any:
        return await self._answer("GetPolicy", request, context)

    async def SetPolicy(self, request: Any, context: Context) -> Any:
        return await self._answer("SetPolicy", request, context)

    async def GetShadowPolicy(self, request: Any, context: Context) -> Any:
        return await self._answer("GetShadowPolicy", request, context)

    async def SetShadowPolicy(self, request: Any, context: Context) -> Any:
        return await self._answer("SetShadowPolicy", request, context)

    async def ListInstances(self, request: Any, context: Context) -> Any:
        return await self._answer("ListInstances", request, context)

    async def GetInstance(self, request: Any, context: Context) -> Any:
        return await self._answer("GetInstance", request, context)

    async def DrainInstance(self, request: Any, context: Context) -> Any:
        return await self._answer("DrainInstance", request, context)

    async def SleepInstance(self, request: Any, context: Context) -> Any:
        return await self._answer("SleepInstance", request, context)

    async def WakeInstance(self, request: Any, context: Context) -> Any:
        return await self._answer("WakeInstance", request, context)

    async def ResumeInstance(self, request: Any, context: Context) -> Any:
        return await self._answer("ResumeInstance", request, context)

    async def SetInstanceRole(self, request: Any, context: Context) -> Any:
        return await self._answer("SetInstanceRole", request, context)

    async def SetPrefillDecode(self, request: Any, context: Context) -> Any:
        return await self._answer("SetPrefillDecode", request, context)

    async def Explain(self, request: Any, context: Context) -> Any:
        return await self._answer("Explain", request, context)

    async def _answer(self, name: str, request: Any, context: Context) -> Any:
        await self._refuse_if_standby(context)
        self.asked.append(request)
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        return await self.admin[name](request, context)


async def started(credentials: grpc.ServerCredentials | None = None, *, port: int = 0) -> FakeScheduler:
    """A fake that listens.  What it leaves out of the contract answers UNIMPLEMENTED."""
    return await FakeScheduler().start(credentials, port=port)  # type: ignore[abstract]


def always(answer: Any) -> Callable[[Any, Context], Awaitable[Any]]:
    async def say(request: Any, context: Context) -> Any:
        return answer

    return say


def instance(instance_id: str = "executor-1", **fields: Any) -> admin_pb2.Instance:
    given = {
        "model": "tiny",
        "state": common_pb2.INSTANCE_STATE_READY,
        "role": common_pb2.INSTANCE_ROLE_GENERAL,
        "engine": "simulated",
        "max_running": 4,
        "kv_capacity_tokens": 1000,
    }
    return admin_pb2.Instance(instance_id=instance_id, **{**given, **fields})
