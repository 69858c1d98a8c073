"""What is to happen to one member of a device group, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    """What is to happen to a member; a label of metrics."""

    WAKE = "wake"
    DRAIN = "drain"  # it gets no new work, and sleeps once nothing runs there
    RESUME = "resume"  # its drain is lifted
    GIVE_BACK = "give_back"  # the requests that still run there wait again, with the tokens that they have


class Cause(Enum):
    """Why an order is given; a label of metrics."""

    WAITING = "waiting"  # requests wait for its model
    PEER_WANTED = "peer_wanted"  # another one is wanted, and this one has nothing to do
    TURN_OVER = "turn_over"  # another one is wanted, and this one had its turn
    DRAIN_LIMIT = "drain_limit"  # what ran there did not end in time
    PEER_NOT_WANTED = "peer_not_wanted"  # the other one is not wanted any more


#: Every action with every cause that it may have.
CAUSED = (
    (Action.WAKE, Cause.WAITING),
    (Action.DRAIN, Cause.PEER_WANTED),
    (Action.DRAIN, Cause.TURN_OVER),
    (Action.RESUME, Cause.PEER_NOT_WANTED),
    (Action.GIVE_BACK, Cause.DRAIN_LIMIT),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """One step for one member."""

    instance_id: str
    action: Action
    cause: Cause
    reason: str  # in words, for operators
