"""Turns what control reports into lines of the recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from sage_common.clock import Clock
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.recording.load_condenser import LoadCondenser
from scheduler_svc.recording.log_lines import InstanceLine, Line, RequestLine

HASHES_KEPT = 1_024
"""Block hashes in a line.  Of a longer prompt only every second, third, ... is kept; each covers its whole prefix."""


class LineTaker(Protocol):
    """Takes the lines; ``LogWriter`` implements it."""

    def put(self, line: Line) -> None:
        """Take a line; return at once."""
        ...


class Recorder:
    """Implements FleetObserver, and takes requests that ended.  Memory: a condenser for each instance with an engine.

    ``tenants``: whether lines say whose a request was, as a hash.
    """

    def __init__(self, clock: Clock, lines: LineTaker, *, tenants: bool) -> None:
        self._clock = clock
        self._lines = lines
        self._tenants = tenants
        self._began = clock.now()
        self._known: dict[str, InstanceLine] = {}  # the last line of each instance
        self._loads: dict[str, LoadCondenser] = {}

    def heartbeat(self, instance: Instance, load: LoadReport, now: float) -> None:
        """Take a heartbeat; write what changed of the instance, and from time to time its load."""
        at_s = now - self._began
        self._note(instance, at_s)
        condenser = self._loads.get(instance.instance_id)
        if condenser is None:
            condenser = self._loads[instance.instance_id] = LoadCondenser(instance.instance_id)
        line = condenser.add(load, at_s)
        if line is not None:
            self._lines.put(line)

    def engine_gone(self, instance: Instance, now: float) -> None:
        """Write that an instance left."""
        self._loads.pop(instance.instance_id, None)
        if instance.instance_id in self._known:
            self._note(instance, now - self._began)
            del self._known[instance.instance_id]

    def request_ended(self, live: LiveRequest, reason: str) -> None:
        """Write a request that ended; an EndListener of the request table."""
        self._lines.put(self._request(live))

    def _note(self, instance: Instance, at_s: float) -> None:
        known = self._known.get(instance.instance_id)
        if known is not None and _unchanged(known, instance):
            return
        line = self._known[instance.instance_id] = _instance_line(instance, at_s)
        self._lines.put(line)

    def _request(self, live: LiveRequest) -> RequestLine:
        request = live.request
        hashes, block_tokens = coarser(request.prefix_hashes, request.prefix_block_tokens)
        last = live.placements[-1].decision if live.placements else None
        finished = live.outcome if isinstance(live.outcome, Finished) else None
        return RequestLine(
            arrival_s=request.arrived_at - self._began,
            model=request.model,
            prompt_tokens=request.prompt_tokens,
            output_tokens=len(live.output),
            max_tokens=request.sampling.max_tokens,
            priority=request.priority.name,
            ttft_target_s=request.ttft_target_s,
            tpot_target_s=request.tpot_target_s,
            deadline_s=None if request.target_at is None else request.target_at - request.arrived_at,
            tenant=request.key.tenant if self._tenants else "",
            session=request.session,
            block_hashes=hashes,
            block_tokens=block_tokens,
            end=live.state.value,
            finish_reason=finished.finish_reason if finished is not None else "",
            policy=last.policy if last is not None else "",
            rule=last.rule if last is not None else "",
            instance=last.instance_id if last is not None else "",
            prefill_instance=last.prefill.instance_id if last is not None and last.prefill is not None else "",
            attempts=live.attempts,
            decided_s=self._since(live.placements[0].decision.decided_at if live.placements else None),
            first_token_s=self._since(live.first_token_at),
            last_token_s=self._since(live.last_token_at),
            ended_s=self._clock.now() - self._began,
            cached_prompt_tokens=finished.cached_prompt_tokens if finished is not None else 0,
            expected_wait_s=live.expected_wait_s,
            predicted_first_token_s=last.prediction.first_token_s if last is not None else None,
            predicted_finish_s=last.prediction.finish_s if last is not None else None,
        )

    def _since(self, at: float | None) -> float | None:
        return None if at is None else at - self._began


def coarser(hashes: Sequence[int], block_tokens: int) -> tuple[Sequence[int], int]:
    """Return at most ``HASHES_KEPT`` of the hashes, and the tokens from one to the next."""
    every = -(-len(hashes) // HASHES_KEPT)
    if every <= 1:
        return hashes, block_tokens if hashes else 0
    return hashes[every - 1 :: every], block_tokens * every


def _unchanged(line: InstanceLine, instance: Instance) -> bool:
    return (
        line.state == instance.state.value
        and line.role == instance.role.value
        and line.engine_start == (instance.engine_start_id if instance.facts is not None else "")
    )


def _instance_line(instance: Instance, at_s: float) -> InstanceLine:
    spec, facts = instance.spec, instance.facts
    line = InstanceLine(
        at_s=at_s,
        instance=instance.instance_id,
        model=spec.model,
        state=instance.state.value,
        role=instance.role.value,
        price_per_hour=spec.price_per_hour,
    )
    if facts is None:
        return line
    return replace(
        line,
        engine=facts.engine,
        engine_version=facts.engine_version,
        engine_start=instance.engine_start_id,
        max_model_len=facts.max_model_len,
        kv_capacity_tokens=facts.kv_capacity_tokens,
        kv_block_size=facts.kv_block_size,
        max_running=facts.max_running,
        max_batched_tokens=facts.max_batched_tokens,
        supports_priority=facts.supports_priority,
        gpu_count=facts.parallelism.gpu_count,
        gpu_name=facts.gpu_name,
    )
