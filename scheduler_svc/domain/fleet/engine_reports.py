"""Updates instances with what their engines report."""

from __future__ import annotations

from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.fleet.health import HealthVerdict, judge
from scheduler_svc.domain.fleet.registry import Registry
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_state import DRAINS, InstanceState, check_transition
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.prediction.fading import FADES_AFTER_S, LOAD_HALF_LIFE_S, faded, slowness
from scheduler_svc.domain.prediction.margin import BORROWED_MARGINS
from scheduler_svc.domain.prediction.pace import Pace, prior_pace
from scheduler_svc.domain.prediction.predictor import Predictor
from scheduler_svc.domain.prefixes.cached_prefixes import CachedPrefixes
from scheduler_svc.domain.progress_watch import ProgressWatch
from scheduler_svc.domain.settings import SchedulerSettings

#: States in which an instance stays when its engine reports that it is ready.
_STAYS = frozenset({*DRAINS, InstanceState.READY, InstanceState.STALLED, InstanceState.SLEEPING})

#: Iterations that tell how much load an engine carries, roughly: by how many times it is off the prior.
_ROUGH_SAMPLES = 4


class EngineReports:
    """Updates instances with the facts, heartbeats and end of their engines, and judges their progress."""

    def __init__(
        self, registry: Registry, ledger: Ledger, prefixes: CachedPrefixes, settings: SchedulerSettings
    ) -> None:
        self._registry = registry
        self._ledger = ledger
        self._prefixes = prefixes
        self._settings = settings

    def engine_ready(self, instance_id: str, facts: EngineFacts, now: float) -> Instance:
        """Take the facts of an engine that is up and produced tokens.

        A new ``engine_start_id`` starts the predictor over, from the iterations that the executor measured, if it did.
        An instance that is draining stays so, and one that is
        STALLED has to do iterations first.  Raises InstanceNotFound; InvalidTransition for a LOST instance, which has
        to register first.
        """
        instance = self._registry.get(instance_id)
        if instance.state is InstanceState.LOST:
            check_transition(instance_id, instance.state, InstanceState.READY)
        start_id = instance.spec.engine_start_id
        new_engine = instance.predictor is None or instance.engine_start_id != start_id
        self._prefixes.engine_ready(instance_id, facts, new_engine=new_engine)
        if instance.predictor is None or new_engine:
            prior, forgetting = prior_pace(facts), self._settings.forgetting
            instance.predictor = Predictor(prior, forgetting=forgetting, measured=facts.measured)
            instance.predictor.busy_at = now
            instance.watch = ProgressWatch(now)
            instance.load = None
        instance.engine_start_id = start_id
        instance.facts = facts
        instance.account.is_tried = instance.predictor.telling
        instance.account.open(
            facts,
            self._comparable_pace(instance, instance.predictor),
            price_per_hour=instance.spec.price_per_hour,
            lookahead_share=self._settings.lookahead_share,
            uncached_share=instance.predictor.uncached_share,
            margins=instance.predictor.margins,
        )
        if new_engine and instance.predictor.telling:
            self._lend(instance, instance.predictor)
        self._registry.pool_of(instance).invalidate()
        self._to_ready(instance, now)
        return instance

    def report(self, instance_id: str, load: LoadReport, now: float) -> None:
        """Take a heartbeat.  Raises InstanceNotFound."""
        instance = self._registry.get(instance_id)
        account = instance.account
        instance.load = load
        instance.last_report_at = now
        account.report(load, now)
        seen = len(account.reservations) - len(account.kv.unseen)
        instance.watch.observe(load, now, seen_reservations=seen)
        predictor = instance.predictor
        if predictor is not None:
            knew = predictor.telling
            if predictor.learn(load):
                self._use_pace(instance, predictor, knew=knew)
            if load.samples or account.reservations:
                predictor.busy_at = now
            else:
                self._fade(instance, predictor, now)
        self._registry.pool_of(instance).changed = True

    def lose(self, instance_id: str, reason: str, now: float) -> list[int]:
        """Free all reservations on an instance.  Returns their attempt numbers, oldest first.

        The instance stays in its state (``Registry.transition`` changes it); ``reason`` becomes its state's reason.

        Raises InstanceNotFound.
        """
        instance = self._registry.get(instance_id)
        self._registry.transition(instance_id, instance.state, reason, now)
        self._registry.pool_of(instance).changed = True
        for reservation in instance.account.reservations.values():
            self._prefixes.released(reservation, 0)
        return self._ledger.release_all(instance.account, now)

    def check_health(self, now: float) -> list[HealthVerdict]:
        """Judge every instance by its progress and change the states that need it.  Returns the changes."""
        verdicts = []
        for instance in self._registry.all():
            verdict = judge(instance, self._settings, now)
            if verdict is None:
                continue
            if verdict.state is InstanceState.STALLED:
                instance.watch.stall()
            self._registry.transition(instance.instance_id, verdict.state, verdict.reason, now)
            verdicts.append(verdict)
        return verdicts

    def _comparable_pace(self, instance: Instance, predictor: Predictor) -> Pace:
        """Return the pace that an engine learned; until it has learned enough, one of its pool that has, if any."""
        if not predictor.telling:
            for other in self._registry.pool_of(instance).instances():
                if other.predictor is not None and other.predictor.telling:
                    return other.predictor.pace
        return predictor.pace

    def _use_pace(self, instance: Instance, predictor: Predictor, *, knew: bool) -> None:
        """Score an instance by the pace it learned, and those that have learned too little by the same pace.

        Otherwise the first of equal instances to learn would look faster or slower than those still at the prior.
        """
        if not predictor.telling:
            self._use_roughly(instance, predictor)
            return
        instance.account.is_tried = True
        instance.account.learn(predictor.pace, predictor.uncached_share, predictor.margins)
        if not knew:
            self._lend(instance, predictor)

    def _lend(self, instance: Instance, predictor: Predictor) -> None:
        """Score those that have learned too little by the pace that an instance of their model has learned."""
        for other in self._registry.pool_of(instance).instances():
            if other.predictor is not None and not other.predictor.telling:
                other.account.learn(predictor.pace, other.predictor.uncached_share, BORROWED_MARGINS)
                self._use_roughly(other, other.predictor)

    def _use_roughly(self, instance: Instance, predictor: Predictor) -> None:
        """Have a pace learned from few iterations tell how much load an instance carries, though not where to go."""
        if predictor.samples >= _ROUGH_SAMPLES:
            instance.account.try_out(predictor.pace)

    def _fade(self, instance: Instance, predictor: Predictor, now: float) -> None:
        """Score an idle instance by a pace that nears the fastest one of its model."""
        if not predictor.telling or now - predictor.busy_at <= FADES_AFTER_S:
            return
        others = [i.predictor for i in self._registry.pool_of(instance).instances() if i.predictor is not None]
        fastest = min((each.pace for each in others if each.telling), key=slowness)
        own, idle_s = predictor.pace, now - predictor.busy_at
        instance.account.fade(faded(own, fastest, idle_s), faded(own, fastest, idle_s, LOAD_HALF_LIFE_S))

    def _to_ready(self, instance: Instance, now: float) -> None:
        if instance.state is InstanceState.SUSPECT:
            self._registry.recover(instance.instance_id, "its engine is ready", now)
        if instance.state in _STAYS:
            return
        if instance.state is InstanceState.FAILED:
            self._registry.transition(instance.instance_id, InstanceState.WARMING, "came back", now)
        self._registry.transition(instance.instance_id, InstanceState.READY, "its engine is ready", now)
