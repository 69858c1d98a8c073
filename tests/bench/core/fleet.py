"""A fleet of modelled instances for the scheduler's benchmark: equal work, no engine behind it."""

from __future__ import annotations

from collections import deque

from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.request import Priority, Request, RequestKey, Sampling
from scheduler_svc.domain.scheduler import Scheduler, SchedulerSettings

MODEL = "m"
PROMPT = 256  # tokens
FAR = 100.0  # seconds: a target that no benchmark lasts long enough to miss, and that all requests get
MAX_RUNNING = 16
FACTS = EngineFacts(
    engine="modelled",
    engine_version="1",
    vocab_size=32_000,
    max_model_len=8_192,
    kv_capacity_tokens=100_000,
    max_running=MAX_RUNNING,
    max_batched_tokens=8_192,
    supports_priority=True,
    prefix_caching=True,
)


def start_scheduler(policy: str, instances: int, *, queue_limit: int = 1_000_000) -> Scheduler:
    settings = SchedulerSettings(policy=policy, queue_limit_per_model=queue_limit)
    scheduler = Scheduler(settings, PolicyCatalogue())
    for n in range(instances):
        spec = InstanceSpec(instance_id=f"i{n:04}", model=MODEL, engine_start_id="1", price_per_hour=1.0 + n % 3)
        scheduler.register(spec, 0.0)
        scheduler.engine_ready(spec.instance_id, FACTS, 0.0)
    return scheduler


class Requests:
    """Makes requests of mixed classes, a third with a stated target."""

    def __init__(self) -> None:
        self._made = 0

    def make(
        self,
        now: float,
        *,
        prompt: int = PROMPT,
        sampling: Sampling | None = None,
        ttft: float = 2.0,
        prefix_hashes: tuple[int, ...] = (),
        prefix_block_tokens: int = 0,
    ) -> Request:
        """A third state the target ``ttft``; of the others the class says it."""
        self._made += 1
        n = self._made
        return Request(
            key=RequestKey(tenant="bench", request_id=str(n)),
            model=MODEL,
            prompt_token_ids=range(prompt),
            sampling=sampling or Sampling(max_tokens=32 << n % 4),
            priority=Priority(1 + n % 5),
            arrived_at=now,
            ttft_target_s=ttft if n % 3 == 0 or ttft > FAR else None,
            prefix_hashes=prefix_hashes,
            prefix_block_tokens=prefix_block_tokens,
        )


class Running:
    """Attempts in the order they started; the oldest ends first."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._attempts: deque[int] = deque()

    def start(self, decisions: list[Decision]) -> None:
        """Take new attempts, whose prompts are computed at once: what fills an instance is its slots."""
        for decision in decisions:
            self._attempts.append(decision.attempt_number)
            self._scheduler.first_token(decision.attempt_number, decision.decided_at)

    def finish(self, count: int, now: float) -> None:
        for _ in range(min(count, len(self._attempts))):
            attempt = self._attempts.popleft()
            self._scheduler.release(attempt, now, output_tokens=20, finished=True)
