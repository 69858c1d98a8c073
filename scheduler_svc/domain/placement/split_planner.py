"""Decides whether a request is split now, and between which two instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import Mask
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import DRAINS, InstanceState
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.objectives.objective import Choice, Objective
from scheduler_svc.domain.objectives.picker import pick
from scheduler_svc.domain.pd.fallbacks import Fallback
from scheduler_svc.domain.pd.pairs import End, Pair, PairBook
from scheduler_svc.domain.pd.router import Forecast, PhaseChoice, Shape, determine_request_phase
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.pd.specialization import DECODE_ROLES, PREFILL_ROLES
from scheduler_svc.domain.placement.filters import able, with_slots

#: Seconds that a handoff is assumed to take until one was measured.
HANDOFF_PRIOR_S = 0.05
#: How many pairs or instances a reason names; there may be prefill instances times decode instances of them.
EXAMPLES = 4

_HAS_ENGINE = frozenset({*DRAINS, InstanceState.READY, InstanceState.SUSPECT, InstanceState.STALLED})


@dataclass(slots=True, kw_only=True)
class Split:
    """The two instances of a split request; both have capacity for it now."""

    decoders: Accounts  # decode instances offered to the objective
    choice: Choice  # what the objective chose among ``decoders``
    prefill: Account
    prefill_demand: Demand
    pair: Pair
    prefill_start_s: float  # predicted, from now
    why: str  # in words

    @property
    def decode(self) -> Account:
        """The decode instance."""
        return self.decoders[self.choice.index]


@dataclass(slots=True, kw_only=True)
class SplitPlan:
    """Whether a request should be split and, if so, between which instances or why it cannot be."""

    phase: PhaseChoice
    split: Split | None = None
    fallback: str = ""  # why a request that should be split cannot be, in words
    fallback_cause: Fallback | None = None  # the same as a metric label

    @property
    def lacks_room(self) -> bool:
        """Whether the request would be split if the instances for it had room."""
        return self.phase.prefill_short or self.fallback_cause in (Fallback.NO_ROOM, Fallback.NO_PAIR)

    @property
    def waits_for_a_pair(self) -> bool:
        """Whether the request is to be split once there is capacity.

        Otherwise smaller split requests would take that capacity from it again and again.
        """
        return self.fallback_cause is Fallback.NO_ROOM

    @property
    def may_be_split_later(self) -> bool:
        """Whether a pair could serve the request, which waits for its capacity or for others."""
        return self.fallback_cause in (Fallback.NO_ROOM, Fallback.HELD_BACK)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCounts:
    """How many requests were split or fell back, since the scheduler's start."""

    splits: int  # placed on a pair of instances
    fallback_causes: Mapping[Fallback, int]  # by cause: ran whole instead, or the handoff failed

    @property
    def fallbacks(self) -> int:
        """All of ``fallback_causes`` together."""
        return sum(self.fallback_causes.values())


