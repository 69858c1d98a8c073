"""What one instance has free and what is reserved on it."""

from __future__ import annotations

from bisect import bisect_left, insort
from math import exp, inf

from scheduler_svc.domain.capacity.account_watch import AccountWatch, Takes
from scheduler_svc.domain.capacity.reservation import Reservation
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.prediction.margin import PRIOR_MARGINS, Margins
from scheduler_svc.domain.prediction.pace import CPU_PRIOR, Pace

#: Seconds over which the prefill that an instance is sent is averaged: a prompt weighs 1/e of a new one after that.
PREFILL_MEMORY_S = 10.0
#: Largest share of engine time that prefill is expected to take: output tokens get the rest.
_MOST_PREFILL = 0.9
#: An eighth of a step's tokens, at least, is expected to go to prompts: sequences end all the time.
_LEAST_FOR_PROMPTS = 8
#: Steps of the engine that prompts are sent ahead for: the one that runs and the next, so that it never runs dry.
_CHUNKS_AHEAD = 2
#: Share of the prompts behind the oldest at an engine that have not begun, on average, when a CRITICAL one comes: it
#: goes before those; what has begun is computed to its end.
_NOT_BEGUN = 0.5
#: CRITICAL requests in a row that may keep prompts of other classes away from an instance: then others get their turn.
_CRITICAL_IN_A_ROW = 8
#: Seconds from a step's end until the next prompt is there: its output, a scheduling pass and the Assign travel.
ROUND_TRIP_S = 0.05


#: Weighs the number of the attempt that came last against one more live reservation: exact up to 2^40 attempts.
_TURN = 2.0**-40


