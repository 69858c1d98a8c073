"""Usage records as log records for an OTLP receiver."""

from __future__ import annotations

from sage_telemetry.endpoints import OtlpEndpoint
from sage_telemetry.log_export import Entry, LogExport
from sage_telemetry.resource import Identity
from scheduler_svc.control.journal.usage import UsageRecord

EVENT = "sage.usage"
"""Name and body of every record."""


def usage_log(endpoint: OtlpEndpoint, identity: Identity) -> LogExport[UsageRecord]:
    """Return what sends records to a receiver; implements ``recording.usage.usage_log.UsageLog``."""
    return LogExport(endpoint, identity, EVENT, entry_of)


def entry_of(record: UsageRecord) -> Entry:
    """Return a record's time, which is its request's end, and its attributes; what is not known is left out."""
    return Entry(
        record.ended_at,
        {
            "sage.request.id": record.request_id,
            "sage.tenant": record.tenant,
            "sage.priority": record.priority,
            "sage.adapter": record.adapter or None,
            "sage.outcome": record.end,
            "sage.attempts": record.attempts,
            "sage.cost": record.cost,
            "sage.time.queue": record.waited_s,
            "sage.time.to_first_token": record.first_token_s,
            "sage.usage.reason": record.reason,
            "sage.usage.arrived_at": record.arrived_at,
            "sage.usage.ended_at": record.ended_at,
            "sage.usage.detached": record.detached,
            "sage.usage.adopted": record.adopted,
            "gen_ai.request.model": record.model,
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": record.cached_prompt_tokens,
            "gen_ai.usage.output_tokens": record.output_tokens,
        },
    )
