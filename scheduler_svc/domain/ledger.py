"""What is promised on each instance: reservations in KV tokens and sequences, and when they are thought to end."""

from __future__ import annotations

from bisect import bisect_left, insort
from math import inf

from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.pace import CPU_PRIOR, Pace
from scheduler_svc.domain.request import RequestKey


class Reservation:
    """Room for one attempt on one instance, from the decision until what it stands for is free."""

    __slots__ = (
        "account",
        "assign_number",
        "attempt_number",
        "critical",
        "emitted_tokens",
        "finish_at",
        "first_token_at",
        "first_token_in_s",
        "key",
        "made_at",
        "max_tokens",
        "output_tokens",
        "parked",
        "prefill_s",
        "prefills",
        "prompt_tokens",
        "seen",
        "token_s",
        "tokens",
    )

    def __init__(
        self,
        *,
        key: RequestKey,
        tokens: int,
        prompt_tokens: int,
        output_tokens: int,
        emitted_tokens: int,
        max_tokens: int,
        critical: bool,
        made_at: float,
        first_token_in_s: float,
        token_s: float,
        finish_in_s: float,
        prefills: bool = True,
    ) -> None:
        self.attempt_number = 0  # the ledger counts
        self.key = key
        self.account: Account  # set when it is entered
        self.tokens = tokens  # KV tokens held, whole blocks
        self.prompt_tokens = prompt_tokens  # of this attempt: emitted tokens of earlier ones included
        self.output_tokens = output_tokens  # predicted, of this attempt
        self.emitted_tokens = emitted_tokens  # by earlier attempts
        self.max_tokens = max_tokens  # of the request
        self.critical = critical  # of the class that may take the kept slot
        self.made_at = made_at
        self.first_token_in_s = first_token_in_s  # predicted, from made_at
        self.token_s = token_s  # predicted, per token after the first
        self.finish_at = made_at + finish_in_s  # predicted
        self.prefills = prefills  # False for a decode leg: its prompt is computed elsewhere
        self.prefill_s = 0.0  # of engine time, until the first token
        self.parked = False  # its sequence is over, its KV blocks are still held: a prefill leg waiting to be fetched
        self.assign_number = 0  # 0: not sent yet
        self.seen = False  # in the engine's own figures
        self.first_token_at: float | None = None


