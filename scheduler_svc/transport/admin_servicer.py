"""AdminService: what operators call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc, common_pb2
from sage_common.clock import Clock
from scheduler_svc.access.caller import caller
from scheduler_svc.control.adapters.adapters import Adapters
from scheduler_svc.control.instances.instance_orders import InstanceOrders
from scheduler_svc.control.journal import fleet_decisions
from scheduler_svc.control.journal.decisions import POLICY, SHADOW, SPLITTING, Plain
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.control.leadership.standing import SchedulerState, Standing
from scheduler_svc.control.requests.explain import Explainer
from scheduler_svc.control.scaling.scaling_watch import ScalingWatch
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.control.watching.fleet_watch import FleetWatch
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.transport import fleet_snapshots, instance_decisions, prefill_decode
from scheduler_svc.transport.adapters import AdapterAnswers
from scheduler_svc.transport.clipping import stated_reason
from scheduler_svc.transport.desired_instances import desired_instances
from scheduler_svc.transport.enums import ROLE_FROM_WIRE, ROLE_TO_WIRE
from scheduler_svc.transport.instances import InstanceViews, instance_view
from scheduler_svc.transport.journal_answers import JournalAnswers
from scheduler_svc.transport.shadow_policy import shadow_policy
from scheduler_svc.transport.standing import scheduler_response
from scheduler_svc.transport.stories import story
from scheduler_svc.transport.submissions import key_seen
from scheduler_svc.transport.take_limit import Writing
from scheduler_svc.transport.usage_answers import UsageAnswers

log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Answer AdminService's calls from the scheduler and the fleet watch, and pass on orders.

    Handlers raise domain errors; ErrorInterceptor turns them into statuses.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        orders: InstanceOrders,
        explainer: Explainer,
        fleet_watch: FleetWatch,
        scaling: ScalingWatch,
        wakeup: Wakeup,
        decisions: OperatorDecisions,
        adapters: Adapters,
        usage: UsageAnswers,
        journal: JournalAnswers,
        *,
        epoch: int,
        standing: Callable[[], Standing] = lambda: Standing(state=SchedulerState.LEADING),
    ) -> None:
        """``standing``: what the scheduler does now."""
        self._standing = standing
        self._scheduler = scheduler
        self._clock = clock
        self._orders = orders
        self._explainer = explainer
        self._fleet_watch = fleet_watch
        self._scaling = scaling
        self._views = InstanceViews()
        self._snapshots = fleet_snapshots.SnapshotConversion(scheduler, epoch, self._views)
        self._wakeup = wakeup
        self._decisions = decisions
        self._adapters = AdapterAnswers(adapters)
        self._usage = usage
        self._journal = journal
        self._epoch = epoch

    async def GetScheduler(
        self, request: admin_pb2.GetSchedulerRequest, context: Context
    ) -> admin_pb2.GetSchedulerResponse:
        """Return whether this scheduler leads, and what is wrong."""
        return scheduler_response(self._standing())

    async def GetPolicy(self, request: admin_pb2.GetPolicyRequest, context: Context) -> admin_pb2.GetPolicyResponse:
        """Return the policy in force, every policy there is, and the latest switches (newest first)."""
        now = self._clock.now()
        warnings = self._scheduler.policy_warnings()
        return admin_pb2.GetPolicyResponse(
            policy=self._scheduler.policy,
            delegate=self._scheduler.delegate,
            available=[
                admin_pb2.PolicyInfo(name=name, summary=summary, warning=warnings.get(name, ""))
                for name, summary in self._scheduler.policy_summaries().items()
            ],
            switches=[fleet_snapshots.policy_switch(switch, now) for switch in reversed(self._scheduler.switches)],
            configured=self._scheduler.settings.policy,
            decided=bool(self._decisions.fleet(POLICY)),
            not_kept=self._decisions.not_kept(POLICY),
        )

    async def SetPolicy(self, request: admin_pb2.SetPolicyRequest, context: Context) -> admin_pb2.SetPolicyResponse:
        """Switch the policy and reorder the waiting requests.  Raises UnknownPolicy."""
        why = stated_reason(request.reason) or "set by an operator"
        previous, reordered = self._scheduler.set_policy(request.policy, self._clock.now(), why)
        log.info("policy %s -> %s (%d waiting requests reordered): %s", previous, request.policy, reordered, why)
        warning = self._scheduler.policy_warning
        if warning:
            log.warning("%s", warning)
        self._wakeup.notify()
        policy = self._scheduler.policy
        await self._decide(POLICY, fleet_decisions.policy(self._scheduler, request.policy, why))
        return admin_pb2.SetPolicyResponse(
            policy=policy,
            previous=previous,
            reordered=reordered,
            warning=warning,
            not_kept=self._decisions.not_kept(POLICY),
        )

    async def _decide(self, name: str, value: Mapping[str, Plain]) -> None:
        """Keep a decision about the fleet, which is in force already."""
        self._decisions.decide(name, value)
        await self._decisions.write()

    async def GetShadowPolicy(
        self, request: admin_pb2.GetShadowPolicyRequest, context: Context
    ) -> admin_pb2.GetShadowPolicyResponse:
        """Return the policy that decides beside the one in force, if there is one, and the comparison."""
        report = self._scheduler.shadow
        if report is None:
            return admin_pb2.GetShadowPolicyResponse()
        shadow = shadow_policy(report, self._scheduler.policy, self._clock.now())
        return admin_pb2.GetShadowPolicyResponse(shadow=shadow)

    async def SetShadowPolicy(
        self, request: admin_pb2.SetShadowPolicyRequest, context: Context
    ) -> admin_pb2.SetShadowPolicyResponse:
        """Let a policy decide beside the one in force, or end that.  Raises UnknownPolicy."""
        previous = self._scheduler.set_shadow(request.policy, self._clock.now())
        log.info("shadow policy %s -> %s", previous or "off", request.policy or "off")
        await self._decide(SHADOW, fleet_decisions.shadow(request.policy))
        return admin_pb2.SetShadowPolicyResponse(
            policy=request.policy, previous=previous, not_kept=self._decisions.not_kept(SHADOW)
        )

    async def ListInstances(
        self, request: admin_pb2.ListInstancesRequest, context: Context
    ) -> admin_pb2.ListInstancesResponse:
        """Return the instances and queues of one model, or of all models if none is named."""
        found = [i for i in self._scheduler.instances() if request.model in ("", i.spec.model)]
        found.sort(key=lambda i: i.spec.instance_id)
        response = admin_pb2.ListInstancesResponse()
        now = self._clock.now()
        for each in found:
            self._views.fill(response.instances.add(), each, now, self._decision(each))
        for model, queue in sorted(self._scheduler.queues().items()):
            if request.model in ("", model):
                response.queues.append(fleet_snapshots.queue_info(model, queue))
        known = {each.instance_id for each in self._scheduler.instances()}
        response.decisions.extend(instance_decisions.of_unknown_instances(self._decisions, known))
        return response

    def _view(self, instance: Instance) -> admin_pb2.Instance:
        return instance_view(instance, self._clock.now(), self._decision(instance))

    def _decision(self, instance: Instance) -> admin_pb2.InstanceDecision | None:
        return instance_decisions.decision_about(self._decisions, instance.instance_id)

    async def GetInstance(
        self, request: admin_pb2.GetInstanceRequest, context: Context
    ) -> admin_pb2.GetInstanceResponse:
        """Return one instance.  Raises InstanceNotFound."""
        instance = self._scheduler.instance(request.instance_id)
        return admin_pb2.GetInstanceResponse(instance=self._view(instance))

    async def ListDesiredInstances(
        self, request: admin_pb2.ListDesiredInstancesRequest, context: Context
    ) -> admin_pb2.ListDesiredInstancesResponse:
        """Return how many instances of one model, or of all, there are to be, and why.  Raises Recovering."""
        found = [each for each in self._scaling.known() if request.model in ("", each.model)]
        now = self._clock.now()
        return admin_pb2.ListDesiredInstancesResponse(
            desired=[desired_instances(each, now) for each in found], enabled=self._scaling.settings.enabled
        )

    async def DrainInstance(
        self, request: admin_pb2.DrainInstanceRequest, context: Context
    ) -> admin_pb2.DrainInstanceResponse:
        """Let an instance finish what it runs and give it nothing new.

        Raises InstanceNotFound, InvalidTransition.
        """
        instance = self._orders.drain(request.instance_id, stated_reason(request.reason), by_operator=True)
        await self._decisions.write()
        return admin_pb2.DrainInstanceResponse(instance=self._view(instance))

    async def ResumeInstance(
        self, request: admin_pb2.ResumeInstanceRequest, context: Context
    ) -> admin_pb2.ResumeInstanceResponse:
        """Take an operator's drain back; of an instance that only the journal knows, the role that it was given, too.

        Raises InstanceNotFound, InvalidTransition.
        """
        instance_id = request.instance_id
        unknown = self._scheduler.find_instance(instance_id) is None
        if unknown and not self._decisions.instance(instance_id).is_empty:
            self._decisions.take_back(instance_id)
            await self._decisions.write()
            view = instance_decisions.unknown_instance(self._decisions, instance_id)
        else:
            instance = self._orders.resume(instance_id)
            await self._decisions.write()
            view = self._view(instance)
        return admin_pb2.ResumeInstanceResponse(instance=view)

    async def SleepInstance(
        self, request: admin_pb2.SleepInstanceRequest, context: Context
    ) -> admin_pb2.SleepInstanceResponse:
        """Let an instance finish what it runs, and then its engine sleep.

        Raises InstanceNotFound, InvalidTransition, InvalidRequest.
        """
        instance = self._orders.sleep(request.instance_id, stated_reason(request.reason) or "ordered by an operator")
        return admin_pb2.SleepInstanceResponse(instance=self._view(instance))

    async def WakeInstance(
        self, request: admin_pb2.WakeInstanceRequest, context: Context
    ) -> admin_pb2.WakeInstanceResponse:
        """Wake an instance that sleeps.  Raises InstanceNotFound, InvalidTransition, InvalidRequest."""
        instance = self._orders.wake(request.instance_id)
        return admin_pb2.WakeInstanceResponse(instance=self._view(instance))

    async def SetInstanceRole(
        self, request: admin_pb2.SetInstanceRoleRequest, context: Context
    ) -> admin_pb2.SetInstanceRoleResponse:
        """Change which requests an instance is eligible for; what it runs goes on.

        Raises InstanceNotFound, and InvalidRequest for an unknown role or a change to or from EMBEDDING.
        """
        role = ROLE_FROM_WIRE.get(request.role)
        if role is None or request.role == common_pb2.INSTANCE_ROLE_UNSPECIFIED:
            raise InvalidRequest([FieldViolation(field="role", description=f"{request.role} is not a role")])
        previous = self._scheduler.set_role(request.instance_id, role)
        instance = self._scheduler.instance(request.instance_id)
        log.info("instance %s: role %s -> %s", instance.instance_id, previous.value, role.value)
        self._wakeup.notify()
        self._decisions.set_role(instance.instance_id, None if role is instance.spec.role else role)
        await self._decisions.write()
        return admin_pb2.SetInstanceRoleResponse(instance=self._view(instance), previous=ROLE_TO_WIRE[previous])

    async def GetPrefillDecode(
        self, request: admin_pb2.GetPrefillDecodeRequest, context: Context
    ) -> admin_pb2.GetPrefillDecodeResponse:
        """Return when requests are split, the pairs of instances, and what keeps splitting from working."""
        return prefill_decode.state(self._scheduler, self._clock.now())

    async def SetPrefillDecode(
        self, request: admin_pb2.SetPrefillDecodeRequest, context: Context
    ) -> admin_pb2.SetPrefillDecodeResponse:
        """Change when requests are split; absent fields stay as they are.

        Raises InvalidRequest for an unknown mode or a threshold out of range.
        """
        settings = prefill_decode.changed(self._scheduler.pd_settings, request.config)
        before, now = prefill_decode.in_words(self._scheduler.pd_settings), prefill_decode.in_words(settings)
        log.info("prefill/decode: split %s, before %s", now, before)
        self._scheduler.set_pd(settings)
        self._wakeup.notify()
        await self._decide(SPLITTING, fleet_decisions.splitting(self._scheduler, settings))
        not_kept = self._decisions.not_kept(SPLITTING)
        return admin_pb2.SetPrefillDecodeResponse(config=prefill_decode.config(settings), not_kept=not_kept)

    async def Explain(self, request: admin_pb2.ExplainRequest, context: Context) -> admin_pb2.ExplainResponse:
        """Return a request's decisions, history and time slices.  Raises RequestNotFound."""
        key = key_seen(caller(), request.tenant, request.request_id)
        return story(self._explainer.explain(key), self._scheduler, self._epoch)

    async def WatchFleet(  # type: ignore[override]  # it writes to the context instead of yielding
        self, request: admin_pb2.WatchFleetRequest, context: Context
    ) -> None:
        """Stream snapshots of the fleet at the watcher's interval until it leaves.

        Ids and tenants of requests are only for callers that may see every tenant's.

        Raises InvalidRequest for an interval out of range, and LimitReached for too many watchers or a watcher that
        does not read.
        """
        interval_s = fleet_snapshots.interval_s(request)
        decisions = fleet_snapshots.decisions(request)
        with_requests = caller().sees_every_tenant
        snapshots = self._fleet_watch.snapshots(interval_s, client=_client(context))
        leaving: list[asyncio.Task[None]] = []

        def leave() -> None:
            leaving.append(asyncio.ensure_future(snapshots.aclose()))

        async with aclosing(snapshots):
            with Writing(context.write, leave) as write:
                async for taken in snapshots:
                    # The write waits while the watcher does not read; the next snapshot is taken after that.
                    await write(self._snapshots.response(taken, decisions, with_requests=with_requests))

    async def ListUsage(
        self, request: admin_pb2.ListUsageRequest, context: Context
    ) -> AsyncIterator[admin_pb2.ListUsageResponse]:
        """Stream usage records, a page a message.  Raises InvalidRequest, JournalUnavailable."""
        async with aclosing(self._usage.pages(request)) as pages:
            async for page in pages:
                yield page

    async def SumUsage(self, request: admin_pb2.SumUsageRequest, context: Context) -> admin_pb2.SumUsageResponse:
        """Return sums over usage records.  Raises InvalidRequest, LimitReached, JournalUnavailable."""
        return await self._usage.sums(request)

    async def GetJournal(self, request: admin_pb2.GetJournalRequest, context: Context) -> admin_pb2.GetJournalResponse:
        """Return what the journal is, what it holds and whether it works."""
        return await self._journal.status()

    async def CompactJournal(
        self, request: admin_pb2.CompactJournalRequest, context: Context
    ) -> admin_pb2.CompactJournalResponse:
        """Delete what the journal need not keep, and give space back.  Raises JournalUnavailable."""
        return await self._journal.compact()

    async def ExportJournal(
        self, request: admin_pb2.ExportJournalRequest, context: Context
    ) -> AsyncIterator[admin_pb2.ExportJournalResponse]:
        """Stream the journal's rows, a page a message.  Raises InvalidRequest, JournalUnavailable."""
        async with aclosing(self._journal.export(request)) as pages:
            async for page in pages:
                yield page

    async def AddAdapter(self, request: admin_pb2.AddAdapterRequest, context: Context) -> admin_pb2.AddAdapterResponse:
        """Enter a LoRA adapter into the registry.  Raises InvalidRequest, UnknownModel, LimitReached."""
        return await self._adapters.add(request)

    async def ListAdapters(
        self, request: admin_pb2.ListAdaptersRequest, context: Context
    ) -> admin_pb2.ListAdaptersResponse:
        """Return the adapters of the registry, and what each instance has of them."""
        return self._adapters.list(request)

    async def RemoveAdapter(
        self, request: admin_pb2.RemoveAdapterRequest, context: Context
    ) -> admin_pb2.RemoveAdapterResponse:
        """Take a LoRA adapter out of the registry.  Raises InvalidRequest, UnknownModel."""
        return await self._adapters.remove(request)


def _client(context: Context) -> str:
    """Return what the watchers of one client have in common: its identity, else the host it calls from."""
    identity = caller()
    return identity.name if identity.grant is not None else context.peer().rpartition(":")[0]
