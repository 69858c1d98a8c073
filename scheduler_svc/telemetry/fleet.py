"""Gauges that are read when metrics are exported: queues, requests, policy, pairs, instances."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from sage_common.clock import Clock
from sage_telemetry import catalogue
from sage_telemetry.instrument import Instrument
from sage_telemetry.meter import Labels, Observed
from scheduler_svc.control.adoption.restart_figures import RestartFigures
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.sleep.device_groups import DeviceGroups
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.pd.fallbacks import Fallback
from scheduler_svc.domain.pd.pairs import PairState
from scheduler_svc.domain.request import RequestState
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.telemetry.adapters import AdapterReader
from scheduler_svc.telemetry.batches import BatchReader
from scheduler_svc.telemetry.journal import JournalReader
from scheduler_svc.telemetry.roles import RoleReader
from scheduler_svc.telemetry.scaling import ScalingReader
from scheduler_svc.telemetry.tenant_label import OTHER, tenant_label

Values = defaultdict[Instrument, list[tuple[Labels, float]]]


class FleetReader:
    """Reads the scheduler's current figures as metric values."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        requests: RequestTable,
        recorded: Callable[[], Mapping[str, int]] = dict,
        client_sessions: Callable[[], int] = lambda: 0,
        restart: Callable[[], RestartFigures] = RestartFigures,
        journal: JournalReader | None = None,
        batches: BatchReader | None = None,
        scaling: ScalingReader | None = None,
        device_groups: DeviceGroups | None = None,
        roles: RoleReader | None = None,
        adapters: AdapterReader | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._requests = requests
        self._recorded = recorded
        self._client_sessions = client_sessions
        self._restart = restart
        self._journal = journal if journal is not None else JournalReader()
        self._batches = batches if batches is not None else BatchReader()
        self._scaling = scaling
        self._device_groups = device_groups
        self._roles = roles
        self._adapters = adapters

    def read(self) -> Observed:
        """Return the values of every gauge.  Runs on the event loop, which owns what it reads."""
        values: Values = defaultdict(list)
        parts: tuple[Callable[[Values], None], ...] = (
            self._queues,
            self._running,
            self._policy,
            self._shadow,
            self._pairs,
            self._instances,
            self._turns,
            self._recording,
            self._restarted,
            self._journal.add_to,
            self._batches.add_to,
            *([self._scaling.add_to] if self._scaling is not None else ()),
            *([self._roles.add_to] if self._roles is not None else ()),
            *([self._adapters.add_to] if self._adapters is not None else ()),
        )
        for part in parts:
            part(values)
        return values

    def _queues(self, values: Values) -> None:
        now = self._clock.now()
        for model, queue in self._scheduler.queues().items():
            values[catalogue.QUEUE_LIMIT].append(((model,), queue.limit))
            values[catalogue.EXPECTED_WAIT].append(((model,), self._scheduler.expected_wait(model, now)))
            for priority, waiting in queue.by_priority.items():
                values[catalogue.QUEUE_DEPTH].append(((model, priority.name.lower()), waiting))

    def _running(self, values: Values) -> None:
        running = Counter(dict.fromkeys(self._scheduler.models(), 0))
        backlog = clients = 0
        named = self._scheduler.settings.shares.tenants
        states = ("queued", "running")
        tenants = Counter(dict.fromkeys(((tenant, state) for tenant in (*named, OTHER) for state in states), 0))
        for live in self._requests:
            if live.state.ended:
                continue  # other choices of its request go on
            tenants[tenant_label(live.key.tenant, named), live.state.value] += 1
            running[live.request.model] += live.state is RequestState.RUNNING
            backlog += live.unread
            clients += len(live.readers)
        values[catalogue.MODEL_CONDITIONS] = [((), len(self._scheduler.model_conditions()))]
        values[catalogue.REQUESTS_RUNNING] = [((model,), count) for model, count in running.items()]
        values[catalogue.TENANT_REQUESTS] = list(tenants.items())
        values[catalogue.RELAY_BACKLOG] = [((), backlog)]
        values[catalogue.RELAY_CLIENTS] = [((), clients)]
        values[catalogue.CLIENT_SESSIONS] = [((), self._client_sessions())]

    def _policy(self, values: Values) -> None:
        values[catalogue.POLICY_ACTIVE] = [((self._scheduler.policy, self._scheduler.delegate), 1)]

    def _shadow(self, values: Values) -> None:
        shadow = self._scheduler.shadow
        if shadow is None:
            return
        counts = {
            "same": shadow.same,
            "other": shadow.compared - shadow.same,
            "not_compared": shadow.not_compared,
            "failed": int(bool(shadow.failure)),
        }
        values[catalogue.SHADOW_DECISIONS] = [((shadow.policy, result), count) for result, count in counts.items()]
        values[catalogue.SHADOW_PREDICTED] = [
            ((shadow.policy, choice, figure), value)
            for choice, sums in (("shadow", shadow.shadow), ("in_force", shadow.in_force))
            for figure, value in (
                ("first_token", sums.first_token_s),
                ("finish", sums.finish_s),
                ("cost", sums.cost),
            )
        ]

    def _pairs(self, values: Values) -> None:
        enabled, counts = self._scheduler.pd_settings.enabled, self._scheduler.split_counts()
        states = Counter(pair.state for pair in self._scheduler.pairs() if enabled)
        values[catalogue.PD_ENABLED] = [((), float(enabled))]
        values[catalogue.PD_CONDITIONS] = [((), len(self._scheduler.pd_conditions()))]
        values[catalogue.PD_SPLITS] = [((), counts.splits)]
        values[catalogue.PD_FALLBACKS] = [((cause.value,), counts.fallback_causes.get(cause, 0)) for cause in Fallback]
        values[catalogue.PD_PAIRS] = [((state.value,), states[state]) for state in PairState]

    def _instances(self, values: Values) -> None:
        now = self._clock.now()
        counts: Counter[tuple[str, InstanceState]] = Counter()
        for instance in self._scheduler.instances():
            counts[instance.spec.model, instance.state] += 1
            _describe(instance, values, now)
        values[catalogue.INSTANCES] = [
            ((model, state.value), counts[model, state])
            for model in self._scheduler.models()
            for state in InstanceState
        ]

    def _turns(self, values: Values) -> None:
        counts = self._device_groups.counts if self._device_groups is not None else {}
        values[catalogue.DEVICE_GROUP_ORDERS] = [
            ((action.value, cause.value), count) for (action, cause), count in counts.items()
        ]

    def _recording(self, values: Values) -> None:
        values[catalogue.RECORDING_LINES] = [((result,), count) for result, count in self._recorded().items()]

    def _restarted(self, values: Values) -> None:
        restart = self._restart()
        values[catalogue.SCHEDULER_LEADS] = [((), 1.0)]
        values[catalogue.REQUESTS_ADOPTED] = [((), restart.adopted)]
        values[catalogue.RECOVERY_OPEN] = [((), float(restart.recovering))]
        values[catalogue.RECOVERY_MISSING] = [((), restart.missing)]
        values[catalogue.RECOVERY_DURATION] = [((), restart.recovery_s)]