class SplitPlanner:
    """Plans splits from the pairs and the settings; the placer reserves the planned capacity."""

    def __init__(self, settings: PdSettings) -> None:
        self.settings = settings
        self.pairs = PairBook()
        self._splits = 0  # placed
        self._fallback_causes: Counter[Fallback] = Counter()
        self._ends: tuple[frozenset[End], frozenset[End], frozenset[str]] = (frozenset(), frozenset(), frozenset())

    def renew(self, instances: Iterable[Instance]) -> None:
        """Form the pairs of the engines that run now; cheap while they stay the same."""
        up = [i for i in instances if i.state in _HAS_ENGINE and i.facts is not None]
        suited = [(_end(i), i.specialization) for i in up]
        ends = (
            frozenset(end for end, how in suited if how.prefill > 0),
            frozenset(end for end, how in suited if how.decode > 0),
            frozenset(i.instance_id for i in up if i.state is not InstanceState.READY),
        )
        if ends != self._ends:
            self._ends = ends
            self.pairs.renew(ends[0], ends[1], away=ends[2])

    def count_split(self) -> None:
        """Count a request that is placed on a pair of instances."""
        self._splits += 1

    def count_fallback(self, cause: Fallback) -> None:
        """Count a request that should have been split and runs whole, or whose handoff failed."""
        self._fallback_causes[cause] += 1

    def counts(self) -> SplitCounts:
        """Return what was counted since the start."""
        return SplitCounts(splits=self._splits, fallback_causes=dict(self._fallback_causes))

    def plan(self, demand: Demand, pool: Pool, objective: Objective, now: float, *, failed_before: bool) -> SplitPlan:
        """Decide whether to split a request, and between which instances.

        ``failed_before``: a handoff of this request failed already; it runs whole.
        """
        shape = Shape(
            prompt_tokens=demand.prompt_tokens,
            output_tokens=demand.output_tokens,
            max_tokens=demand.request.sampling.max_tokens,
            prompt_logprobs=demand.request.sampling.prompt_logprobs is not None,
            media=bool(demand.request.media),
            continued=demand.started,
        )
        forecast = None
        if self.settings.mode is SplitMode.ADAPTIVE and not demand.started:
            forecast = self._forecast(demand, pool, now)
        phase = determine_request_phase(shape, self.settings, forecast)
        if not phase.split:
            return SplitPlan(phase=phase)
        if failed_before:
            return SplitPlan(phase=phase, fallback="its handoff failed before", fallback_cause=Fallback.FAILED_BEFORE)
        return self._pair_up(demand, pool, objective, now, phase)

    def conditions(self, pool: Pool) -> list[str]:
        """Say what keeps splitting from working for this model; empty if nothing does.

        Called several times a second, so it stops at the first pair that works and looks at each pair at most once.
        """
        if not self.settings.enabled or not len(pool):
            return []
        missing = [
            f"no instance of {pool.model!r} that takes {what} is ready{_without_connector(pool, roles)}"
            for what, accounts, roles in (
                ("prefill legs", pool.prefillers, PREFILL_ROLES),
                ("decode legs", pool.decoders, DECODE_ROLES),
            )
            if not accounts
        ]
        if missing:
            return missing
        prefills, decodes = ({a.instance_id for a in side} for side in (pool.prefillers, pool.decoders))
        if any(self.pairs.usable_for(name).keys() & prefills for name in decodes):
            return []
        failed = (p for p in self.pairs if p.reason and p.decode.instance_id in decodes)
        examples = islice(failed, EXAMPLES)
        why = "; ".join(f"{p.prefill.instance_id} to {p.decode.instance_id}: {p.reason}" for p in examples)
        return [f"no pair of {pool.model!r} can hand over" + (f" ({why})" if why else ": none is warmed up yet")]

    def _pair_up(self, demand: Demand, pool: Pool, objective: Objective, now: float, phase: PhaseChoice) -> SplitPlan:
        """Choose the decode instance, where the request will stay, then a prefill instance that can hand over to it."""
        decoders, _ = able(pool.decoders, demand)
        usable = {a.instance_id: self.pairs.usable_for(a.instance_id) for a in decoders}
        if not any(usable.values()) or not pool.prefillers:
            return SplitPlan(phase=phase, fallback=self._no_pair(pool), fallback_cause=Fallback.NO_PAIR)
        prefill_demand = _prefill_demand(demand)
        prefillers, refusals = able(pool.prefillers, prefill_demand)
        if not any(pairs.keys() & {a.instance_id for a in prefillers} for pairs in usable.values()):
            why = "; ".join(f"{name} {reason}" for name, _, reason in refusals[:EXAMPLES]) or self._no_pair(pool)
            return SplitPlan(phase=phase, fallback=why, fallback_cause=Fallback.NO_PAIR)
        free = with_slots(prefillers, prefill_demand)
        names = {a.instance_id for a in free}
        decoders = with_slots(decoders, demand)
        options = decoders.where(_mask(bool(usable[a.instance_id].keys() & names) for a in decoders))
        if not options:
            why = "no pair of instances has capacity now"
            return SplitPlan(phase=phase, fallback=why, fallback_cause=Fallback.NO_ROOM)
        choice = objective.choose(replace(demand, able=decoders, load=pool.load, decode_leg=True), options, now)
        if choice.waits:
            return SplitPlan(phase=phase, fallback=choice.why, fallback_cause=Fallback.HELD_BACK)
        decode = options[choice.index]
        pairs = usable[decode.instance_id]
        prefillers = free.where(_mask(a.instance_id in pairs for a in free))
        starts = scorers.start_s(prefillers, now)
        best = pick(prefillers, _ends_of_prefill(prefillers, prefill_demand, starts))
        prefill = prefillers[best]
        why = f"prefill on {prefill.instance_id}: soonest of {len(prefillers)}, predicted start {starts[best]:.2f} s"
        return SplitPlan(
            phase=phase,
            split=Split(
                decoders=options,
                choice=choice,
                prefill=prefill,
                prefill_demand=prefill_demand,
                pair=pairs[prefill.instance_id],
                prefill_start_s=float(starts[best]),
                why=why,
            ),
        )

    def _no_pair(self, pool: Pool) -> str:
        return "; ".join(self.conditions(pool)) or "no pair of instances can take it"

    def _forecast(self, demand: Demand, pool: Pool, now: float) -> Forecast | None:
        whole, prefillers = pool.accounts, pool.prefillers
        if not whole or not prefillers:
            return None
        firsts = scorers.first_token_s(whole, demand, scorers.start_s(whole, now))
        best = pick(whole, firsts)
        starts = scorers.start_s(prefillers, now)
        soonest = pick(prefillers, _ends_of_prefill(prefillers, demand, starts))
        measured = self.pairs.typical_handoff_s(pool.model)
        handoff_s = measured if measured is not None else HANDOFF_PRIOR_S
        prefill_s = _prefill_s(prefillers[soonest], demand)
        return Forecast(
            whole_first_token_s=float(firsts[best]),
            split_first_token_s=float(starts[soonest]) + prefill_s + handoff_s,
            # Each stream that decodes there waits while the prompt takes its part of the iterations.
            interference_s=_prefill_s(whole[best], demand) * whole[best].live,
            handoff_s=handoff_s,
            prefill_backlog_s=float(starts[soonest]),
        )


