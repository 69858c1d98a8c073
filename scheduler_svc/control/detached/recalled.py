"""Makes a request of what the journal has of it."""

from __future__ import annotations

from scheduler_svc.control.detached.codec import Codec
from scheduler_svc.control.journal.detached import StoredRequest
from scheduler_svc.control.requests.choices import split
from scheduler_svc.control.requests.earlier_attempt import RESTORED_ATTEMPT, RestoredOutput
from scheduler_svc.control.requests.live_request import LiveRequest, join_choices
from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.domain.request import Request, RequestState


def unfinished(stored: StoredRequest, codec: Codec, wall_s: float) -> LiveRequest:
    """Return a request that has not ended, with the output of all its choices so far.

    ``wall_s``: seconds since 1970 at the control clock's zero.  Raises Unreadable.
    """
    request = stored.request
    deadline_at = None if request.deadline_at is None else request.deadline_at - wall_s
    decoded = codec.decode(request.content, arrived_at=request.accepted_at - wall_s, deadline_at=deadline_at)
    return with_output(stored, decoded.request, decoded.warnings, wall_s)


def with_output(stored: StoredRequest, request: Request, warnings: tuple[str, ...], wall_s: float) -> LiveRequest:
    """Return a live request with the output that the journal has; of several choices that of choice 0.

    ``request``: of any of its choices.
    """
    made = [_choice(stored, each, warnings, wall_s) for each in split(request)]
    if len(made) > 1:
        join_choices(made)
    return made[0]


def _choice(stored: StoredRequest, request: Request, warnings: tuple[str, ...], wall_s: float) -> LiveRequest:
    kept = stored.choice(request.key.choice)
    facts = kept.facts
    live = LiveRequest(
        request=request,
        digest=stored.request.digest,
        detached=True,
        warnings=warnings,
        identity=facts.identity,
        cost=facts.cost,
        first_token_at=None if facts.first_token_at is None else facts.first_token_at - wall_s,
    )
    for piece in kept.pieces:
        live.output.restore(RESTORED_ATTEMPT, piece)
    live.attempts_before = facts.attempts
    live.restored = RestoredOutput(tokens=len(live.output), epoch=facts.epoch, number=facts.attempt_number)
    return live


def recalled(stored: StoredRequest, codec: Codec, wall_s: float) -> LiveRequest:
    """Return a request that has ended, with its result.  Raises Unreadable."""
    live = unfinished(stored, codec, wall_s)
    for each in live.members:
        end = stored.choice(each.key.choice).end or stored.end  # one that could not be read ended as choice 0 did
        assert end is not None
        each.output.close(end.tail)
        each.outcome = codec.decode_outcome(end.outcome)
        each.state = RequestState.FINISHED if isinstance(each.outcome, Finished) else end.state
        each.journaled = each.end_is_published = True
        each.forget_input()
    return live