class Account:
    """An instance's figures: what is free, what is reserved and when the reservations are predicted to end.

    The figures that candidates are compared by are computed when something changes, not when they are read, because
    a scheduling pass reads every account for every request.  Times are seconds on the scheduler's clock.
    """

    __slots__ = (
        "_learned_pace",
        "_soon",
        "_takes",
        "_watches",
        "block",
        "busy_until",
        "capacity",
        "chunk",
        "chunk_s",
        "closed",
        "computed_token_s",
        "critical_in_a_row",
        "decode_token_s",
        "facts",
        "finishes",
        "first_step_at",
        "first_step_floor",
        "first_token_margin",
        "free_slots",
        "free_tokens",
        "freed_since_report",
        "full_prefill_s",
        "instance_id",
        "is_tried",
        "kv_used",
        "last_chosen",
        "late",
        "live",
        "live_not_critical",
        "load_pace",
        "lookahead",
        "lookahead_tokens",
        "max_model_len",
        "max_running",
        "output_kv_token_s",
        "output_token_s",
        "overtaken_s",
        "pace",
        "parked",
        "pending",
        "pending_s",
        "prefill_limit_s",
        "prefill_rate",
        "prefill_rate_at",
        "prefill_token_s",
        "price_per_s",
        "prompt_limit",
        "prompt_limit_leaving_reserve",
        "queued",
        "quiet",
        "ready_at",
        "reservations",
        "reserved_tokens",
        "slot_limit",
        "slot_limit_leaving_reserve",
        "start_delay_s",
        "start_floor",
        "tightest_token_s",
        "token_margin",
        "token_targets",
        "turn",
        "uncached_share",
        "unseen",
        "unseen_tokens",
        "urgent_limit",
        "urgent_pending",
        "urgent_pending_s",
    )

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self.facts: EngineFacts | None = None
        self.pace: Pace = CPU_PRIOR
        self.load_pace: Pace = CPU_PRIOR  # that tells how much of the offered load the instance carries
        self._learned_pace: Pace | None = None  # while ``pace`` is a faded one
        self._watches: tuple[tuple[AccountWatch, int], ...] = ()  # those who compare it, and its row there
        self._takes = Takes.NONE
        self._soon = False  # whether prompts that are ahead keep further ones out of a free slot
        self.first_token_margin = self.token_margin = 1.0  # factors, as in ``Margins``
        self.is_tried = False  # the pace is the engine's own, not a prior or that of another one
        self.start_delay_s = 0.0  # ``Margins.start_s``
        # capacity of the engine
        self.max_running = 0  # sequences
        self.lookahead = 0  # sequences beyond max_running that may queue at the engine
        self.chunk = 0  # tokens of one iteration
        self.uncached_share = 1.0  # of prompt tokens
        self.chunk_s = 0.0  # seconds of a step that is full of prompt tokens
        self.prefill_token_s = 0.0  # seconds until the first token, per prompt token
        self.prefill_limit_s = 0.0  # once so much prefill is ahead, the next prompt waits in the scheduler
        self.capacity = 0  # KV tokens
        self.block = 1  # tokens
        self.max_model_len = 0  # tokens
        self.price_per_s = 0.0
        # what is reserved
        self.reservations: dict[int, Reservation] = {}  # by attempt number, oldest first
        self.live_not_critical = 0  # reservations that hold a slot and are not CRITICAL
        self.reserved_tokens = 0
        self.parked = 0  # reservations that hold KV tokens but no slot
        self.unseen: dict[int, Reservation] = {}  # reservations not yet in the engine's figures
        self.unseen_tokens = 0
        self.queued: dict[int, Reservation] = {}  # reservations that queue at the engine, oldest first
        self.lookahead_tokens = 0  # prompt tokens of ``queued``
        self.pending: dict[int, Reservation] = {}  # reservations before their first token
        self.pending_s = 0.0  # seconds of engine time to prefill ``pending``
        self.urgent_pending = 0  # of ``pending``, those of CRITICAL requests
        self.critical_in_a_row = 0  # CRITICAL reservations since the last of another class
        self.urgent_pending_s = 0.0  # of ``pending_s``, those of CRITICAL requests
        self.busy_until = 0.0  # when the last of ``pending`` is predicted to be prefilled
        self.prefill_rate = 0.0  # seconds of prefill per second that it was sent recently, at ``prefill_rate_at``
        self.prefill_rate_at = 0.0
        self.finishes: list[float] = []  # predicted ends, sorted
        self.token_targets: list[float] = []  # ``reachable_token_s`` of what runs here, sorted
        # what the engine reported last
        self.kv_used = 0  # tokens
        self.freed_since_report = 0  # tokens of ``kv_used`` that were freed after the report
        self.late = 0  # requests that finished here so far and missed a target
        self.last_chosen = 0  # number of the last attempt placed here
        self.closed = False  # kept for one quarantined request: it takes nothing else
        self.quiet = False  # takes prompts of CRITICAL requests only
        self._recount()

    def watch(self, watch: AccountWatch, row: int) -> None:
        """Tell a watch what changes from now on.  ``row``: by which it knows this account."""
        self._watches += ((watch, row),)
        watch.enter(row, self._takes, soon=self._soon)

    def unwatch(self, watch: AccountWatch) -> None:
        """Tell that watch nothing any more."""
        self._watches = tuple(each for each in self._watches if each[0] is not watch)

    def close(self, closed: bool) -> None:
        """Keep the instance for one quarantined request, or open it to all requests again."""
        self.closed = closed
        self._recount()

    def keep_quiet(self, quiet: bool) -> None:
        """Take no prompts of requests that must leave the reserved slot free, or take them again."""
        self.quiet = quiet
        self._recount()

    def open(
        self,
        facts: EngineFacts,
        pace: Pace,
        *,
        price_per_hour: float = 0.0,
        lookahead_share: int = 8,
        uncached_share: float = 1.0,
        margins: Margins = PRIOR_MARGINS,
    ) -> None:
        """Take the capacity of an engine that is ready.

        ``lookahead_share``: ``max(1, max_running // lookahead_share)`` requests may queue at the engine.
        ``uncached_share``: share of prompt tokens that its prefix cache does not hold, [0, 1].
        """
        self.facts = facts
        self.max_running = facts.max_running
        self.lookahead = max(1, facts.max_running // lookahead_share)
        self.chunk = facts.max_batched_tokens
        self.capacity = facts.kv_capacity_tokens
        self.block = max(1, facts.kv_block_size)
        self.max_model_len = facts.max_model_len
        self.price_per_s = price_per_hour / 3600
        self.kv_used = 0
        self.freed_since_report = 0
        self.learn(pace, uncached_share, margins)

    def set_price(self, price_per_hour: float) -> None:
        """Take a new price of the instance."""
        self.price_per_s = price_per_hour / 3600
        self._recount()

    def learn(self, pace: Pace, uncached_share: float = 1.0, margins: Margins = PRIOR_MARGINS) -> None:
        """Take a new pace.

        ``uncached_share``: share of prompt tokens that the prefix cache does not hold, [0, 1].  ``margins``: of
        predictions made with the pace.
        """
        self.pace = self.load_pace = pace
        self._learned_pace = None
        self.first_token_margin = margins.first_token
        self.token_margin = margins.token
        self.start_delay_s = margins.start_s
        self.uncached_share = uncached_share
        self._recount()

    def try_out(self, load_pace: Pace) -> None:
        """Take the engine's own pace to tell how much load it carries; ``pace`` stays what it is."""
        self.load_pace = load_pace
        self.is_tried = True

    def fade(self, pace: Pace, load_pace: Pace) -> None:
        """Take paces that hold until a reservation enters: then the engine is scored by what was learned of it."""
        if self._learned_pace is None:
            self._learned_pace = self.pace
        self.pace = pace
        self.load_pace = load_pace
        self._recount()

    def prefill_s(self, prompt_tokens: int, cached_tokens: int | None) -> float:
        """Predict seconds of prefill of a prompt.  ``cached_tokens``: of it, those that the cache holds, if known."""
        return self.computed_token_s * self._computed_tokens(prompt_tokens, cached_tokens)

    def _computed_tokens(self, prompt_tokens: int, cached_tokens: int | None) -> float:
        """Predict how many tokens of a prompt the engine computes: those that its cache does not hold."""
        if cached_tokens is None:
            return prompt_tokens * self.uncached_share
        return prompt_tokens - cached_tokens

    def enter(self, reservation: Reservation, now: float) -> None:
        """Take the capacity of a reservation; beyond ``max_running`` its request queues at the engine."""
        number = reservation.attempt_number
        if self._learned_pace is not None:
            self.pace = self.load_pace = self._learned_pace
            self._learned_pace = None
        if self.live >= self.max_running:
            self.queued[number] = reservation
            self.lookahead_tokens += reservation.prompt_tokens
        self.reservations[number] = reservation
        reservation.goes_first = reservation.prefills and not self.pending and self.live < self.max_running
        reservation.start_delay_s = self.start_delay_s
        self.live_not_critical += not reservation.critical
        self.unseen[number] = reservation
        self.reserved_tokens += reservation.tokens
        self.unseen_tokens += reservation.tokens
        if reservation.prefills:
            computed = self._computed_tokens(reservation.prompt_tokens, reservation.cached_tokens)
            reservation.prefill_s = self.computed_token_s * computed
            self._age_prefill_rate(now)
            self.prefill_rate += self.pace.prefill_token_s * computed / PREFILL_MEMORY_S
        self.pending[number] = reservation
        self.pending_s += reservation.prefill_s
        if reservation.critical:
            self.urgent_pending += 1
            self.urgent_pending_s += reservation.prefill_s
        self.critical_in_a_row = self.critical_in_a_row + 1 if reservation.critical else 0
        self.busy_until = max(self.busy_until, now) + reservation.prefill_s
        insort(self.finishes, reservation.finish_at)
        if reservation.tpot_target_s < self._alone_token_s(reservation):
            reservation.reachable_token_s = inf
        insort(self.token_targets, reservation.reachable_token_s)
        self.last_chosen = number
        self._recount()

    def _alone_token_s(self, reservation: Reservation) -> float:
        """Predict seconds per token of a reservation if nothing else ran here."""
        pace = self.pace
        return pace.base_s + pace.running_s + pace.kv_token_s * reservation.prompt_tokens

    def leave(self, reservation: Reservation, now: float, *, used_tokens: int) -> None:
        """Give back what a reservation took.  ``used_tokens``: KV tokens it held in the engine at its end, if known."""
        number = reservation.attempt_number
        del self.reservations[number]
        self.reserved_tokens -= reservation.tokens
        if reservation.seen:
            self.freed_since_report += used_tokens
        else:
            del self.unseen[number]
            self.unseen_tokens -= reservation.tokens
        if reservation.parked:
            self.parked -= 1
        else:
            self._leave_slot(reservation, now)
        self._age_prefill_rate(now)
        self._recount()

    def _leave_slot(self, reservation: Reservation, now: float) -> None:
        """Free a slot: the oldest request that queues at the engine takes it."""
        self.live_not_critical -= not reservation.critical
        self._prefilled(reservation, now)
        del self.finishes[bisect_left(self.finishes, reservation.finish_at)]
        del self.token_targets[bisect_left(self.token_targets, reservation.reachable_token_s)]
        queued = self.queued.pop(reservation.attempt_number, None)
        if queued is None and self.queued:
            queued = self.queued.pop(next(iter(self.queued)))
        if queued is not None:
            self.lookahead_tokens -= queued.prompt_tokens

    def park(self, reservation: Reservation, now: float) -> None:
        """Free the slot of a reservation whose sequence is over and whose KV tokens stay taken."""
        if reservation.parked:
            return
        reservation.parked = True
        self.parked += 1
        self._leave_slot(reservation, now)
        self._recount()

    def first_token(self, reservation: Reservation, now: float) -> None:
        """Note that the reservation's prompt is prefilled."""
        self._prefilled(reservation, now)
        self._recount()

    def grow(self, reservation: Reservation, tokens: int) -> None:
        """Raise a reservation to ``tokens`` KV tokens."""
        more = tokens - reservation.tokens
        reservation.tokens = tokens
        self.reserved_tokens += more
        if not reservation.seen:
            self.unseen_tokens += more
        self._recount()

    def report(self, load: LoadReport, now: float) -> None:
        """Take the engine's own figures.  From now on they include the reservations up to its ``last_assign``."""
        self._age_prefill_rate(now)
        for number, reservation in list(self.unseen.items()):
            if reservation.assign_number and reservation.assign_number <= load.last_assign:
                reservation.seen = True
                del self.unseen[number]
                self.unseen_tokens -= reservation.tokens
        self.kv_used = load.kv_used_tokens
        self.freed_since_report = 0
        self._recount()

    def _age_prefill_rate(self, now: float) -> None:
        if now > self.prefill_rate_at:
            self.prefill_rate *= exp((self.prefill_rate_at - now) / PREFILL_MEMORY_S)
            self.prefill_rate_at = now

    def _prefilled(self, reservation: Reservation, now: float) -> None:
        if self.pending.pop(reservation.attempt_number, None) is None:
            return
        self.pending_s = self.pending_s - reservation.prefill_s if self.pending else 0.0
        if reservation.critical:
            self.urgent_pending -= 1
            self.urgent_pending_s = self.urgent_pending_s - reservation.prefill_s if self.pending else 0.0
        self.busy_until = min(self.busy_until, now + self.pending_s)

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
        return self.quiet or (self.urgent_pending > 0 and self.critical_in_a_row <= _CRITICAL_IN_A_ROW)

    def used_tokens(self) -> int:
        """Return KV tokens in use: the reserved ones or, if more, those reported plus those not yet in the report."""
        reported = self.kv_used - self.freed_since_report
        in_engine = self.unseen_tokens + reported if reported > 0 else self.unseen_tokens
        return in_engine if in_engine > self.reserved_tokens else self.reserved_tokens

    # ``_recount`` runs several times for each request: what it calls asks for the smaller of two numbers without
    # ``min``, and asks for an attribute once.

    def _recount(self) -> None:
        """Work out the figures that candidates are compared by, and say that they changed."""
        live = self.live = len(self.reservations) - self.parked
        self.turn = live + self.last_chosen * _TURN  # among equals the least goes first: fewest live, then longest ago
        self.free_slots = self.max_running - live  # negative: that many sequences queue at the engine
        used = self.used_tokens()
        self.free_tokens = (self.capacity - used) // self.block * self.block
        self._count_step(used)
        self._count_prompts_taken()
        self._count_start()
        for watch, row in self._watches:
            watch.changed.add(row)

    def _count_step(self, used_tokens: int) -> None:
        """Predict an iteration once one more sequence is there, and what a token costs then."""
        max_running, live, pace = self.max_running, self.live, self.pace
        running = live + 1 if live < max_running else max_running
        step_s = self.decode_token_s = pace.base_s + pace.running_s * running + pace.kv_token_s * used_tokens
        # A step that computes a chunk of prompts also computes a token of each sequence.  These come first: prompts get
        # what they leave of the step's tokens.
        decoding = live - len(self.pending)
        if decoding > max_running:
            decoding = max_running
        chunk, least = self.chunk, self.chunk // _LEAST_FOR_PROMPTS or 1
        if decoding > 0:
            chunk -= decoding
        if chunk < least:
            chunk = least
        chunk_s = self.chunk_s = pace.prefill_token_s * chunk + step_s
        self.computed_token_s = chunk_s / chunk  # of a token that is not cached
        self.prefill_token_s = self.computed_token_s * self.uncached_share  # of a token of which that is not known
        self.prefill_limit_s = chunk_s * _CHUNKS_AHEAD if chunk_s > ROUND_TRIP_S else chunk_s + ROUND_TRIP_S
        # Prompts that come later share the iterations: of each second, output tokens get what prefill leaves.
        left = 1 - (self.prefill_rate if self.prefill_rate < _MOST_PREFILL else _MOST_PREFILL)
        self.output_token_s = step_s / left
        self.output_kv_token_s = pace.kv_token_s / left
        self.tightest_token_s = self.token_targets[0] if self.token_targets else inf

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
        self.full_prefill_s = self.overtaken_s = 0.0
        urgent, soon = limit, False
        if self.pending and self._count_prefill_ahead():
            limit = leaving_reserve = -1.0
            soon = free > 0
            prioritizes = self.facts is not None and self.facts.supports_priority
            if not prioritizes or self.urgent_pending_s >= self.prefill_limit_s:
                urgent = -1.0
        self.prompt_limit, self.prompt_limit_leaving_reserve = limit, leaving_reserve
        self.urgent_limit = urgent  # of a CRITICAL request that goes before prompts of other classes at the engine
        takes = Takes.ANY if leaving_reserve > 0 else Takes.CRITICAL if urgent > 0 else Takes.NONE
        if takes is not self._takes or soon != self._soon:
            self._takes, self._soon = takes, soon
            for watch, row in self._watches:
                watch.enter(row, takes, soon=soon)

    def _longest_in_lookahead(self, queued: int) -> float:
        """Return the longest prompt that may queue at the engine behind so many others; -1: none."""
        if queued >= self.lookahead:
            return -1
        return self.chunk - self.lookahead_tokens if self.queued else inf

    def _count_prefill_ahead(self) -> bool:
        """Return whether the prompts that are ahead keep further ones out; there are some.

        They do once the engine has prompts for the step that runs and the next: more gain nothing by going.  The oldest
        prompt counts as one chunk at most.  It is being computed, however long it is: if it counted as a whole, the
        engine would have no other prompt at its end.
        """
        oldest = next(iter(self.pending.values()))
        ahead = all_ahead = self.pending_s
        if oldest.prefill_s > self.chunk_s:
            ahead -= oldest.prefill_s - self.chunk_s
        if self.facts is not None and self.facts.supports_priority:  # a CRITICAL request goes before others
            behind_s = all_ahead - self.urgent_pending_s - (0.0 if oldest.critical else oldest.prefill_s)
            if behind_s > 0:
                self.overtaken_s = _NOT_BEGUN * behind_s
        if not ahead >= self.prefill_limit_s > 0:
            return False
        self.full_prefill_s = ahead
        return True

    def _count_start(self) -> None:
        """Predict when one more request starts, and when the iteration that emits its first token is over."""
        free, step_s = self.free_slots, self.decode_token_s
        # On average half of the pending prefill is still to be done.  Without this floor an instance whose first
        # tokens are overdue would look idle.
        floor, ready_at = self.pending_s / 2, self.busy_until
        if free <= 0:
            slot_at = self.finishes[-free] if self.finishes else 0.0
            if slot_at > ready_at:
                ready_at = slot_at
            if floor < step_s:
                floor = step_s
        floor += self.start_delay_s
        ready_at += self.start_delay_s
        self.ready_at, self.start_floor = ready_at, floor
        self.first_step_at, self.first_step_floor = ready_at + step_s, floor + step_s