def _prefill_s(account: Account, demand: Demand) -> float:
    return account.prefill_s(demand.prompt_tokens, demand.cached_on(account.instance_id))


def _ends_of_prefill(accounts: Sequence[Account], demand: Demand, starts: scorers.Scores) -> scorers.Scores:
    """Predict seconds until the prompt is computed; just ``starts`` where nothing is known of caches."""
    if not demand.cached_tokens:
        return starts
    return starts + scorers.prefill_s(accounts, demand)


def _mask(holds: Iterable[bool]) -> Mask:
    return np.fromiter(holds, dtype=np.bool_)


def _without_connector(pool: Pool, roles: frozenset[InstanceRole]) -> str:
    """Name the instances that could be used if their engine had been started with a KV connector."""
    ready = (i for i in pool.instances() if i.state is InstanceState.READY and i.role in roles)
    names = [i.instance_id for i in ready if i.facts is not None and not i.facts.kv_connector]
    return f" (without a KV connector: {', '.join(names[:EXAMPLES])})" if names else ""


def _prefill_demand(demand: Demand) -> Demand:
    """Work out what the prefill leg needs: KV tokens for the prompt and one more, no constraint on the output."""
    request, tokens = demand.request, demand.prompt_tokens + 1
    if request.sampling.structured_output is not None:
        request = replace(request, sampling=replace(request.sampling, structured_output=None))
    return replace(
        demand, request=request, output_tokens=1, tokens=tokens, total_tokens=tokens, must_leave_reserve=False
    )


def _end(instance: Instance) -> End:
    facts = instance.facts
    return End(
        instance_id=instance.instance_id,
        engine_start_id=instance.engine_start_id,
        compatibility_key=facts.compatibility_key if facts is not None else "",
        model=instance.spec.model,
    )
