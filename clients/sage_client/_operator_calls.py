"""What operators and observers ask of a scheduler: instances, policies, usage, the journal, the fleet as it changes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime

from sage.controlplane.v1 import admin_pb2
from sage_client import _decode_admin as decode
from sage_client import _decode_fleet_snapshot as fleet_snapshot
from sage_client import _decode_prefill_decode as prefill_decode
from sage_client._adapters import Adapter, decode_adapter
from sage_client._channels import Channels
from sage_client._decode_scheduler_status import scheduler_status
from sage_client._desired_instances import DesiredFleet, desired_fleet
from sage_client._enums import InstanceRole
from sage_client._errors import ConfigurationError
from sage_client._fleet_feed import WatchCall, newest_snapshots
from sage_client._fleet_snapshot import FleetSnapshot
from sage_client._fleet_view import (
    Explanation,
    FleetView,
    Instance,
    PolicyChange,
    PolicyStatus,
    ShadowPolicy,
    ShadowPolicyChange,
)
from sage_client._journal import JournalCompaction, JournalStatus, journal_compaction, journal_status
from sage_client._leader_calls import LeaderCalls
from sage_client._prefill_decode import PrefillDecodeConfig, PrefillDecodeStatus, SplitMode
from sage_client._scheduler_status import SchedulerStatus
from sage_client._usage import (
    UsageGroup,
    UsageRecord,
    UsageSum,
    encode_groups,
    usage_filter,
    usage_record,
    usage_sum,
)

COMPACT_TIMEOUT_S = 900.0


class OperatorCalls(LeaderCalls):
    """The calls of AdminService.

    Attributes:
        _tenant: of requests that are named without one.
    """

    _tenant: str

    async def get_scheduler(self) -> SchedulerStatus:
        """Return what the scheduler that is called says of itself; one that stands by answers, too.

        Of several addresses the one is asked that other calls go to now.
        """
        request = admin_pb2.GetSchedulerRequest()
        return scheduler_status(await self._ask(lambda at: at.admin.GetScheduler, request))

    async def get_policy(self) -> PolicyStatus:
        """Return the current policy, the available ones and the latest switches."""
        return decode.policy_status(await self._ask(lambda at: at.admin.GetPolicy, admin_pb2.GetPolicyRequest()))

    async def set_policy(self, policy: str, *, reason: str = "") -> PolicyChange:
        """Switch the policy; waiting requests are reordered.

        Raises:
            UnknownPolicyError: the scheduler has no policy of this name.
        """
        request = admin_pb2.SetPolicyRequest(policy=policy, reason=reason)
        return decode.policy_change(await self._ask(lambda at: at.admin.SetPolicy, request))

    async def get_shadow_policy(self) -> ShadowPolicy | None:
        """Return the policy that decides beside the current one, and the comparison; None if there is none."""
        return decode.shadow_policy(
            await self._ask(lambda at: at.admin.GetShadowPolicy, admin_pb2.GetShadowPolicyRequest())
        )

    async def set_shadow_policy(self, policy: str) -> ShadowPolicyChange:
        """Let a policy decide beside the current one, which places no request; empty: none from now on.

        Raises:
            UnknownPolicyError: the scheduler has no policy of this name.
        """
        request = admin_pb2.SetShadowPolicyRequest(policy=policy)
        return decode.shadow_policy_change(await self._ask(lambda at: at.admin.SetShadowPolicy, request))

    async def list_instances(self, *, model: str = "", timeout: float | None = None) -> FleetView:
        """Return all instances and queues, or those of one model."""
        request = admin_pb2.ListInstancesRequest(model=model)
        return decode.fleet(await self._ask(lambda at: at.admin.ListInstances, request, timeout=timeout))

    async def get_instance(self, instance_id: str) -> Instance:
        """Return one instance.

        Raises:
            InstanceNotFoundError: no instance has this id.
        """
        request = admin_pb2.GetInstanceRequest(instance_id=instance_id)
        return decode.instance((await self._ask(lambda at: at.admin.GetInstance, request)).instance)

    async def desired_instances(self, *, model: str = "", timeout: float | None = None) -> DesiredFleet:
        """Return how many instances of each model, or of one, there are to be, and why."""
        request = admin_pb2.ListDesiredInstancesRequest(model=model)
        return desired_fleet(await self._ask(lambda at: at.admin.ListDesiredInstances, request, timeout=timeout))

    async def drain_instance(self, instance_id: str, *, reason: str = "") -> Instance:
        """Drain an instance: it finishes its requests and gets no new ones.

        Raises:
            InstanceNotFoundError: no instance has this id.
        """
        request = admin_pb2.DrainInstanceRequest(instance_id=instance_id, reason=reason)
        return decode.instance((await self._ask(lambda at: at.admin.DrainInstance, request)).instance)

    async def resume_instance(self, instance_id: str) -> Instance:
        """Resume a drained instance: it gets new requests again.

        Raises:
            InstanceNotFoundError: no instance has this id.
            InvalidStateError: the instance cannot be resumed in its state.
        """
        request = admin_pb2.ResumeInstanceRequest(instance_id=instance_id)
        return decode.instance((await self._ask(lambda at: at.admin.ResumeInstance, request)).instance)

    async def sleep_instance(self, instance_id: str, *, reason: str = "") -> Instance:
        """Put an instance to sleep: it finishes its requests, then others have its device's memory.

        Raises:
            InstanceNotFoundError: no instance has this id.
            InvalidStateError: the instance starts or is gone.
            InvalidRequestError: its engine cannot sleep.
        """
        request = admin_pb2.SleepInstanceRequest(instance_id=instance_id, reason=reason)
        return decode.instance((await self._ask(lambda at: at.admin.SleepInstance, request)).instance)

    async def wake_instance(self, instance_id: str) -> Instance:
        """Wake an instance that sleeps.

        Raises:
            InstanceNotFoundError: no instance has this id.
            InvalidStateError: the instance starts or is gone.
            InvalidRequestError: its engine cannot sleep.
        """
        request = admin_pb2.WakeInstanceRequest(instance_id=instance_id)
        return decode.instance((await self._ask(lambda at: at.admin.WakeInstance, request)).instance)

    async def set_instance_role(self, instance_id: str, role: InstanceRole | str) -> Instance:
        """Change an instance's role while it runs.

        Raises:
            ValueError: the role does not exist.
            InstanceNotFoundError: no instance has this id.
            InvalidRequestError: to or from EMBEDDING, which only an executor's start can set.
        """
        request = admin_pb2.SetInstanceRoleRequest(instance_id=instance_id, role=decode.encode_role(role))
        return decode.instance((await self._ask(lambda at: at.admin.SetInstanceRole, request)).instance)

    async def add_adapter(
        self, name: str, source: str, *, model: str = "", revision: str = "", max_rank: int = 0
    ) -> Adapter:
        """Have every instance of a model load a LoRA adapter, which requests may name at once.

        Args:
            name: what requests name.
            source: directory on the executors' machines, or id on the model hub.
            model: the model that it adapts; empty: the only one.
            revision: branch, tag or commit of the hub.
            max_rank: refuse a larger rank; 0: each engine's own bound only.

        Raises:
            InvalidRequestError: the name is taken, or an argument cannot be.
            UnknownModelError: no instance serves the model.
            LimitReachedError: there are 1,024 adapters.
        """
        request = admin_pb2.AddAdapterRequest(
            name=name, source=source, model=model, revision=revision, max_rank=max_rank
        )
        return decode_adapter((await self._ask(lambda at: at.admin.AddAdapter, request)).adapter)

    async def list_adapters(self, *, model: str = "") -> tuple[Adapter, ...]:
        """Return the adapters that were added, or those of one model, and what each instance has of them."""
        request = admin_pb2.ListAdaptersRequest(model=model)
        return tuple(map(decode_adapter, (await self._ask(lambda at: at.admin.ListAdapters, request)).adapters))

    async def remove_adapter(self, name: str, *, model: str = "") -> Adapter:
        """Take an adapter out: accepted requests end first, new ones are refused.

        Raises:
            InvalidRequestError: no such adapter was added.
            UnknownModelError: no instance serves the model.
        """
        request = admin_pb2.RemoveAdapterRequest(name=name, model=model)
        return decode_adapter((await self._ask(lambda at: at.admin.RemoveAdapter, request)).adapter)

    async def get_prefill_decode(self) -> PrefillDecodeStatus:
        """Return when requests are split, the instance pairs, and conditions that prevent it."""
        request = admin_pb2.GetPrefillDecodeRequest()
        return prefill_decode.status(await self._ask(lambda at: at.admin.GetPrefillDecode, request))

    async def set_prefill_decode(
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
        request = prefill_decode.change(mode, threshold_input_tokens, threshold_ratio)
        answer = await self._ask(lambda at: at.admin.SetPrefillDecode, request)
        return prefill_decode.config(answer.config, answer.not_kept)

    async def explain(self, request_id: str, *, tenant: str | None = None) -> Explanation:
        """Return a request's history and the decisions about it, with candidates and reasons.

        Raises:
            RequestNotFoundError: the scheduler has no record of this request.
        """
        request = admin_pb2.ExplainRequest(request_id=request_id, tenant=self._tenant if tenant is None else tenant)
        return decode.explanation(await self._ask(lambda at: at.admin.Explain, request))

    async def list_usage(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        tenants: Iterable[str] = (),
        models: Iterable[str] = (),
        limit: int | None = None,
    ) -> AsyncGenerator[UsageRecord, None]:
        """Yield the usage records of requests that ended from ``since`` on and before ``until``, the oldest first.

        A time without a zone is local time.  Operators and observers may call it.

        Raises:
            InvalidRequestError: ``until`` is not after ``since``.
            JournalUnavailableError: the scheduler's journal cannot be read, or there is none.
        """
        request = admin_pb2.ListUsageRequest(filter=usage_filter(since, until, tenants, models), limit=limit or 0)
        async with aclosing(self._pages(lambda at: at.admin.ListUsage, request)) as pages:
            async for page in pages:
                for record in page.records:
                    yield usage_record(record)

    async def sum_usage(
        self,
        by: Sequence[UsageGroup | str] = (),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        tenants: Iterable[str] = (),
        models: Iterable[str] = (),
    ) -> Sequence[UsageSum]:
        """Return sums over usage records, one for each combination of the groups ``by``; see ``list_usage``.

        Raises:
            ValueError: a group does not exist.
            LimitReachedError: there are too many groups.
        """
        wanted = usage_filter(since, until, tenants, models)
        request = admin_pb2.SumUsageRequest(filter=wanted, group_by=encode_groups(by))
        return [usage_sum(each) for each in (await self._ask(lambda at: at.admin.SumUsage, request)).sums]

    async def get_journal(self) -> JournalStatus | None:
        """Return what the scheduler's journal is, what it holds and whether it works; None if there is none."""
        return journal_status(await self._ask(lambda at: at.admin.GetJournal, admin_pb2.GetJournalRequest()))

    async def compact_journal(self) -> JournalCompaction:
        """Have the journal delete what it need not keep and give space back, which may take minutes.

        Raises:
            JournalUnavailableError: the journal cannot be used, or there is none.
        """
        request = admin_pb2.CompactJournalRequest()
        answer = await self._ask(lambda at: at.admin.CompactJournal, request, timeout=COMPACT_TIMEOUT_S)
        return journal_compaction(answer)

    async def export_journal(self, *, tables: Iterable[str] = ()) -> AsyncGenerator[str, None]:
        """Yield every row of the journal, or of some tables, as a line of JSON.

        Raises:
            InvalidRequestError: there is no such table.
            JournalUnavailableError: the journal cannot be read, or there is none.
        """
        request = admin_pb2.ExportJournalRequest(tables=tables)
        async with aclosing(self._pages(lambda at: at.admin.ExportJournal, request)) as pages:
            async for page in pages:
                for line in page.lines:
                    yield line

    async def watch_fleet(
        self, *, interval: float = 1.0, recent_decisions: int = 20
    ) -> AsyncGenerator[FleetSnapshot, None]:
        """Yield the fleet's state at once and then every ``interval`` seconds, until the caller stops reading.

        A slow reader gets the newest snapshot and skips those it missed.  The watch ends with an error if the
        connection breaks or the scheduler ends; calling again is safe.

        Args:
            interval: seconds between two snapshots, 0.25 to 60.
            recent_decisions: maximum number of recent decisions in a snapshot, up to 64.

        Raises:
            InvalidRequestError: the interval is out of range.
            LimitReachedError: too many clients are watching.
            UnavailableError: no connection, a broken connection, or a closed client.
            WaitTimeoutError: nothing arrived for ``interval`` plus the client's ``timeout``.
        """
        if recent_decisions < 0:
            raise ConfigurationError(f"recent_decisions: {recent_decisions} is negative")
        request = fleet_snapshot.request(interval, recent_decisions)

        def begin(at: Channels) -> AsyncGenerator[FleetSnapshot, None]:
            call: WatchCall = at.admin.WatchFleet(request, metadata=self._connection.metadata())
            return newest_snapshots(call, wait_s=interval + self._timeout)

        async with aclosing(self._streamed(begin)) as snapshots:
            async for each in snapshots:
                yield each
