"""When the instances of one model change their roles."""

from __future__ import annotations

from collections.abc import Container, Sequence

from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.role_change import Cause, RoleChange
from scheduler_svc.domain.roles.balance import Wish, wished
from scheduler_svc.domain.roles.candidates import cheapest_change
from scheduler_svc.domain.roles.homeward import missed
from scheduler_svc.domain.roles.settings import RoleSettings
from scheduler_svc.domain.roles.side import Side

_EMPTY = frozenset({Cause.PREFILL_EMPTY, Cause.DECODE_EMPTY})
_UNABLE = {InstanceRole.PREFILLING: Cause.PREFILL_UNABLE, InstanceRole.DECODING: Cause.DECODE_UNABLE}


class ModelRoles:
    """Keeps how long a change has been wished, and its side empty, without a break, and when the last change was.

    The same of instances that their own side misses.  Bounded by the model's instances.
    """

    __slots__ = ("_empty_since", "_last", "_missed_since", "_model", "_settings", "_since", "_wished")

    def __init__(self, model: str, settings: RoleSettings) -> None:
        self._model = model
        self._settings = settings
        self._wished: InstanceRole | None = None  # the role that an instance is wished for
        self._since = 0.0  # when that began, seconds on the scheduler's clock
        self._empty_since: float | None = None  # the same of a wish for an empty side; None: no side is empty
        self._missed_since: dict[str, float] = {}  # by instance: since when its own side misses what it can do
        self._last: RoleChange | None = None

    def look(
        self, prefill: Side, decode: Side, instances: Sequence[Instance], pinned: Container[str], now: float
    ) -> RoleChange | None:
        """Return the change to make now; None where none is due.  The caller makes it."""
        back = self._missed(prefill, decode, instances, pinned, now)
        if back is not None:
            role = back.spec.role
            reason = f"no other {role.value} instance that is ready serves all that it serves"
            return self._change(back, role, _UNABLE[role], reason, now)
        wish = wished(prefill, decode, self._settings)
        self._note(wish, now)
        if wish is None or self._too_early(wish, now) or self._pauses(wish, self._latest(instances), now):
            return None
        chosen = cheapest_change(instances, wish.leaves, pinned)
        if chosen is None:
            return None
        return self._change(chosen, wish.role, wish.cause, wish.reason, now)

    def _change(self, chosen: Instance, role: InstanceRole, cause: Cause, reason: str, now: float) -> RoleChange:
        self._wished = self._empty_since = None
        self._missed_since.pop(chosen.instance_id, None)
        self._last = RoleChange(
            model=self._model,
            instance_id=chosen.instance_id,
            before=chosen.role,
            role=role,
            cause=cause,
            reason=reason,
            at=now,
        )
        return self._last

    def _missed(
        self, prefill: Side, decode: Side, instances: Sequence[Instance], pinned: Container[str], now: float
    ) -> Instance | None:
        """Return an instance that its own side has missed for ``delay_s`` while none started there; None for none."""
        found: list[Instance] = []
        if not prefill.starting:
            least = self._settings.least_decode
            found += missed(instances, pinned, to=InstanceRole.PREFILLING, least_left=least)
        if not decode.starting:
            least = self._settings.least_prefill
            found += missed(instances, pinned, to=InstanceRole.DECODING, least_left=least)
        self._missed_since = {i.instance_id: self._missed_since.get(i.instance_id, now) for i in found}
        due = (i for i in found if now - self._missed_since[i.instance_id] >= self._settings.delay_s)
        return next(due, None)

    def _note(self, wish: Wish | None, now: float) -> None:
        role = wish.role if wish is not None else None
        if role is not self._wished:
            self._wished, self._since, self._empty_since = role, now, None
        if wish is None or wish.cause not in _EMPTY:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = now

    def _too_early(self, wish: Wish, now: float) -> bool:
        """Whether the wish has not lasted yet.  A side that was pressed before has to be empty for that long, too."""
        since = self._empty_since if wish.cause in _EMPTY else self._since
        return since is None or now - since < self._settings.delay_s

    def _latest(self, instances: Sequence[Instance]) -> RoleChange | None:
        """Return the model's last change, which an earlier scheduler may have made; those of a switch are none."""
        changes = (self._last, *(each.role_change for each in instances))
        counted = (each for each in changes if each is not None and each.cause is not Cause.SPLITTING_OFF)
        return max(counted, key=lambda each: each.at, default=None)

    def _pauses(self, wish: Wish, last: RoleChange | None, now: float) -> bool:
        """Whether the last change was too short a time ago; an empty side does not wait for that."""
        if last is None or wish.cause in _EMPTY:
            return False
        pause_s = self._settings.cooldown_s
        if wish.role is not last.role:
            pause_s = max(pause_s, self._settings.back_s)
        return now - last.at < pause_s
