"""Makes one line of the heartbeats of an instance over a while."""

from __future__ import annotations

from collections import deque

from scheduler_svc.domain.load_report import IterationSample, LoadReport
from scheduler_svc.recording.log_lines import LoadLine

LINE_S = 1.0
"""Seconds that a line covers, at least."""

SAMPLES_KEPT = 32
"""Iterations in a line, evenly spread over those that the heartbeats held."""

_SAMPLES_HELD = 512  # latest iterations until the line is made


class LoadCondenser:
    """Collects the heartbeats of one instance."""

    def __init__(self, instance_id: str) -> None:
        self._instance_id = instance_id
        self._line_at: float | None = None  # time of the last line
        self._heartbeat_at: float | None = None  # time of the last heartbeat
        self._heartbeats = 0
        self._shortest: float | None = None
        self._longest: float | None = None
        self._samples: deque[IterationSample] = deque(maxlen=_SAMPLES_HELD)

    def add(self, load: LoadReport, at_s: float) -> LoadLine | None:
        """Take a heartbeat.  Returns the line that it completes, if any: the first one and then every ``LINE_S``."""
        if self._heartbeat_at is not None:
            gap = at_s - self._heartbeat_at
            self._shortest = gap if self._shortest is None else min(self._shortest, gap)
            self._longest = gap if self._longest is None else max(self._longest, gap)
        self._heartbeat_at = at_s
        self._heartbeats += 1
        self._samples.extend(load.samples)
        if self._line_at is not None and at_s - self._line_at < LINE_S:
            return None
        self._line_at = at_s
        return self._line(load, at_s)

    def _line(self, load: LoadReport, at_s: float) -> LoadLine:
        line = LoadLine(
            at_s=at_s,
            instance=self._instance_id,
            heartbeats=self._heartbeats,
            shortest_gap_s=self._shortest,
            longest_gap_s=self._longest,
            running=load.running,
            waiting=load.waiting,
            kv_used_tokens=load.kv_used_tokens,
            iterations=load.iterations,
            prefix_queries_tokens=load.prefix_queries_tokens,
            prefix_hits_tokens=load.prefix_hits_tokens,
            samples=self._spread(),
        )
        self._heartbeats = 0
        self._shortest = self._longest = None
        self._samples.clear()
        return line

    def _spread(self) -> tuple[tuple[int, int, int, int, float], ...]:
        usable = [each for each in self._samples if each.elapsed_s > 0]
        step = max(1.0, len(usable) / SAMPLES_KEPT)
        return tuple(
            (s.prefill_tokens, s.decode_tokens, s.running, s.kv_used_tokens, round(s.elapsed_s, 6))
            for s in (usable[int(index * step)] for index in range(min(len(usable), SAMPLES_KEPT)))
        )
