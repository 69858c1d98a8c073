"""The asynchronous client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc

from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc, inference_pb2, inference_pb2_grpc
from sage_client import _decode_admin as decode
from sage_client import _decode_fleet_snapshot as fleet_snapshot
from sage_client import _decode_prefill_decode as prefill_decode
from sage_client._async_stream import AsyncStream, GenerateCall
from sage_client._connection import DEFAULT_ADDRESS, Connection
from sage_client._enums import InstanceRole
from sage_client._errors import ConfigurationError
from sage_client._fleet_feed import WatchCall, newest_snapshots
from sage_client._fleet_snapshot import FleetSnapshot
from sage_client._fleet_view import (
    Cancellation,
    Explanation,
    FleetView,
    Instance,
    PolicyChange,
    PolicyStatus,
)
from sage_client._options import GenerateOptions
from sage_client._prefill_decode import PrefillDecodeConfig, PrefillDecodeStatus, SplitMode
from sage_client._reconnect import Reconnect
from sage_client._request import encode_request
from sage_client._status import error_from_rpc

_Q = TypeVar("_Q")
_R = TypeVar("_R")

DEFAULT_TIMEOUT_S = 10.0
DEFAULT_STREAM_TIMEOUT_S = 3600.0
DEADLINE_GRACE_S = 10.0


class AsyncClient:
    """Speaks to one scheduler.  Made and used on one event loop; any number of its tasks may share it.

    Args:
        address: ``host:port`` of the scheduler.
        tenant: owner of the requests; ignored where the token names one.
        tls_ca: PEM file of the authority that signed the scheduler's certificate; turns TLS on.
        tls: TLS with the system's authorities.
        tls_cert: PEM file of the client's own certificate, where the scheduler asks for one; goes with ``tls_key``.
        token: bearer token sent with every call.
        insecure: no TLS although the address is not a loopback one.
        timeout: seconds a call may take that is not a stream.
        stream_timeout: seconds a stream may take whose request has no deadline; with one it is that plus 10.
        reconnect: bounds of taking up a broken stream again.

    Every method raises ``SageError``; see ``sage_client._errors`` for the tree.
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
        self._connection = Connection(
            address=address,
            tls_ca=_path(tls_ca),
            tls=tls,
            tls_cert=_path(tls_cert),
            tls_key=_path(tls_key),
            token=token,
            insecure=insecure,
        )
        self._tenant = tenant
        self._timeout = timeout
        self._stream_timeout = stream_timeout
        self._reconnect = reconnect or Reconnect()
        self._channel = self._connection.open()
        self._inference = inference_pb2_grpc.InferenceServiceStub(self._channel)
        self._admin = admin_pb2_grpc.AdminServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; streams that are open end."""
        await self._channel.close()

    def generate(self, prompt: str | None = None, **options: Unpack[GenerateOptions]) -> AsyncStream:
        """Submits a request and returns its stream; the request is sent without waiting for the first read.

        Args:
            prompt: text to continue; or give ``messages`` or ``token_ids``.
            options: see ``GenerateOptions`` and, for sampling, ``SamplingOptions``.

        Raises:
            InvalidRequestError: what the contract cannot carry; the server's findings come from the stream.
        """
        timeout = options.get("timeout") or self._stream_timeout_s(options.get("deadline"))
        request = encode_request(prompt, options, tenant=self._tenant)
        return AsyncStream(
            request, open_call=self._open, cancel=self._cancel, timeout_s=timeout, reconnect=self._reconnect
        )

    async def cancel(self, request_id: str, *, reason: str = "", tenant: str | None = None) -> Cancellation:
        """Ends a request early.  Idempotent."""
        return await self._cancel(request_id, self._tenant if tenant is None else tenant, reason)

    async def get_policy(self) -> PolicyStatus:
        """The policy in force and those there are."""
        return decode.policy_status(await self._ask(self._admin.GetPolicy, admin_pb2.GetPolicyRequest()))

    async def set_policy(self, policy: str, *, reason: str = "") -> PolicyChange:
        """Switches the policy; requests that wait are ordered anew.  Raises UnknownPolicyError."""
        request = admin_pb2.SetPolicyRequest(policy=policy, reason=reason)
        return decode.policy_change(await self._ask(self._admin.SetPolicy, request))

    async def list_instances(self, *, model: str = "", timeout: float | None = None) -> FleetView:
        """Every instance and queue, of one model or of all."""
        request = admin_pb2.ListInstancesRequest(model=model)
        return decode.fleet(await self._ask(self._admin.ListInstances, request, timeout=timeout))

    async def get_instance(self, instance_id: str) -> Instance:
        """One instance.  Raises InstanceNotFoundError."""
        request = admin_pb2.GetInstanceRequest(instance_id=instance_id)
        return decode.instance((await self._ask(self._admin.GetInstance, request)).instance)

    async def drain_instance(self, instance_id: str, *, reason: str = "") -> Instance:
        """Lets an instance finish what it has and gives it nothing new.  Raises InstanceNotFoundError."""
        request = admin_pb2.DrainInstanceRequest(instance_id=instance_id, reason=reason)
        return decode.instance((await self._ask(self._admin.DrainInstance, request)).instance)

    async def resume_instance(self, instance_id: str) -> Instance:
        """Takes a drain back.  Raises InstanceNotFoundError, InvalidStateError."""
        request = admin_pb2.ResumeInstanceRequest(instance_id=instance_id)
        return decode.instance((await self._ask(self._admin.ResumeInstance, request)).instance)

    async def set_instance_role(self, instance_id: str, role: InstanceRole | str) -> Instance:
        """Changes what an instance is eligible for while it runs.

        Raises ValueError for a role that there is not, InstanceNotFoundError, InvalidRequestError for a change to or
        from EMBEDDING: an executor is started as that.
        """
        request = admin_pb2.SetInstanceRoleRequest(instance_id=instance_id, role=decode.encode_role(role))
        return decode.instance((await self._ask(self._admin.SetInstanceRole, request)).instance)

    async def get_prefill_decode(self) -> PrefillDecodeStatus:
        """When requests are split, between which instances, and what keeps it from working."""
        request = admin_pb2.GetPrefillDecodeRequest()
        return prefill_decode.status(await self._ask(self._admin.GetPrefillDecode, request))

    async def set_prefill_decode(
        self,
        mode: SplitMode | str | None = None,
        *,
        threshold_input_tokens: int | None = None,
        threshold_ratio: float | None = None,
    ) -> PrefillDecodeConfig:
        """Changes when requests are split; what is None stays as it is.  Raises InvalidRequestError."""
        request = prefill_decode.change(mode, threshold_input_tokens, threshold_ratio)
        return prefill_decode.config((await self._ask(self._admin.SetPrefillDecode, request)).config)

    async def explain(self, request_id: str, *, tenant: str | None = None) -> Explanation:
        """Why a request went where it went.  Raises RequestNotFoundError."""
        request = admin_pb2.ExplainRequest(request_id=request_id, tenant=self._tenant if tenant is None else tenant)
        return decode.explanation(await self._ask(self._admin.Explain, request))

    async def watch_fleet(
        self, *, interval: float = 1.0, recent_decisions: int = 20
    ) -> AsyncGenerator[FleetSnapshot, None]:
        """The fleet as it is, at once and then every ``interval`` seconds, until the caller leaves.

        Who reads slowly gets what is current then, not what it missed.  Ends with an error where the connection
        breaks or the scheduler ends: calling again is safe.

        Args:
            interval: seconds between two snapshots, 0.25 to 60.
            recent_decisions: at most so many in a snapshot, up to 64.

        Raises:
            InvalidRequestError: an interval out of its range.
            LimitReachedError: too many watch already.
            UnavailableError: no connection, or it broke, or the client was closed.
            WaitTimeoutError: nothing came for ``interval`` and the client's ``timeout`` together.
        """
        if recent_decisions < 0:
            raise ConfigurationError(f"recent_decisions: {recent_decisions} is negative")
        request = fleet_snapshot.request(interval, recent_decisions)
        call: WatchCall = self._admin.WatchFleet(request, metadata=self._connection.metadata())
        async with aclosing(newest_snapshots(call, wait_s=interval + self._timeout)) as snapshots:
            async for each in snapshots:
                yield each

    def _stream_timeout_s(self, deadline: float | None) -> float:
        return self._stream_timeout if deadline is None else deadline + DEADLINE_GRACE_S

    def _open(self, request: inference_pb2.GenerateRequest) -> GenerateCall:
        return self._inference.Generate(request, metadata=self._connection.metadata())

    async def _cancel(self, request_id: str, tenant: str, reason: str) -> Cancellation:
        request = inference_pb2.CancelRequest(request_id=request_id, tenant=tenant, reason=reason)
        return decode.cancellation(await self._ask(self._inference.Cancel, request))

    async def _ask(self, method: Callable[..., Awaitable[_R]], request: object, *, timeout: float | None = None) -> _R:
        try:
            metadata = self._connection.metadata()
            return await method(request, timeout=timeout or self._timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from None


def _path(file: Path | str | None) -> Path | None:
    return Path(file) if file else None
