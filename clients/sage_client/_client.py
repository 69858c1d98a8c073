"""The blocking client."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from sage_client._adapters import Adapter
from sage_client._async_client import (
    DEADLINE_GRACE_S,
    DEFAULT_BUFFER_BYTES,
    DEFAULT_STREAM_TIMEOUT_S,
    DEFAULT_TIMEOUT_S,
    AsyncClient,
)
from sage_client._async_stream import AsyncStream
from sage_client._blocking_batch_calls import BlockingBatchCalls
from sage_client._desired_instances import DesiredFleet
from sage_client._detached import DetachedRequest
from sage_client._durations import Seconds, timeout_of
from sage_client._embeddings import Embeddings, EmbedOptions, Input
from sage_client._enums import InstanceRole, RequestState
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
from sage_client._journal import JournalCompaction, JournalStatus
from sage_client._loop_thread import LoopThread
from sage_client._models import Model, ModelFiles
from sage_client._operator_calls import COMPACT_TIMEOUT_S
from sage_client._options import GenerateOptions
from sage_client._prefill_decode import PrefillDecodeConfig, PrefillDecodeStatus, SplitMode
from sage_client._reconnect import Reconnect
from sage_client._request_info import RequestInfo, RequestStatus
from sage_client._scheduler_status import SchedulerStatus
from sage_client._scores import Scores, scores_of
from sage_client._stream import WAIT_MARGIN_S, Stream
from sage_client._usage import UsageGroup, UsageRecord, UsageSum


class Client(BlockingBatchCalls):
    """Calls one scheduler; any number of threads may share it.

    The client runs an ``AsyncClient`` on an event loop in a thread of its own, so every event passes between two
    threads.  gRPC's blocking API would need a second implementation of reattaching broken streams, and its reads
    cannot have a timeout.  gRPC does not survive a ``fork`` of a process that made calls: the
    child gets InvalidStateError.

    Args: as for ``AsyncClient``; durations are seconds.
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
        self._timeout = timeout
        self._stream_timeout = stream_timeout
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
                use_sessions=use_sessions,
                buffer_bytes=buffer_bytes,
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
        """Close the connection and end the thread; open streams end.  Idempotent."""
        if self._loop.left_behind:
            self._loop.stop()  # after a fork the connection is the other process's
        elif self._loop.running:
            try:
                self._run(self._client.close())
            finally:
                self._loop.stop()

    def generate(self, prompt: str | None = None, **options: Unpack[GenerateOptions]) -> Stream:
        """Submit a request and return its stream; see ``AsyncClient.generate``."""

        async def start() -> AsyncStream:
            return self._client.generate(prompt, **options)

        stream = self._run(start())
        return Stream(stream, self._loop, call_timeout_s=self._timeout)

    def submit(
        self, prompt: str | None = None, *, keep_result: Seconds | None = None, **options: Unpack[GenerateOptions]
    ) -> DetachedRequest:
        """Submit detached work; see ``AsyncClient.submit``."""
        wait_s = timeout_of(options.get("timeout"), None, default_s=self._timeout, grace_s=0.0) + WAIT_MARGIN_S
        made = self._loop.run(self._client.submit(prompt, keep_result=keep_result, **options), timeout_s=wait_s)
        return DetachedRequest(self, made.tenant, made.accepted)

    def attach(
        self, request_id: str, *, after_token: int = 0, tenant: str | None = None, timeout: Seconds | None = None
    ) -> Stream:
        """Return a stream of a request's events by its id alone; see ``AsyncClient.attach``."""

        async def start() -> AsyncStream:
            return self._client.attach(request_id, after_token=after_token, tenant=tenant, timeout=timeout)

        return Stream(self._run(start()), self._loop, call_timeout_s=self._timeout)

    def get(self, request_id: str, *, tenant: str | None = None) -> RequestStatus:
        """Return a request's state, and the result of detached work that ended; see ``AsyncClient.get``."""
        return self._run(self._client.get(request_id, tenant=tenant))

    def list(
        self,
        *,
        states: Iterable[RequestState | str] = (),
        model: str = "",
        tenant: str | None = None,
        page_size: int = 0,
    ) -> Generator[RequestInfo, None, None]:
        """Yield a tenant's detached work, the latest first; see ``AsyncClient.list``."""
        found = self._client.list(states=states, model=model, tenant=tenant, page_size=page_size)

        async def step() -> RequestInfo | None:
            return await anext(found, None)

        try:
            while (each := self._run(step())) is not None:
                yield each
        finally:
            if self._loop.running:
                self._loop.run(found.aclose(), timeout_s=WAIT_MARGIN_S)

    def embed(self, inputs: Input | Sequence[Input], **options: Unpack[EmbedOptions]) -> Embeddings:
        """Return a vector of each input; see ``AsyncClient.embed``."""
        timeout, deadline = options.get("timeout"), options.get("deadline")
        wait_s = timeout_of(timeout, deadline, default_s=self._stream_timeout, grace_s=DEADLINE_GRACE_S)
        return self._loop.run(self._client.embed(inputs, **options), timeout_s=wait_s + WAIT_MARGIN_S)

    def score(self, query: Input, documents: Sequence[Input], **options: Unpack[EmbedOptions]) -> Scores:
        """Return how close each document is to the query; see ``AsyncClient.score``."""
        return scores_of(self.embed([query, *documents], **options))

    def cancel(self, request_id: str, *, reason: str = "", tenant: str | None = None) -> Cancellation:
        """Cancel a request; idempotent."""
        return self._run(self._client.cancel(request_id, reason=reason, tenant=tenant))

    def get_scheduler(self) -> SchedulerStatus:
        """Return what the scheduler that is called says of itself; one that stands by answers, too."""
        return self._run(self._client.get_scheduler())

    def get_policy(self) -> PolicyStatus:
        """Return the current policy, the available ones and the latest switches."""
        return self._run(self._client.get_policy())

    def set_policy(self, policy: str, *, reason: str = "") -> PolicyChange:
        """Switch the policy; waiting requests are reordered.

        Raises:
            UnknownPolicyError: the scheduler has no policy of this name.
        """
        return self._run(self._client.set_policy(policy, reason=reason))

    def get_shadow_policy(self) -> ShadowPolicy | None:
        """Return the policy that decides beside the current one, and the comparison; None if there is none."""
        return self._run(self._client.get_shadow_policy())

    def set_shadow_policy(self, policy: str) -> ShadowPolicyChange:
        """Let a policy decide beside the current one, which places no request; empty: none from now on.

        Raises:
            UnknownPolicyError: the scheduler has no policy of this name.
        """
        return self._run(self._client.set_shadow_policy(policy))

    def get_model_files(self, model: str = "", *, timeout: float | None = None) -> ModelFiles:
        """Return the tokenizer and the configuration of a model; see ``AsyncClient.get_model_files``."""
        work = self._client.get_model_files(model, timeout=timeout)
        return self._loop.run(work, timeout_s=(timeout or self._timeout) + WAIT_MARGIN_S)

    def list_instances(self, *, model: str = "") -> FleetView:
        """Return all instances and queues, or those of one model."""
        return self._run(self._client.list_instances(model=model))

    def models(self) -> tuple[Model, ...]:
        """Return the models that the fleet serves, by name."""
        return self._run(self._client.models())

    def get_instance(self, instance_id: str) -> Instance:
        """Return one instance.

        Raises:
            InstanceNotFoundError: no instance has this id.
        """
        return self._run(self._client.get_instance(instance_id))

    def desired_instances(self, *, model: str = "", timeout: float | None = None) -> DesiredFleet:
        """Return how many instances of each model, or of one, there are to be, and why."""
        return self._run(self._client.desired_instances(model=model, timeout=timeout))

    def drain_instance(self, instance_id: str, *, reason: str = "") -> Instance:
        """Drain an instance: it finishes its requests and gets no new ones.

        Raises:
            InstanceNotFoundError: no instance has this id.
        """
        return self._run(self._client.drain_instance(instance_id, reason=reason))

    def resume_instance(self, instance_id: str) -> Instance:
        """Resume a drained instance: it gets new requests again.

        Raises:
            InstanceNotFoundError: no instance has this id.
            InvalidStateError: the instance cannot be resumed in its state.
        """
        return self._run(self._client.resume_instance(instance_id))

    def sleep_instance(self, instance_id: str, *, reason: str = "") -> Instance:
        """Put an instance to sleep: it finishes its requests, then others have its device's memory.

        Raises:
            InstanceNotFoundError: no instance has this id.
            InvalidStateError: the instance starts or is gone.
            InvalidRequestError: its engine cannot sleep.
        """
        return self._run(self._client.sleep_instance(instance_id, reason=reason))

    def wake_instance(self, instance_id: str) -> Instance:
        """Wake an instance that sleeps.

        Raises:
            InstanceNotFoundError: no instance has this id.
            InvalidStateError: the instance starts or is gone.
            InvalidRequestError: its engine cannot sleep.
        """
        return self._run(self._client.wake_instance(instance_id))

    def set_instance_role(self, instance_id: str, role: InstanceRole | str) -> Instance:
        """Change an instance's role while it runs; see ``AsyncClient.set_instance_role``."""
        return self._run(self._client.set_instance_role(instance_id, role))

    def add_adapter(self, name: str, source: str, *, model: str = "", revision: str = "", max_rank: int = 0) -> Adapter:
        """Have every instance of a model load a LoRA adapter; see ``AsyncClient.add_adapter``."""
        return self._run(self._client.add_adapter(name, source, model=model, revision=revision, max_rank=max_rank))

    def list_adapters(self, *, model: str = "") -> tuple[Adapter, ...]:
        """Return the adapters that were added, or those of one model, and what each instance has of them."""
        return self._run(self._client.list_adapters(model=model))

    def remove_adapter(self, name: str, *, model: str = "") -> Adapter:
        """Take an adapter out: accepted requests end first, new ones are refused.

        Raises:
            InvalidRequestError: no such adapter was added.
            UnknownModelError: no instance serves the model.
        """
        return self._run(self._client.remove_adapter(name, model=model))

    def get_prefill_decode(self) -> PrefillDecodeStatus:
        """Return when requests are split, the instance pairs, and conditions that prevent it."""
        return self._run(self._client.get_prefill_decode())

    def set_prefill_decode(
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
        change = self._client.set_prefill_decode(
            mode, threshold_input_tokens=threshold_input_tokens, threshold_ratio=threshold_ratio
        )
        return self._run(change)

    def explain(self, request_id: str, *, tenant: str | None = None) -> Explanation:
        """Return a request's history and the decisions about it, with candidates and reasons.

        Raises:
            RequestNotFoundError: the scheduler has no record of this request.
        """
        return self._run(self._client.explain(request_id, tenant=tenant))

    def list_usage(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        tenants: Iterable[str] = (),
        models: Iterable[str] = (),
        limit: int | None = None,
    ) -> Generator[UsageRecord, None, None]:
        """Yield the usage records of requests that ended, the oldest first; see ``AsyncClient.list_usage``."""
        return self._each(
            self._client.list_usage(since=since, until=until, tenants=tenants, models=models, limit=limit),
            wait_s=self._timeout,
        )

    def sum_usage(
        self,
        by: Sequence[UsageGroup | str] = (),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        tenants: Iterable[str] = (),
        models: Iterable[str] = (),
    ) -> Sequence[UsageSum]:
        """Return sums over usage records by groups; see ``AsyncClient.sum_usage``."""
        return self._run(self._client.sum_usage(by, since=since, until=until, tenants=tenants, models=models))

    def get_journal(self) -> JournalStatus | None:
        """Return what the scheduler's journal is, what it holds and whether it works; None if there is none."""
        return self._run(self._client.get_journal())

    def compact_journal(self) -> JournalCompaction:
        """Have the journal give space back, which may take minutes; see ``AsyncClient.compact_journal``."""
        return self._loop.run(self._client.compact_journal(), timeout_s=COMPACT_TIMEOUT_S + WAIT_MARGIN_S)

    def export_journal(self, *, tables: Iterable[str] = ()) -> Generator[str, None, None]:
        """Yield every row of the journal as a line of JSON; see ``AsyncClient.export_journal``."""
        return self._each(self._client.export_journal(tables=tables), wait_s=self._timeout)

    def watch_fleet(self, *, interval: float = 1.0, recent_decisions: int = 20) -> Generator[FleetSnapshot, None, None]:
        """Yield the fleet's state at once and then every ``interval`` seconds; see ``AsyncClient.watch_fleet``."""
        snapshots = self._client.watch_fleet(interval=interval, recent_decisions=recent_decisions)
        return self._each(snapshots, wait_s=interval + self._timeout)
