"""What happens to one instance's capacity."""

from __future__ import annotations

from bisect import bisect_left, insort
from math import inf

from scheduler_svc.domain.capacity.account_watch import AccountWatch
from scheduler_svc.domain.capacity.instance_figures import InstanceFigures
from scheduler_svc.domain.capacity.reservation import Reservation
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.prediction.margin import PRIOR_MARGINS, Margins
from scheduler_svc.domain.prediction.pace import Pace


class Account(InstanceFigures):
    """An instance's capacity, and all that changes it: reservations, heartbeats, and what is learned of the engine.

    After each change its figures are up to date.  Times are seconds on the scheduler's clock.
    """

    __slots__ = ("late",)

    def __init__(self, instance_id: str) -> None:
        super().__init__(instance_id)
        self.late = 0  # requests that finished here so far and missed a target
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
        self.kv.restart()
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
        self.alone_delay_s = margins.alone_delay_s
        self.behind_delay_s = margins.behind_delay_s
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

    def enter(self, reservation: Reservation, now: float) -> None:
        """Take the capacity of a reservation; beyond ``max_running`` its request queues at the engine."""
        number = reservation.attempt_number
        if self._learned_pace is not None:
            self.pace = self.load_pace = self._learned_pace
            self._learned_pace = None
        if self.live >= self.max_running:
            self.queue.add(reservation)
        self.reservations[number] = reservation
        if reservation.prefills and self.live < self.max_running:
            reservation.goes_behind = bool(self.pending.prompts)
            reservation.goes_first = not reservation.goes_behind
        reservation.start_delay_s = self.start_delay_s
        self.live_not_critical += not reservation.critical
        self.kv.add(reservation)
        if reservation.prefills:
            computed = self._computed_tokens(reservation.prompt_tokens, reservation.cached_tokens)
            reservation.prefill_s = self.computed_token_s * computed
            self.prefill_rate.add(self.pace.prefill_token_s * computed, now)
        self.pending.add(reservation, now)
        insort(self.finishes, reservation.finish_at)
        if reservation.tpot_target_s < self._alone_token_s(reservation.prompt_tokens):
            reservation.reachable_token_s = inf
        insort(self.token_targets, reservation.reachable_token_s)
        self.last_chosen = number
        self._recount()

    def leave(self, reservation: Reservation, now: float, *, used_tokens: int) -> None:
        """Give back what a reservation took.  ``used_tokens``: KV tokens it held in the engine at its end, if known."""
        del self.reservations[reservation.attempt_number]
        self.kv.remove(reservation, used_tokens)
        if reservation.parked:
            self.parked -= 1
        else:
            self._leave_slot(reservation, now)
        self.prefill_rate.age(now)
        self._recount()

    def _leave_slot(self, reservation: Reservation, now: float) -> None:
        """Free a slot: the oldest request that queues at the engine takes it."""
        self.live_not_critical -= not reservation.critical
        self.pending.remove(reservation, now)
        del self.finishes[bisect_left(self.finishes, reservation.finish_at)]
        del self.token_targets[bisect_left(self.token_targets, reservation.reachable_token_s)]
        self.queue.slot_freed(reservation.attempt_number)

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
        self.pending.remove(reservation, now)
        self._recount()

    def grow(self, reservation: Reservation, tokens: int) -> None:
        """Raise a reservation to ``tokens`` KV tokens."""
        self.kv.grow(reservation, tokens)
        self._recount()

    def report(self, load: LoadReport, now: float) -> None:
        """Take the engine's own figures.  From now on they include the reservations up to its ``last_assign``."""
        self.prefill_rate.age(now)
        self.kv.report(load)
        self._recount()
