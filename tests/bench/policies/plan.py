"""What has to be run, the most important first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sage_simulator.oracle import ORACLE
from scheduler_svc.domain.policies.builtin import BUILTIN
from tests.bench.policies.cell import Cell, Group
from tests.bench.policies.claims import CLAIM_LOADS
from tests.bench.policies.figures import Figures
from tests.bench.policies.fleets import SEPARATED
from tests.bench.policies.goodput import next_load
from tests.bench.policies.readings import Readings
from tests.bench.policies.traffic import BURSTY, RECORDED
from tests.bench.policies.variants import policy_of

#: Baselines that claims name, or that are the best of their kind; the others come last.
MAIN_BASELINES = ("least_requests", "least_predicted_work", "lmetric", "earliest_deadline")
_USUAL_SLOTS, _USUAL_TARGETS = 128, "mixed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Runs one cell.  Can be sent to another process."""

    cell: Cell

    def __call__(self) -> tuple[Cell, Figures]:
        """Return the cell and its figures."""
        return self.cell, self.cell.run()


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """All that is to be known of a policy in a group by one seed: its figures at fixed loads, and its goodput."""

    group: Group
    policy: str
    seed: int

    @property
    def rank(self) -> tuple[int, ...]:
        """How important it is, the lowest first: by how much it differs from the usual, and then by in what."""
        group = self.group
        unusual = (
            _rank_of_policy(self.policy),
            int(group.fleet == SEPARATED),
            int(group.slots != _USUAL_SLOTS),
            int(group.traffic not in (*RECORDED, *BURSTY)),
            int(group.targets != _USUAL_TARGETS),
            self.seed - 1,
        )
        return sum(unusual), *unusual[::-1]

    def next_cell(self, readings: Readings, extra_loads: Sequence[float]) -> Cell | None:
        """Return the next cell that it needs; None once it knows everything."""

        def cell(load: float) -> Cell:
            return readings.cell(self.group, self.policy, load, self.seed)

        def share_at(load: float) -> float | None:
            found = readings.results.find(cell(load))
            return found.in_target_share if found is not None else None

        for load in sorted({*extra_loads, *CLAIM_LOADS.get(self.policy, ())}):
            if share_at(load) is None:
                return cell(load)
        load_of_search = next_load(readings.loads, share_at)
        return cell(load_of_search) if load_of_search is not None else None


def _rank_of_policy(policy: str) -> int:
    if policy == ORACLE:
        return 2  # three times the work of a policy
    if policy in BUILTIN:
        return 0
    return 1 if policy in MAIN_BASELINES or policy_of(policy) in BUILTIN else 4


class Plan:
    """Gives out the cells that are left, one at a time of each goal, so that each can use what was found before."""

    def __init__(self, readings: Readings, extra_loads: Sequence[float]) -> None:
        """List the goals that are not reached.  ``extra_loads``: run for every policy, beside those of the claims."""
        self._readings = readings
        self._extra_loads = extra_loads
        goals = (
            Goal(group=group, policy=policy, seed=seed)
            for group in readings.groups
            for policy in readings.policies_in(group)
            for seed in readings.seeds
        )
        self._open = sorted(goals, key=lambda each: each.rank)
        self._running: set[tuple[Group, str, int]] = set()

    def next_job(self) -> Job | None:
        """Return the most important cell that can be run now; None if all that is left waits for what runs."""
        for goal in tuple(self._open):
            if (goal.group, goal.policy, goal.seed) in self._running:
                continue
            cell = goal.next_cell(self._readings, self._extra_loads)
            if cell is not None:
                self._running.add((goal.group, goal.policy, goal.seed))
                return Job(cell=cell)
            self._open.remove(goal)
        return None

    def done(self, cell: Cell, figures: Figures) -> None:
        """Take what a job gave."""
        self._running.discard((cell.group, cell.policy, cell.seed))
        self._readings.results.add({cell.key: figures})

    def left(self) -> list[Goal]:
        """Return the goals that are not reached, the most important first."""
        return [each for each in self._open if each.next_cell(self._readings, self._extra_loads) is not None]
