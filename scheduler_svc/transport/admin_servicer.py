"""What operators call."""

from __future__ import annotations

import logging
from typing import Any, TypeAlias

import grpc

from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc, common_pb2
from scheduler_svc.control.clock import ControlClock
from scheduler_svc.control.explain import Explainer, Story
from scheduler_svc.control.sessions import Sessions
from scheduler_svc.control.wakeup import Wakeup
from scheduler_svc.domain.core import SchedulingCore
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.transport import durations, events, prefill_decode
from scheduler_svc.transport.enums import (
    PRIORITY_TO_WIRE,
    REQUEST_STATE_TO_WIRE,
    ROLE_FROM_WIRE,
    ROLE_TO_WIRE,
)
from scheduler_svc.transport.errors import to_status
from scheduler_svc.transport.instances import instance_view
from scheduler_svc.transport.submissions import DEFAULT_TENANT

log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    def __init__(
        self,
        core: SchedulingCore,
        clock: ControlClock,
        sessions: Sessions,
        explainer: Explainer,
        wakeup: Wakeup,
        *,
        epoch: int,
    ) -> None:
        self._core = core
        self._clock = clock
        self._sessions = sessions
        self._explainer = explainer
        self._wakeup = wakeup
        self._epoch = epoch

    async def GetPolicy(self, request: admin_pb2.GetPolicyRequest, context: Context) -> admin_pb2.GetPolicyResponse:
        now = self._clock.now()
        return admin_pb2.GetPolicyResponse(
            policy=self._core.policy,
            delegate=self._core.delegate,
            available=[
                admin_pb2.PolicyInfo(name=name, summary=summary)
                for name, summary in self._core.policies.summaries(self._core.settings).items()
            ],
            switches=[
                admin_pb2.PolicySwitch(
                    from_policy=s.from_policy,
                    to_policy=s.to_policy,
                    reason=s.reason,
                    ago=durations.to_wire(now - s.at),
                )
                for s in reversed(self._core.switches)
            ],
        )

    async def SetPolicy(self, request: admin_pb2.SetPolicyRequest, context: Context) -> admin_pb2.SetPolicyResponse:
        reason = request.reason or "set by an operator"
        previous, reordered = self._core.set_policy(request.policy, self._clock.now(), reason)
        log.info("policy %s -> %s (%d requests reordered): %s", previous, request.policy, reordered, reason)
        self._wakeup.kick()
        return admin_pb2.SetPolicyResponse(policy=self._core.policy, previous=previous, reordered=reordered)

    async def ListInstances(
        self, request: admin_pb2.ListInstancesRequest, context: Context
    ) -> admin_pb2.ListInstancesResponse:
        now = self._clock.now()
        found = [i for i in self._core.registry.all() if request.model in ("", i.spec.model)]
        found.sort(key=lambda i: i.spec.instance_id)
        return admin_pb2.ListInstancesResponse(
            instances=[instance_view(i, now) for i in found],
            queues=[
                admin_pb2.QueueInfo(
                    model=model,
                    waiting=queue.waiting,
                    limit=queue.limit,
                    waiting_by_priority={p.name.lower(): n for p, n in queue.by_priority.items()},
                )
                for model, queue in sorted(self._core.queues().items())
                if request.model in ("", model)
            ],
        )

    async def GetInstance(
        self, request: admin_pb2.GetInstanceRequest, context: Context
    ) -> admin_pb2.GetInstanceResponse:
        instance = self._core.registry.get(request.instance_id)
        return admin_pb2.GetInstanceResponse(instance=instance_view(instance, self._clock.now()))

    async def DrainInstance(
        self, request: admin_pb2.DrainInstanceRequest, context: Context
    ) -> admin_pb2.DrainInstanceResponse:
        instance = self._sessions.drain(request.instance_id, request.reason, by_operator=True)
        return admin_pb2.DrainInstanceResponse(instance=instance_view(instance, self._clock.now()))

    async def ResumeInstance(
        self, request: admin_pb2.ResumeInstanceRequest, context: Context
    ) -> admin_pb2.ResumeInstanceResponse:
        instance = self._sessions.resume(request.instance_id)
        return admin_pb2.ResumeInstanceResponse(instance=instance_view(instance, self._clock.now()))

    async def SetInstanceRole(
        self, request: admin_pb2.SetInstanceRoleRequest, context: Context
    ) -> admin_pb2.SetInstanceRoleResponse:
        role = ROLE_FROM_WIRE.get(request.role)
        if role is None or request.role == common_pb2.INSTANCE_ROLE_UNSPECIFIED:
            raise InvalidRequest([FieldViolation(field="role", description=f"{request.role} is not a role")])
        instance = self._core.registry.get(request.instance_id)
        previous, instance.role = instance.role, role
        log.info("instance %s: role %s -> %s", instance.instance_id, previous.value, role.value)
        self._wakeup.kick()
        view = instance_view(instance, self._clock.now())
        return admin_pb2.SetInstanceRoleResponse(instance=view, previous=ROLE_TO_WIRE[previous])

    async def GetPrefillDecode(
        self, request: admin_pb2.GetPrefillDecodeRequest, context: Context
    ) -> admin_pb2.GetPrefillDecodeResponse:
        return prefill_decode.state(self._core)

    async def SetPrefillDecode(
        self, request: admin_pb2.SetPrefillDecodeRequest, context: Context
    ) -> admin_pb2.SetPrefillDecodeResponse:
        settings = prefill_decode.changed(self._core.pd.settings, request.config)
        log.info("prefill/decode: %s -> %s", self._core.pd.settings, settings)
        self._core.pd.settings = settings
        self._wakeup.kick()
        return admin_pb2.SetPrefillDecodeResponse(config=prefill_decode.config(settings))

    async def Explain(self, request: admin_pb2.ExplainRequest, context: Context) -> admin_pb2.ExplainResponse:
        key = RequestKey(tenant=request.tenant or DEFAULT_TENANT, request_id=request.request_id)
        return self._story(self._explainer.explain(key))

    def _story(self, story: Story) -> admin_pb2.ExplainResponse:
        live = story.live
        wire = admin_pb2.ExplainResponse(
            request_id=live.key.request_id,
            model=live.request.model,
            priority=PRIORITY_TO_WIRE[live.request.priority],
            state=REQUEST_STATE_TO_WIRE[live.state],
            waiting_because=story.waiting_because,
            queue_position=story.queue_position,
            ordering_key=story.ordering_key,
        )
        for placement in live.placements:
            decision = placement.decision
            instance = self._core.registry.find(decision.instance_id)
            wire.decisions.append(events.decision(decision, instance, self._epoch, with_candidates=True))
        for entry in live.history:
            wire.history.add(
                at=durations.to_wire(entry.at - live.request.arrived_at),
                event=entry.event,
                detail=entry.detail,
            )
        if isinstance(live.outcome, Exception):
            wire.error.CopyFrom(to_status(live.outcome))
        return wire
