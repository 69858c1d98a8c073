"""Reads metrics of the engine, the session and the output backlog whenever metrics are exported."""

from __future__ import annotations

from executor_svc.runtime.attempts.attempt_table import AttemptTable
from executor_svc.runtime.engine_port import EngineState
from executor_svc.runtime.outputs.outbox import Outbox
from executor_svc.runtime.session.load_meter import LoadMeter
from executor_svc.runtime.session.session import Session
from sage_telemetry import catalogue
from sage_telemetry.meter import Observed


class EngineReader:
    """Reads the executor's gauges and the engine's counters.  Call on the event loop."""

    def __init__(self, session: Session, attempts: AttemptTable, outbox: Outbox, meter: LoadMeter) -> None:
        self._session = session
        self._attempts = attempts
        self._outbox = outbox
        self._meter = meter

    def read(self) -> Observed:
        """Return the current values.  The engine's are left out until it is up."""
        status = self._session.control.status
        states = [((state.value,), float(state is status.state)) for state in EngineState]
        own: Observed = {
            catalogue.ENGINE_STATE: states,
            catalogue.SESSION_CONNECTED: [((), float(self._session.connected))],
            catalogue.ATTEMPTS_HELD: [((), len(self._attempts.held))],
            catalogue.OUTBOX_BACKLOG: [((), self._outbox.backlog_tokens)],
        }
        capacity: Observed = {}
        if status.facts is not None:
            capacity = {catalogue.ENGINE_KV_CAPACITY: [((), status.facts.kv_capacity_tokens)]}
        return {**own, **capacity, **self._engine()}

    def _engine(self) -> Observed:
        load = self._meter.load()
        if load is None:
            return {}
        missed = load.prefix_queries_tokens - load.prefix_hits_tokens
        return {
            catalogue.ENGINE_TOKENS: [
                (("prompt",), load.prompt_tokens_total),
                (("generation",), load.generation_tokens_total),
            ],
            catalogue.ENGINE_PREFIX_CACHE: [(("hit",), load.prefix_hits_tokens), (("miss",), missed)],
            catalogue.ENGINE_ITERATIONS: [((), load.iterations)],
            catalogue.ENGINE_RUNS: [((path,), count) for path, count in load.submissions.items()],
            catalogue.ENGINE_REQUESTS: [(("running",), load.running), (("waiting",), load.waiting)],
            catalogue.ENGINE_KV_USED: [((), load.kv_used_tokens)],
            catalogue.ENGINE_KV_PULLS: [(("fetched",), load.kv_pulls), (("failed",), load.kv_pulls_failed)],
            catalogue.ENGINE_KV_LEASES_EXPIRED: [((), load.kv_leases_expired)],
        }
