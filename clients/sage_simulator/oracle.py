"""What could be reached: placement by an oracle that knows output lengths and engines' speed, and gives up early."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from enum import Enum
from math import inf

from sage_simulator.event_queue import EventQueue
from sage_simulator.executor_model import Assignment, ExecutorModel
from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.oracle_instance import OracleInstance, Wanted
from sage_simulator.outcome import End, Outcome
from sage_simulator.simulation import SimulationResult
from sage_simulator.simulation_settings import SimulationSettings
from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.placement.split_planner import SplitCounts
from scheduler_svc.domain.request import Request, RequestKey, Sampling
from scheduler_svc.domain.targets import effective_targets

ORACLE = "oracle"

_LOOK_AGAIN_S = 0.05  # between two looks at what waits, where nothing happens
_DEPTH = 16  # waiting requests that one pass may leave waiting before it stops


class OracleOrder(Enum):
    """Who goes next among the waiting."""

    DEADLINE = "deadline"  # whose first token has to be begun first
    SHORTEST = "shortest"  # who takes least engine time: more requests meet their targets under overload


class OracleSimulation:
    """Plays a trace on a modelled fleet as an oracle would place it.

    A request goes, greedily, where the least share of its targets and of those that run there would be used, and only
    where that is at most all of them.  It waits while that is nowhere, and is given up (refused) once its first token
    cannot come in time on any instance, so that no engine works on what is lost.  The scheduler is not asked.  Greedy
    is not optimal: the result says what can be reached, not what cannot.  Every instance runs whole
    requests, and clients do not cancel.
    """

    def __init__(
        self,
        trace: Sequence[TracedRequest],
        fleet: Sequence[InstanceModel],
        settings: SimulationSettings,
        order: OracleOrder = OracleOrder.DEADLINE,
        *,
        most_share: float = 1.0,
    ) -> None:
        """``most_share``: share of targets that a placement may be predicted to use; below 1 leaves a margin."""
        self._settings = settings
        self._order = order
        self._most_share = most_share
        self._events = EventQueue()
        self._outcomes: list[Outcome | None] = [None] * len(trace)
        self._left = len(trace)
        self._waiting: list[tuple[float, int, Wanted]] = []  # by order, then by place in the trace
        self._placed: dict[int, tuple[Wanted, OracleInstance, float]] = {}  # by attempt number; when it was placed
        self._first_tokens: dict[int, float] = {}
        self._decisions = 0
        self._wake = False
        times = settings.heartbeats
        executors = [
            ExecutorModel(
                f"i{number:03d}",
                model,
                self._events,
                self,
                heartbeats=times,
                delay_s=settings.network_delay_s,
                first_heartbeat_s=times.interval_s * number / len(fleet),
            )
            for number, model in enumerate(fleet)
        ]
        self._instances = [OracleInstance(each) for each in executors]
        for index, traced in enumerate(trace):
            self._events.at(traced.arrival_s, self._arrive, index, traced)
        self._events.at(_LOOK_AGAIN_S, self._look_again)

    def run(self) -> SimulationResult:
        """Play everything until each request has ended."""
        while self._left:
            if not self._events.play_next():
                raise AssertionError(f"nothing happens any more and {self._left} requests have not ended")
            if self._wake:
                self._wake = False
                self._pass()
        return SimulationResult(
            policy=ORACLE,
            seed=self._settings.seed,
            outcomes=tuple(each for each in self._outcomes if each is not None),
            executors=tuple(each.executor for each in self._instances),
            decisions=self._decisions,
            switches=(),
            stalls=0,
            failovers=0,
            split_counts=SplitCounts(splits=0, fallback_causes={}),
            timeline=(),
            ended_at=self._events.now,
        )

    def _arrive(self, index: int, traced: TracedRequest) -> None:
        most = traced.max_tokens or self._settings.default_max_tokens
        defaults = self._settings.scheduler.default_targets
        wanted = Wanted(
            index=index,
            traced=traced,
            output_tokens=min(traced.output_tokens, most),
            targets=effective_targets(_request(index, traced), defaults),
        )
        insort(self._waiting, (self._key(wanted), index, wanted))
        self._wake = True

    def _key(self, wanted: Wanted) -> float:
        work_s = min(each.prefill_s(wanted) for each in self._instances)
        if self._order is OracleOrder.SHORTEST:
            return work_s * (1 + wanted.output_tokens / max(1, wanted.traced.prompt_tokens))
        ttft_s = wanted.targets.ttft_s
        return wanted.traced.arrival_s + ttft_s - work_s if ttft_s is not None else inf

    def _pass(self) -> None:
        """Place or give up what waits, in order, until ``_DEPTH`` requests are left waiting."""
        left = 0
        while left < min(_DEPTH, len(self._waiting)):
            wanted = self._waiting[left][2]
            if self._place(wanted) or self._give_up(wanted):
                del self._waiting[left]
            else:
                left += 1

    def _place(self, wanted: Wanted) -> bool:
        now = self._events.now
        open_ones = [each for each in self._instances if each.open and each.holds(wanted)]
        if not open_ones:
            return False
        share, _, best = min((each.share(wanted, now), i, each) for i, each in enumerate(open_ones))
        if share > self._most_share:
            return False
        self._decisions += 1
        number = self._decisions
        best.enter(number, wanted, now)
        self._placed[number] = wanted, best, now
        best.executor.assign(
            Assignment(attempt_number=number, request=wanted.traced, output_tokens=wanted.output_tokens, priority=0)
        )
        return True

    def _give_up(self, wanted: Wanted) -> bool:
        """End a request whose first token or last token would come too late on an instance of its own."""
        least_s = self._events.now - wanted.traced.arrival_s + min(each.prefill_s(wanted) for each in self._instances)
        limits = [each for each in (wanted.targets.ttft_s, wanted.traced.deadline_s) if each is not None]
        if not limits:
            limits = [self._settings.default_deadline_s]
        if least_s <= min(limits):
            return False
        self._end(wanted, End.REFUSED, why="given up: no instance meets its targets any more")
        return True

    def _end(self, wanted: Wanted, end: End, *, number: int = 0, why: str = "") -> None:
        _, instance, placed_at = self._placed.pop(number, (None, None, None))
        self._outcomes[wanted.index] = Outcome(
            request=wanted.traced,
            end=end,
            ended_at=self._events.now,
            targets=wanted.targets,
            placed_at=placed_at,
            instance_id=instance.executor.instance_id if instance is not None else "",
            first_token_at=self._first_tokens.pop(number, None),
            output_tokens=wanted.output_tokens if end is End.FINISHED else 0,
            why=why,
        )
        self._left -= 1

    # ------------------------------------------------------------------ what executors say

    def heartbeat(self, instance_id: str, load: LoadReport) -> None:
        """Ignore a heartbeat: the oracle knows."""

    def cache_changed(self, instance_id: str, report: object) -> None:
        """Ignore what changed in a prefix cache: the oracle looks into it."""

    def output(self, first: Sequence[int], ended: Sequence[int]) -> None:
        """Note first tokens and ends."""
        for number in first:
            self._first_tokens[number] = self._events.now
            self._placed[number][1].first_token(number)
        for number in ended:
            wanted, instance, _ = self._placed[number]
            instance.leave(number)
            self._end(wanted, End.FINISHED, number=number)
        self._wake = True

    def aborted(self, attempt_number: int, emitted_tokens: int) -> None:
        """Refuse: the oracle aborts nothing."""
        raise AssertionError(f"attempt {attempt_number} was aborted by nobody")

    def _look_again(self) -> None:
        self._wake = True
        self._events.after(_LOOK_AGAIN_S, self._look_again)


def _request(index: int, traced: TracedRequest) -> Request:
    """Make the request as far as its targets go."""
    return Request(
        key=RequestKey(tenant=traced.tenant, request_id=f"r{index}"),
        model=traced.model,
        prompt_token_ids=(),
        sampling=Sampling(),
        priority=traced.priority,
        arrived_at=traced.arrival_s,
        deadline_at=traced.arrival_s + traced.deadline_s if traced.deadline_s is not None else None,
        ttft_target_s=traced.ttft_target_s,
        tpot_target_s=traced.tpot_target_s,
    )
