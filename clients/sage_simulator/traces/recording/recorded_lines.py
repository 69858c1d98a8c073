"""The lines of a recording, as the scheduler wrote them."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.load_report import IterationSample
from scheduler_svc.domain.request import Priority

FINISHED = "finished"


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedRequest:
    """A request that ended.  Times are seconds since the recording began; None where it did not come so far."""

    arrival_s: float
    model: str
    prompt_tokens: int
    output_tokens: int  # that arrived; 0 is possible
    max_tokens: int
    priority: Priority
    ttft_target_s: float | None
    tpot_target_s: float | None
    deadline_s: float | None  # after arrival
    tenant: str
    session: str
    block_hashes: tuple[int, ...]
    block_tokens: int
    end: str  # finished, failed, cancelled, expired
    policy: str
    instance: str  # that had it last
    prefill_instance: str
    attempts: int
    decided_s: float | None
    first_token_s: float | None
    last_token_s: float | None
    ended_s: float
    expected_wait_s: float | None = None  # in the queue, told with the acceptance
    predicted_first_token_s: float | None = None  # from the last placement on

    @property
    def finished(self) -> bool:
        """Whether the request ended by itself."""
        return self.end == FINISHED

    @property
    def ttft_s(self) -> float | None:
        """Seconds from arrival to the first token; None without one."""
        return None if self.first_token_s is None else self.first_token_s - self.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """Seconds per output token after the first; None if it did not finish or has no second token."""
        first, last = self.first_token_s, self.last_token_s
        if not self.finished or first is None or last is None or self.output_tokens < 2:
            return None
        return (last - first) / (self.output_tokens - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedInstance:
    """What is known of an instance from one moment on.  Figures of its engine are 0 until it was ready."""

    at_s: float
    instance: str
    model: str
    state: str
    role: str
    price_per_hour: float
    engine_start: str
    max_model_len: int
    kv_capacity_tokens: int
    kv_block_size: int
    max_running: int
    max_batched_tokens: int
    gpu_count: int
    gpu_name: str

    @property
    def known(self) -> bool:
        """Whether the figures of its engine are there."""
        return self.max_running > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedLoad:
    """What an instance's heartbeats said since the line before."""

    at_s: float
    instance: str
    heartbeats: int
    shortest_gap_s: float | None
    longest_gap_s: float | None
    prefix_queries_tokens: int  # since the engine was ready
    prefix_hits_tokens: int
    samples: tuple[IterationSample, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedLog:
    """A recording; each list in the order of the file."""

    requests: tuple[RecordedRequest, ...]
    instances: tuple[RecordedInstance, ...]
    loads: tuple[RecordedLoad, ...]

    @property
    def models(self) -> list[str]:
        """The models that instances or requests name, sorted."""
        return sorted({each.model for each in self.requests} | {each.model for each in self.instances})

    def between(self, from_s: float, to_s: float) -> RecordedLog:
        """Return the requests that arrived and the load that was reported in [from_s, to_s]; all instances."""
        return RecordedLog(
            requests=tuple(each for each in self.requests if from_s <= each.arrival_s <= to_s),
            instances=self.instances,
            loads=tuple(each for each in self.loads if from_s <= each.at_s <= to_s),
        )

    def latest_instances(self, model: str | None = None) -> list[RecordedInstance]:
        """Return the latest line with an engine's figures of each instance, sorted by id; those that left too."""
        latest = {each.instance: each for each in self.instances if each.known and model in (None, each.model)}
        return [latest[name] for name in sorted(latest)]
