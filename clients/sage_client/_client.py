"""The blocking client."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from sage_client._async_client import (
    DEFAULT_STREAM_TIMEOUT_S,
    DEFAULT_TIMEOUT_S,
    AsyncClient,
)
from sage_client._async_stream import AsyncStream
from sage_client._connection import DEFAULT_ADDRESS
from sage_client._enums import InstanceRole
from sage_client._fleet_snapshot import FleetSnapshot
from sage_client._fleet_view import (
    Cancellation,
    Explanation,
    FleetView,
    Instance,
    PolicyChange,
    PolicyStatus,
)
from sage_client._loop_thread import LoopThread
from sage_client._options import GenerateOptions
from sage_client._prefill_decode import PrefillDecodeConfig, PrefillDecodeStatus, SplitMode
from sage_client._reconnect import Reconnect
from sage_client._stream import WAIT_MARGIN_S, Stream

_T = TypeVar("_T")


class Client:
    """Speaks to one scheduler; any number of threads may share it.

    It runs an ``AsyncClient`` on an event loop in a thread of its own.  The alternative, gRPC's blocking API,
    would be a second implementation of taking up broken streams, and its reads cannot be given a bound.  The
    price is a hand-over between two threads for every event.  Like any gRPC channel it does not survive a
    ``fork``.

    Args: as ``AsyncClient``; durations are seconds.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
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
    ) -> None:
        self._timeout = timeout
        self._loop = LoopThread("sage-client")

        async def connect() -> AsyncClient:
            return AsyncClient(
                address,
                tenant=tenant,
                tls_ca=tls_ca,
                tls=tls,
                tls_cert=tls_cert,
                tls_key=tls_key,
                token=token,
                insecure=insecure,
                timeout=timeout,
                stream_timeout=stream_timeout,
                reconnect=reconnect,
            )

        try:
            self._client = self._run(connect())
        except BaseException:
            self._loop.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection and ends the thread; streams that are open end.  Idempotent."""
        if self._loop.running:
            try:
                self._run(self._client.close())
            finally:
                self._loop.stop()

    def generate(self, prompt: str | None = None, **options: Unpack[GenerateOptions]) -> Stream:
        """Submits a request and returns its stream.  As ``AsyncClient.generate``."""

        async def start() -> AsyncStream:
            return self._client.generate(prompt, **options)

        stream = self._run(start())
        return Stream(stream, self._loop, call_timeout_s=self._timeout)

    def cancel(self, request_id: str, *, reason: str = "", tenant: str | None = None) -> Cancellation:
        """Ends a request early.  Idempotent."""
        return self._run(self._client.cancel(request_id, reason=reason, tenant=tenant))

    def get_policy(self) -> PolicyStatus:
        """The policy in force and those there are."""
        return self._run(self._client.get_policy())

    def set_policy(self, policy: str, *, reason: str = "") -> PolicyChange:
        """Switches the policy; requests that wait are ordered anew.  Raises UnknownPolicyError."""
        return self._run(self._client.set_policy(policy, reason=reason))

    def list_instances(self, *, model: str = "") -> FleetView:
        """Every instance and queue, of one model or of all."""
        return self._run(self._client.list_instances(model=model))

    def get_instance(self, instance_id: str) -> Instance:
        """One instance.  Raises InstanceNotFoundError."""
        return self._run(self._client.get_instance(instance_id))

    def drain_instance(self, instance_id: str, *, reason: str = "") -> Instance:
        """Lets an instance finish what it has and gives it nothing new.  Raises InstanceNotFoundError."""
        return self._run(self._client.drain_instance(instance_id, reason=reason))

    def resume_instance(self, instance_id: str) -> Instance:
        """Takes a drain back.  Raises InstanceNotFoundError, InvalidStateError."""
        return self._run(self._client.resume_instance(instance_id))

    def set_instance_role(self, instance_id: str, role: InstanceRole | str) -> Instance:
        """Changes what an instance is eligible for while it runs.  As ``AsyncClient.set_instance_role``."""
        return self._run(self._client.set_instance_role(instance_id, role))

    def get_prefill_decode(self) -> PrefillDecodeStatus:
        """When requests are split, between which instances, and what keeps it from working."""
        return self._run(self._client.get_prefill_decode())

    def set_prefill_decode(
        self,
        mode: SplitMode | str | None = None,
        *,
        threshold_input_tokens: int | None = None,
        threshold_ratio: float | None = None,
    ) -> PrefillDecodeConfig:
        """Changes when requests are split; what is None stays as it is.  Raises InvalidRequestError."""
        change = self._client.set_prefill_decode(
            mode, threshold_input_tokens=threshold_input_tokens, threshold_ratio=threshold_ratio
        )
        return self._run(change)

    def explain(self, request_id: str, *, tenant: str | None = None) -> Explanation:
        """Why a request went where it went.  Raises RequestNotFoundError."""
        return self._run(self._client.explain(request_id, tenant=tenant))

    def watch_fleet(self, *, interval: float = 1.0, recent_decisions: int = 20) -> Generator[FleetSnapshot, None, None]:
        """The fleet as it is, at once and then every ``interval`` seconds.  As ``AsyncClient.watch_fleet``."""
        snapshots = self._client.watch_fleet(interval=interval, recent_decisions=recent_decisions)
        wait_s = interval + self._timeout + WAIT_MARGIN_S

        async def step() -> FleetSnapshot | None:
            return await anext(snapshots, None)

        try:
            while (snapshot := self._loop.run(step(), timeout_s=wait_s)) is not None:
                yield snapshot
        finally:
            if self._loop.running:
                self._loop.run(snapshots.aclose(), timeout_s=WAIT_MARGIN_S)

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        # The call bounds itself; this bound only catches a loop that is stuck.
        return self._loop.run(work, timeout_s=self._timeout + WAIT_MARGIN_S)
