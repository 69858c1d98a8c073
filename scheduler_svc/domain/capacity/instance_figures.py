"""What one instance has free: the figures that candidates are compared by."""

from __future__ import annotations

from math import inf

from scheduler_svc.domain.capacity.account_watch import AccountWatch, Takes
from scheduler_svc.domain.capacity.engine_capacity import EngineCapacity
from scheduler_svc.domain.capacity.engine_queue import EngineQueue
from scheduler_svc.domain.capacity.kv_use import KvUse
from scheduler_svc.domain.capacity.pending_prompts import PendingPrompts
from scheduler_svc.domain.capacity.prefill_rate import PrefillRate
from scheduler_svc.domain.capacity.reservation import Reservation

#: CRITICAL requests in a row that may keep prompts of other classes away from an instance: then others get their turn.
_CRITICAL_IN_A_ROW = 8
#: Weighs the number of the attempt that came last against one more live reservation: exact up to 2^40 attempts.
_TURN = 2.0**-40
# Names of their own: asking an enum for a member takes as long as several calls.
_ANY, _CRITICAL, _NONE = Takes.ANY, Takes.CRITICAL, Takes.NONE


class InstanceFigures(EngineCapacity):
    """What is reserved on an instance, and the figures that follow: what it takes now, and when one more could start.

    The figures are computed when something changes, not when they are read, because a scheduling pass reads those of
    every instance for every request.  Times are seconds on the scheduler's clock.
    """

    __slots__ = (
        "_soon",
        "_takes",
        "_watches",
        "closed",
        "finishes",
        "first_step_at",
        "first_step_floor",
        "free_slots",
        "free_tokens",
        "full_prefill_s",
        "kv",
        "last_chosen",
        "live",
        "live_not_critical",
        "overtaken_s",
        "parked",
        "pending",
        "prefill_rate",
        "prompt_limit",
        "prompt_limit_leaving_reserve",
        "queue",
        "quiet",
        "ready_at",
        "reservations",
        "slot_limit",
        "slot_limit_leaving_reserve",
        "start_floor",
        "tightest_token_s",
        "token_targets",
        "turn",
        "urgent_limit",
    )

    def __init__(self, instance_id: str) -> None:
        super().__init__(instance_id)
        self._watches: tuple[tuple[AccountWatch, int], ...] = ()  # those who compare it, and its row there
        self._takes = _NONE
        self._soon = False  # whether prompts that are ahead keep further ones out of a free slot
        # what is reserved
        self.reservations: dict[int, Reservation] = {}  # by attempt number, oldest first
        self.live_not_critical = 0  # reservations that hold a slot and are not CRITICAL
        self.parked = 0  # reservations that hold KV tokens but no slot
        self.kv = KvUse()
        self.queue = EngineQueue()
        self.pending = PendingPrompts()
        self.prefill_rate = PrefillRate()
        self.finishes: list[float] = []  # predicted ends, sorted
        self.token_targets: list[float] = []  # ``reachable_token_s`` of what runs here, sorted
        self.last_chosen = 0  # number of the last attempt placed here
        self.closed = False  # kept for one quarantined request: it takes nothing else
        self.quiet = False  # takes prompts of CRITICAL requests only

    @property
    def prefill_full(self) -> bool:
        """Whether prompts that are ahead keep further ones out."""
        return self.full_prefill_s > 0

    @property
    def only_reserve_left(self) -> bool:
        """Whether a slot is free and only CRITICAL requests may take it."""
        return self.slot_limit_leaving_reserve < 0 < min(self.free_slots, self.prompt_limit)

    @property
    def kept_for_critical(self) -> bool:
        """Whether prompts of requests that must leave the reserved slot free stay away, though a slot is free.

        They would fill up the last step of a CRITICAL prompt that is before its first token.
        """
        pending = self.pending
        return self.quiet or (pending.urgent > 0 and pending.critical_in_a_row <= _CRITICAL_IN_A_ROW)

    def compared(self) -> tuple[float, ...]:
        """Return the figures that accounts are compared by, in the order of ``figures.NAMES``."""
        return (
            self.computed_token_s,
            self.first_step_at,
            self.first_step_floor,
            self.output_kv_token_s,
            self.output_token_s,
            self.turn,
            self.free_slots,
            self.free_tokens,
            self.full_prefill_s,
            self.decode_token_s,
            self.live,
            self.price_per_s,
            self.chunk_s,
            self.decode_share,
            self.first_token_margin,
            self.lone_token_s,
            self.overtaken_s,
            self.prefill_token_s,
            self.prompt_limit,
            self.prompt_limit_leaving_reserve,
            self.ready_at,
            self.slot_limit,
            self.slot_limit_leaving_reserve,
            self.start_floor,
            self.tightest_token_s,
            self.token_margin,
            self.urgent_limit,
        )

    @property
    def start_delay_s(self) -> float:
        """How much later one more prompt starts than its engine's work says, in seconds.

        That of a prompt behind others is in ``ready_at`` and ``start_floor``.  That of one alone is in predictions
        only: where nothing runs, what noise taught of it is no reason to prefer one of equal instances.
        """
        return self.behind_delay_s if self.pending.prompts else self.alone_delay_s

    def used_tokens(self) -> int:
        """Return KV tokens in use: the reserved ones or, if more, those reported plus those not yet in the report."""
        return self.kv.used_tokens()

    # ``_recount`` runs several times for each request: what it calls takes the smaller of two numbers without ``min``,
    # reads an attribute once, and asks the dict in a part, not the part, whether something is there.

    def _recount(self) -> None:
        """Work out the figures that candidates are compared by, and say that they changed."""
        live = self.live = len(self.reservations) - self.parked
        self.turn = live + self.last_chosen * _TURN  # among equals the least goes first: fewest live, then longest ago
        self.free_slots = self.max_running - live  # negative: that many sequences queue at the engine
        used = self.kv.used_tokens()
        self.free_tokens = (self.capacity - used) // self.block * self.block
        self.tightest_token_s = self.token_targets[0] if self.token_targets else inf
        self._count_step(live, len(self.pending.prompts), used, self.prefill_rate.value)
        self._count_prompts_taken()
        self._count_start()
        for watch, row in self._watches:
            watch.changed.add(row)

    def _count_prompts_taken(self) -> None:
        """Work out how long a prompt may be to be taken now, by slots and by the prompts that are ahead.

        In tokens; -1: none is taken.
        """
        free = self.free_slots
        limit = leaving_reserve = inf if free > 0 else self._longest_in_lookahead(-free)
        if self.max_running > 1:  # one slot must stay free for CRITICAL
            leaving_reserve = inf if free > 0 and self.live_not_critical < self.max_running - 1 else -1.0
        if self.closed:
            limit = leaving_reserve = -1.0
        self.slot_limit, self.slot_limit_leaving_reserve = limit, leaving_reserve
        if self.kept_for_critical:
            leaving_reserve = -1.0
        urgent, soon, pending = limit, False, self.pending
        self.full_prefill_s = self.overtaken_s = 0.0
        if pending.prompts:
            prioritizes = self.facts is not None and self.facts.supports_priority
            if prioritizes:  # a CRITICAL prompt goes before others at the engine
                self.overtaken_s = pending.overtaken_s()
            # Once the engine has prompts for the step that runs and the next, one more gains nothing by going.
            ahead_s, most_s = pending.ahead_s(self.chunk_s), self.prefill_limit_s
            if ahead_s >= most_s > 0:
                self.full_prefill_s = ahead_s
                limit = leaving_reserve = -1.0
                soon = free > 0
                if not prioritizes or pending.urgent_s >= most_s:
                    urgent = -1.0
        self.prompt_limit, self.prompt_limit_leaving_reserve = limit, leaving_reserve
        self.urgent_limit = urgent  # of a CRITICAL request that goes before prompts of other classes at the engine
        takes = _ANY if leaving_reserve > 0 else _CRITICAL if urgent > 0 else _NONE
        if takes is not self._takes or soon != self._soon:
            self._takes, self._soon = takes, soon
            for watch, row in self._watches:
                watch.enter(row, takes, soon=soon)

    def _longest_in_lookahead(self, queued: int) -> float:
        """Return the longest prompt that may queue at the engine behind so many others; -1: none."""
        if queued >= self.lookahead:
            return -1
        return self.chunk - self.queue.prompt_tokens if self.queue.waiting else inf

    def _count_start(self) -> None:
        """Predict when one more request starts, and when the iteration that emits its first token is over."""
        free, step_s, pending = self.free_slots, self.decode_token_s, self.pending
        # On average half of the pending prefill is still to be done.  Without this floor an instance whose first
        # tokens are overdue would look idle.
        floor, ready_at = pending.seconds / 2, pending.busy_until
        if free <= 0:
            slot_at = self.finishes[-free] if self.finishes else 0.0
            if slot_at > ready_at:
                ready_at = slot_at
            if floor < step_s:
                floor = step_s
        if pending.prompts:
            floor += self.behind_delay_s
            ready_at += self.behind_delay_s
        self.ready_at, self.start_floor = ready_at, floor
        self.first_step_at, self.first_step_floor = ready_at + step_s, floor + step_s
