"""Lets calls through to the servicers of the term in force, and refuses them while this scheduler does not lead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from externalscaler import externalscaler_pb2, externalscaler_pb2_grpc
from sage.controlplane.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    executor_pb2,
    executor_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
)
from scheduler_svc.control.leadership.standing import Standing
from scheduler_svc.control.leadership.term import Term
from scheduler_svc.domain.errors import NotLeader
from scheduler_svc.transport.server import Services
from scheduler_svc.transport.standing import scheduler_response

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

CLOSE_S = 1.0
"""How long ``close`` waits for calls to end whose peer takes no message."""


class LeaderGate:
    """Stands between the gRPC servers, which live as long as the process, and what serves during one term.

    Nothing is written to a peer once the term is over: each message is checked before it is written.
    """

    def __init__(self, refusal: Callable[[], NotLeader], standing: Callable[[], Standing]) -> None:
        """``refusal``: what callers are told while this scheduler does not lead.  ``standing``: its state."""
        self._refusal = refusal
        self._standing = standing
        self._open: _Open | None = None

    def services(self, health: Any) -> Services:
        """Return the servicers for the servers; ``health`` answers health checks."""
        inference, executor, admin, scaler = (
            file.DESCRIPTOR.services_by_name[name]
            for file, name in (
                (inference_pb2, "InferenceService"),
                (executor_pb2, "ExecutorService"),
                (admin_pb2, "AdminService"),
                (externalscaler_pb2, "ExternalScaler"),
            )
        )
        return Services(
            inference=self._gated(inference_pb2_grpc.InferenceServiceServicer, inference, lambda of: of.inference),
            executor=self._gated(executor_pb2_grpc.ExecutorServiceServicer, executor, lambda of: of.executor),
            admin=self._gated(
                admin_pb2_grpc.AdminServiceServicer, admin, lambda of: of.admin, GetScheduler=self._scheduler
            ),
            scaler=self._gated(externalscaler_pb2_grpc.ExternalScalerServicer, scaler, lambda of: of.scaler),
            health=health,
        )

    def open(self, services: Services, term: Term) -> None:
        """Let calls through from now on."""
        self._open = _Open(services, term)

    async def close(self, why: Callable[[], NotLeader], grace_s: float) -> None:
        """Let no further call through, and end with ``why()`` those that have not ended by themselves in ``grace_s``.

        A call whose peer takes no message may outlast this; it writes nothing more.
        """
        ending, self._open = self._open, None
        if ending is None:
            return
        ending.why = why
        if ending.calls:
            await asyncio.wait(ending.calls, timeout=grace_s)
        for call in ending.calls:
            call.cancel()
        if ending.calls:
            await asyncio.wait(ending.calls, timeout=CLOSE_S)

    def _gated(
        self, base: type[Any], service: ServiceDescriptor, pick: Callable[[Services], Any], **own: Callable[..., Any]
    ) -> Any:
        """Return a servicer that passes each call on; ``own``: those that are answered without a term."""
        methods = {method.name: own.get(method.name) or self._passing(pick, method.name) for method in service.methods}
        return type(f"Gated{base.__name__}", (base,), {name: staticmethod(each) for name, each in methods.items()})()

    def _passing(self, pick: Callable[[Services], Any], name: str) -> Callable[[Any, Context], Awaitable[Any]]:
        async def call(request: Any, context: Context) -> Any:
            term = self._open
            if term is None:
                raise self._refusal()
            term.term.check()
            checked = _CheckedContext(context, term.term)
            running = getattr(pick(term.services), name)(request, checked)
            del request  # it may hold a prompt: the handler alone decides how long that is kept
            return await term.run(_written(running, checked) if isinstance(running, AsyncGenerator) else running)

        return call

    async def _scheduler(self, request: Any, context: Context) -> admin_pb2.GetSchedulerResponse:
        return scheduler_response(self._standing())


@dataclass(slots=True)
class _Open:
    """One term's calls."""

    services: Services
    term: Term
    calls: set[asyncio.Task[Any]] = field(default_factory=set)
    why: Callable[[], NotLeader] | None = None  # once they are to end

    async def run(self, running: Awaitable[Any]) -> Any:
        """Run one call.  Raises NotLeader when the term ends first, also instead of a late answer or error.

        What a process that was frozen finds when it goes on, deadlines that passed and executors that are silent, is
        no news: the next leader has these requests.
        """
        task = asyncio.current_task()
        assert task is not None, "gRPC runs each call in a task"
        self.calls.add(task)
        try:
            answer = await running
        except asyncio.CancelledError:
            if self.why is None:
                raise
            task.uncancel()
            raise self.why() from None
        except grpc.aio.BaseError:
            raise  # nothing more can be told
        except Exception:
            self.term.check()
            raise
        finally:
            self.calls.discard(task)
        self.term.check()
        return answer


class _CheckedContext:
    """A call's context that writes only while the term lasts."""

    __slots__ = ("_context", "_term")

    def __init__(self, context: Context, term: Term) -> None:
        self._context = context
        self._term = term

    async def write(self, message: Any) -> None:
        """Write a message.  Raises NotLeader once the term is over."""
        self._term.check()
        await self._context.write(message)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


async def _written(messages: AsyncGenerator[Any, None], context: _CheckedContext) -> None:
    """Write what a handler yields."""
    async with aclosing(messages):
        async for message in messages:
            await context.write(message)
