"""Decides which members of a device group wake and which go to sleep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scheduler_svc.domain.device_groups.member import LEAVES_PLACE, NO_DEMAND, OUTSIDE, Member, MemberState, ModelDemand
from scheduler_svc.domain.device_groups.order import Action, Cause, Order
from scheduler_svc.domain.device_groups.settings import DeviceGroupSettings


def plan(
    members: Sequence[Member],
    demands: Mapping[str, ModelDemand],
    settings: DeviceGroupSettings,
    now: float,
    *,
    places: int = 1,
) -> list[Order]:
    """Return the next steps of one group, at most one for each member.

    ``demands``: by model; a model that is missing has no request that waits.  ``places``: of the device.
    The same members give the same orders: a caller that carried them out shows the members' new states the next time.
    """
    look = _Look(members, demands, settings, now, places)
    return [*look.enter(), *look.leave(), *look.make_room()]


class _Look:
    """One look at one group."""

    def __init__(
        self,
        members: Sequence[Member],
        demands: Mapping[str, ModelDemand],
        settings: DeviceGroupSettings,
        now: float,
        places: int,
    ) -> None:
        self._demands = demands
        self._settings = settings
        self._now = now
        self._members = sorted(members, key=lambda each: each.instance_id)
        self._serving = {each.model for each in members if _serves(each)}
        self._wanted = self._find_wanted()
        self._free = max(0, places - sum(each.takes_place for each in members))
        self._leaving = [each for each in self._members if each.state in LEAVES_PLACE]

    # --- who is wanted ------------------------------------------------------------------------------

    def _find_wanted(self) -> list[Member]:
        """Return the members that are to have a place, the most wanted first, one for each model.

        Those that were woken already come first, then engines that never were up, as nothing is known of their model
        before, then the one whose requests have waited longest for its turn.
        """
        wanted = sorted((each for each in self._members if self._is_wanted(each)), key=self._rank)
        first_of = {each.model: each for each in reversed(wanted)}
        return [each for each in wanted if first_of[each.model] is each]

    def _is_wanted(self, member: Member) -> bool:
        if member.state is MemberState.WOKEN:
            return True
        if member.held or member.state not in OUTSIDE:
            return False
        return self._waits_for(member).waiting > 0 or (member.first_start and not self._is_served(member))

    def _is_served(self, member: Member) -> bool:
        return member.model in self._serving or self._demand(member).awake_elsewhere

    def _waits_for(self, member: Member) -> ModelDemand:
        """Return what a member is wanted for: its model's requests, or those that only it can serve."""
        return member.missed if self._is_served(member) else self._demand(member)

    def _rank(self, member: Member) -> tuple[bool, bool, float, int, float, str]:
        demand = self._waits_for(member)
        woken = member.state is MemberState.WOKEN
        return (
            not woken,
            not member.first_start,
            -min(demand.waited_s, self._now - member.since),  # however long before its last turn some of them waited
            -demand.waiting,
            member.wake_s,
            member.instance_id,
        )

    def _demand(self, member: Member) -> ModelDemand:
        return self._demands.get(member.model, NO_DEMAND)

    # --- into a free place --------------------------------------------------------------------------

    def enter(self) -> list[Order]:
        """Wake the most wanted members where there is a place; those to be started take theirs by themselves."""
        return [self._wake(each) for each in self._wanted[: self._free] if each.state is MemberState.ASLEEP]

    def _wake(self, member: Member) -> Order:
        demand = self._waits_for(member)
        alone = " and no instance that is ready can serve them" if self._is_served(member) else ""
        reason = f"{demand.waiting} requests for {member.model} wait{alone}, the first for {demand.waited_s:.1f} s"
        return _order(member, Action.WAKE, Cause.WAITING, reason)

    # --- out of a place -----------------------------------------------------------------------------

    def leave(self) -> list[Order]:
        """Lift drains where nobody wants the place, and end what does not end by itself."""
        unplaced = len(self._wanted) - self._free
        orders = []
        for each in sorted(self._leaving, key=lambda each: (_may_stay(each), each.since)):
            if each.state is MemberState.DRAINING and (order := self._leave(each, wanted=unplaced > 0)) is not None:
                orders.append(order)
            unplaced -= 1
        return orders

    def _leave(self, member: Member, *, wanted: bool) -> Order | None:
        drained_s = self._now - member.since
        if not wanted:
            reason = "nobody waits for its place any more"
            return _order(member, Action.RESUME, Cause.PEER_NOT_WANTED, reason) if _may_stay(member) else None
        if member.running and drained_s >= self._settings.drain_limit_s:
            reason = f"{member.running} requests did not end in {drained_s:.0f} s; they go on when it is awake again"
            return _order(member, Action.GIVE_BACK, Cause.DRAIN_LIMIT, reason)
        return None

    # --- making room --------------------------------------------------------------------------------

    def make_room(self) -> list[Order]:
        """Drain members for those that are wanted and for whom no place is free or about to be."""
        orders: list[Order] = []
        yielding = sorted((each for each in self._members if self._may_yield(each)), key=self._yields_first)
        for wanted in self._wanted[self._free + len(self._leaving) :]:
            found = next((each for each in yielding if self._yields_to(each, wanted)), None)
            if found is not None:
                yielding.remove(found)
                orders.append(self._drain(found, wanted))
        return orders

    def _may_yield(self, member: Member) -> bool:
        awake_s = self._now - member.since
        return member.state is MemberState.AWAKE and not member.pinned and awake_s >= self._settings.min_awake_s

    def _yields_first(self, member: Member) -> tuple[bool, float, str]:
        return self._busy(member), member.since, member.instance_id

    def _yields_to(self, member: Member, wanted: Member) -> bool:
        turn_s = self._settings.turn_s(member.sleep_s + wanted.wake_s)
        return not self._busy(member) or self._now - member.since >= turn_s

    def _busy(self, member: Member) -> bool:
        return member.running > 0 or (not member.held and self._demand(member).waiting > 0)

    def _drain(self, member: Member, wanted: Member) -> Order:
        awake_s = self._now - member.since
        if self._busy(member):
            reason = f"it was awake for {awake_s:.1f} s, and {wanted.instance_id} ({wanted.model}) is wanted"
            return _order(member, Action.DRAIN, Cause.TURN_OVER, reason)
        reason = f"it has nothing to do, and {wanted.instance_id} ({wanted.model}) is wanted"
        return _order(member, Action.DRAIN, Cause.PEER_WANTED, reason)


def _serves(member: Member) -> bool:
    """Whether a member takes requests for its model, or is about to."""
    return member.takes_place and member.state not in LEAVES_PLACE and not member.held


def _may_stay(member: Member) -> bool:
    """Whether the drain of a member that leaves its place can be lifted."""
    return member.state is MemberState.DRAINING and not member.ordered


def _order(member: Member, action: Action, cause: Cause, reason: str) -> Order:
    return Order(instance_id=member.instance_id, action=action, cause=cause, reason=reason)
