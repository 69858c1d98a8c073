"""An application that traces: its span, and what it sends along."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import grpc

from sage.controlplane.v1 import common_pb2, inference_pb2, inference_pb2_grpc
from tests.integration.system.local_fleet import LocalFleet


@dataclass(slots=True, kw_only=True)
class Caller:
    fleet: LocalFleet
    sampled: bool = True
    trace_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    span_id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        flags = "01" if self.sampled else "00"
        return (("traceparent", f"00-{self.trace_id}-{self.span_id}-{flags}"), ("tracestate", "app=blue"))

    def call(
        self,
        text: str,
        *,
        max_tokens: int = 8,
        temperature: float = 0.0,
        sampling: Mapping[str, Any] = MappingProxyType({}),
        **spec: Any,
    ) -> Any:
        """A Generate call under this caller's span; iterate it.  ``sampling``: parameters beside the two."""
        stub = inference_pb2_grpc.InferenceServiceStub(self.fleet.channel())
        params = common_pb2.SamplingParams(max_tokens=max_tokens, temperature=temperature, **sampling)
        request = inference_pb2.GenerateRequest(
            request_id=uuid.uuid4().hex,
            tenant="blue",
            spec=inference_pb2.GenerationSpec(text=text, sampling=params, **spec),
        )
        return stub.Generate(request, metadata=self.headers)

    async def answer(self, text: str, **spec: Any) -> str:
        """The whole output."""
        return "".join([event.tokens.text async for event in self.call(text, **spec)])

    async def refused(self, text: str, **spec: Any) -> grpc.StatusCode:
        try:
            await self.answer(text, **spec)
        except grpc.aio.AioRpcError as error:
            return error.code()
        raise AssertionError("it was accepted")