def _describe(instance: Instance, values: Values, now: float) -> None:
    """Add the gauges of one instance; those that it has not reported yet are left out."""
    own = (instance.instance_id, instance.spec.model)
    values[catalogue.INSTANCE_STATE].append(((*own, instance.role.value, instance.state.value), 1))
    values[catalogue.PRICE].append((own, instance.spec.price_per_hour))
    if instance.last_report_at is not None:
        values[catalogue.HEARTBEAT_AGE].append((own, now - instance.last_report_at))
    if instance.facts is not None:
        account = instance.account
        values[catalogue.KV_CAPACITY].append((own, instance.facts.kv_capacity_tokens))
        values[catalogue.KV_RESERVED].append((own, account.kv.reserved_tokens))
        values[catalogue.INSTANCE_SLOTS].append((own, instance.facts.max_running))
        values[catalogue.INSTANCE_REQUESTS].append(((*own, "reserved"), account.live))
    if (load := instance.load) is not None:
        values[catalogue.KV_USED].append((own, load.kv_used_tokens))
        values[catalogue.INSTANCE_REQUESTS].append(((*own, "running"), load.running))
        values[catalogue.INSTANCE_REQUESTS].append(((*own, "waiting"), load.waiting))
        values[catalogue.THROUGHPUT].append(((*own, "prompt"), load.prompt_tokens_per_s))
        values[catalogue.THROUGHPUT].append(((*own, "generation"), load.generation_tokens_per_s))