class Account:
    """Room and time on one instance.

    The numbers a candidate is judged by are worked out when something changes, not when it is looked at: a scheduling
    pass looks at every account for every request.
    """

    __slots__ = (
        "block",
        "busy_until",
        "capacity",
        "chunk",
        "common_live",
        "common_room",
        "decode_token_s",
        "facts",
        "finishes",
        "free_slots",
        "free_tokens",
        "freed_since_report",
        "fullness",
        "instance_id",
        "kv_token_s",
        "kv_used",
        "last_chosen",
        "live",
        "lookahead",
        "lookahead_tokens",
        "max_model_len",
        "max_running",
        "pace",
        "parked",
        "pending",
        "pending_s",
        "prefill_token_s",
        "price_per_s",
        "prompt_room",
        "queued",
        "ready_at",
        "reservations",
        "reserved_tokens",
        "start_floor",
        "unseen",
        "unseen_tokens",
    )

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self.facts: EngineFacts | None = None
        self.pace: Pace = CPU_PRIOR
        # capacity, as the engine says
        self.max_running = 0  # sequences
        self.lookahead = 0  # sequences that may queue at the engine beyond those
        self.chunk = 0  # tokens of one iteration
        self.capacity = 0  # KV tokens
        self.block = 1  # tokens
        self.max_model_len = 0  # tokens
        self.price_per_s = 0.0
        # what is promised
        self.reservations: dict[int, Reservation] = {}  # by attempt number, oldest first
        self.common_live = 0  # of them not CRITICAL
        self.reserved_tokens = 0
        self.parked = 0  # of those, holding KV room but no slot
        self.unseen: dict[int, Reservation] = {}  # not yet in the engine's figures
        self.unseen_tokens = 0
        self.queued: dict[int, Reservation] = {}  # lookahead, oldest first
        self.lookahead_tokens = 0  # prompt tokens of those
        self.pending: dict[int, Reservation] = {}  # before their first token
        self.pending_s = 0.0  # seconds of engine time those want for prefill
        self.busy_until = 0.0  # when the last of those is thought to be prefilled
        self.finishes: list[float] = []  # predicted ends, sorted
        # what the engine says
        self.kv_used = 0  # tokens
        self.freed_since_report = 0  # tokens, of what that figure holds
        self.last_chosen = 0  # number of the last attempt placed here
        self._recount()

    def open(
        self,
        facts: EngineFacts,
        pace: Pace,
        *,
        price_per_hour: float = 0.0,
        lookahead_share: int = 8,
        uncached_share: float = 1.0,
    ) -> None:
        """Take an engine's capacity."""
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
        self.learn(pace, uncached_share)

    def learn(self, pace: Pace, uncached_share: float = 1.0) -> None:
        """``uncached_share``: of prompt tokens, those the prefix cache does not hold."""
        self.pace = pace
        self.prefill_token_s = (pace.prefill_token_s + pace.base_s / max(1, self.chunk)) * uncached_share
        self.kv_token_s = pace.kv_token_s
        self._recount()

    def enter(self, reservation: Reservation, now: float) -> None:
        number = reservation.attempt_number
        reservation.account = self
        if self.live >= self.max_running:
            self.queued[number] = reservation
            self.lookahead_tokens += reservation.prompt_tokens
        self.reservations[number] = reservation
        self.common_live += not reservation.critical
        self.unseen[number] = reservation
        self.reserved_tokens += reservation.tokens
        self.unseen_tokens += reservation.tokens
        if reservation.prefills:
            reservation.prefill_s = self.prefill_token_s * reservation.prompt_tokens
        self.pending[number] = reservation
        self.pending_s += reservation.prefill_s
        self.busy_until = max(self.busy_until, now) + reservation.prefill_s
        insort(self.finishes, reservation.finish_at)
        self.last_chosen = number
        self._recount()

    def leave(self, reservation: Reservation, now: float, *, used_tokens: int) -> None:
        """``used_tokens``: KV tokens it held in the engine at its end, as far as known."""
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
        self._recount()

    def _leave_slot(self, reservation: Reservation, now: float) -> None:
        """The oldest in line gets it."""
        self.common_live -= not reservation.critical
        self._prefilled(reservation, now)
        del self.finishes[bisect_left(self.finishes, reservation.finish_at)]
        queued = self.queued.pop(reservation.attempt_number, None)
        if queued is None and self.queued:
            queued = self.queued.pop(next(iter(self.queued)))
        if queued is not None:
            self.lookahead_tokens -= queued.prompt_tokens

    def park(self, reservation: Reservation, now: float) -> None:
        """Its sequence is over and its slot free; its KV room is not yet."""
        if reservation.parked:
            return
        reservation.parked = True
        self.parked += 1
        self._leave_slot(reservation, now)
        self._recount()

    def first_token(self, reservation: Reservation, now: float) -> None:
        self._prefilled(reservation, now)
        self._recount()

    def grow(self, reservation: Reservation, tokens: int) -> None:
        """It needs more than was reserved."""
        more = tokens - reservation.tokens
        reservation.tokens = tokens
        self.reserved_tokens += more
        if not reservation.seen:
            self.unseen_tokens += more
        self._recount()

    def report(self, load: LoadReport) -> None:
        """Take what the engine says of itself: what it has seen is in its figures from now on."""
        for number, reservation in list(self.unseen.items()):
            if 0 < reservation.assign_number <= load.last_assign:
                reservation.seen = True
                del self.unseen[number]
                self.unseen_tokens -= reservation.tokens
        self.kv_used = load.kv_used_tokens
        self.freed_since_report = 0
        self._recount()

    def _prefilled(self, reservation: Reservation, now: float) -> None:
        if self.pending.pop(reservation.attempt_number, None) is None:
            return
        self.pending_s = self.pending_s - reservation.prefill_s if self.pending else 0.0
        self.busy_until = min(self.busy_until, now + self.pending_s)

    def used_tokens(self) -> int:
        """The larger of what is promised, and what is reported plus what the report has not seen."""
        reported = max(0, self.kv_used - self.freed_since_report)
        return max(self.reserved_tokens, reported + self.unseen_tokens)

    def _recount(self) -> None:
        live = len(self.reservations) - self.parked
        free = self.max_running - live
        used = self.used_tokens()
        self.live = live
        self.free_slots = free  # negative: so many queue at the engine
        self.free_tokens = (self.capacity - used) // self.block * self.block
        self.fullness = max(live / self.max_running, used / self.capacity) if self.max_running else 1.0
        running = min(live + 1, self.max_running)
        pace = self.pace
        # seconds of an iteration once one more sequence is there
        self.decode_token_s = pace.base_s + pace.running_s * running + pace.kv_token_s * used
        # Half of what wants prefill is left on average.  Where first tokens are overdue this keeps an instance that
        # does not deliver from looking idle.
        floor = self.pending_s / 2
        self.prompt_room = self._prompt_room(free)  # tokens a request's prompt may have
        self.common_room = self.prompt_room  # the same with one slot kept for CRITICAL
        if self.max_running > 1:
            self.common_room = inf if free > 0 and self.common_live < self.max_running - 1 else -1
        if free > 0:
            self.ready_at = self.busy_until
            self.start_floor = floor
            return
        slot_at = self.finishes[-free] if self.finishes else 0.0
        self.ready_at = max(self.busy_until, slot_at)
        self.start_floor = max(floor, self.decode_token_s)

    def _prompt_room(self, free_slots: int) -> float:
        if free_slots > 0:
            return inf
        if -free_slots >= self.lookahead:
            return -1
        return self.chunk - self.lookahead_tokens if self.queued else inf


class Ledger:
    """All reservations, by attempt number."""

    def __init__(self) -> None:
        self._reservations: dict[int, Reservation] = {}
        self._last_attempt = 0

    def __len__(self) -> int:
        return len(self._reservations)

    def next_number(self) -> int:
        """Of an attempt, unique for this ledger's life."""
        self._last_attempt += 1
        return self._last_attempt

    def enter(self, account: Account, reservation: Reservation, now: float) -> int:
        """Returns the attempt's number."""
        reservation.attempt_number = self.next_number()
        self._reservations[reservation.attempt_number] = reservation
        account.enter(reservation, now)
        return reservation.attempt_number

    def find(self, attempt_number: int) -> Reservation | None:
        return self._reservations.get(attempt_number)

    def leave(self, attempt_number: int, now: float, *, used_tokens: int = 0) -> Reservation | None:
        """None if there is no such reservation (any more)."""
        reservation = self._reservations.pop(attempt_number, None)
        if reservation is not None:
            reservation.account.leave(reservation, now, used_tokens=used_tokens)
        return reservation

    def leave_all(self, account: Account, now: float) -> list[int]:
        """Everything on one instance; attempt numbers, oldest first."""
        numbers = list(account.reservations)
        for number in numbers:
            self.leave(number, now)
        return numbers
