"""A request's story as AdminService.Explain shows it."""

from __future__ import annotations

from sage.controlplane.v1 import admin_pb2
from sage_wire import durations
from scheduler_svc.control.requests.explain import Story
from scheduler_svc.control.requests.timeline import TimeSlice, TimeUse
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.transport import events
from scheduler_svc.transport.enums import PRIORITY_TO_WIRE, REQUEST_STATE_TO_WIRE
from scheduler_svc.transport.errors import to_status

TIME_USE_TO_WIRE: dict[TimeUse, admin_pb2.TimeUse.ValueType] = {
    TimeUse.QUEUE: admin_pb2.TIME_USE_QUEUE,
    TimeUse.PREFILL: admin_pb2.TIME_USE_PREFILL,
    TimeUse.TRANSFER: admin_pb2.TIME_USE_TRANSFER,
    TimeUse.DECODE: admin_pb2.TIME_USE_DECODE,
    TimeUse.LOST: admin_pb2.TIME_USE_LOST,
}


def story(found: Story, scheduler: Scheduler, epoch: int, *, with_candidates: bool = True) -> admin_pb2.ExplainResponse:
    """Convert a story: the request, its decisions with candidates, its history and its time slices.

    Times in the message are relative to the request's arrival.  Of several choices each has a story like that of a
    request, without candidates.
    """
    live = found.live
    wire = admin_pb2.ExplainResponse(
        request_id=live.key.request_id,
        model=live.request.model,
        priority=PRIORITY_TO_WIRE[live.request.priority],
        state=REQUEST_STATE_TO_WIRE[live.state],
        waiting_because=found.waiting_because,
        queue_position=found.queue_position,
        ordering_key=found.ordering_key,
        time_slices=[_slice(each) for each in found.time_slices],
        prompt_tokens=live.request.prompt_tokens,
        completion_tokens=len(live.output),
        slo=[events.slo_result(each) for each in found.slo],
        cost=live.cost,
    )
    for placement in live.placements:
        decision = placement.decision
        instance = scheduler.find_instance(decision.instance_id)
        events.fill_decision(wire.decisions.add(), decision, instance, live, epoch, with_candidates=with_candidates)
    for entry in found.history:
        wire.history.add(
            at=durations.to_wire(entry.at - live.request.arrived_at),
            event=entry.event,
            detail=entry.detail,
        )
    if isinstance(live.outcome, Exception):
        wire.error.CopyFrom(to_status(live.outcome))
    wire.choices.extend(story(each, scheduler, epoch, with_candidates=False) for each in found.choices)
    return wire


def _slice(each: TimeSlice) -> admin_pb2.TimeSlice:
    return admin_pb2.TimeSlice(
        use=TIME_USE_TO_WIRE[each.use],
        start=durations.to_wire(each.start_s),
        length=durations.to_wire(each.length_s),
        instance_id=each.instance_id,
    )
