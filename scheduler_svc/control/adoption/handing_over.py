"""What a scheduler that hands over writes down about its instances, for the next one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from scheduler_svc.control.adoption.adoption import Adoption
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.control.requests.kept_ends import KeptEnds
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.recovery import Recovery
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.domain.request import RequestKey

HELD_LIMIT = 16_384
"""Requests that are written down in all; of further instances it is not known what they hold."""


def handed_over(
    models: Mapping[str, str], requests: RequestTable, ends: KeptEnds, recovery: Recovery, adoption: Adoption
) -> dict[str, EarlierInstance]:
    """Return the instances that the next scheduler waits for, each with the requests that it may hold.

    ``models``: of the instances with a session.  A request may be at every instance where it was placed once: an
    instance that was lost may hold its attempt still.  An instance that has not told everything it holds of earlier
    schedulers stays as they left it, or unknown if it has been here.  To be called once no Assign is sent any more.
    """
    found, room = dict(recovery.awaited), HELD_LIMIT
    for instance_id, held in _held(models, requests, ends).items():
        known = adoption.settled(instance_id) and len(held) <= room
        room -= len(held) if known else 0
        found[instance_id] = EarlierInstance(model=models[instance_id], holds=frozenset(held) if known else None)
    return found


def _held(models: Iterable[str], requests: RequestTable, ends: KeptEnds) -> dict[str, set[RequestKey]]:
    held = {instance_id: {live.key for live in ends.at(instance_id)} for instance_id in models}
    for live in requests:
        for instance_id in _placed_at(live):
            if instance_id in held:
                held[instance_id].add(live.key)
    return held


def _placed_at(live: LiveRequest) -> Iterator[str]:
    for each in live.placements:
        yield each.decision.instance_id
        if each.decision.prefill is not None:
            yield each.decision.prefill.instance_id
