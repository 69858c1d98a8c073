"""The catalogue: every instrument, span and attribute of SAGE is listed here and nowhere else.

``python -m sage_telemetry.catalogue`` prints it as Markdown.  Labels have bounded values: of what a client may write
freely, only the model becomes a label, and only if the registry knows it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sage_telemetry.instrument import Instrument, Kind

# ---------------------------------------------------------------- buckets, upper bounds

TTFT_S = (0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120)
ITL_S = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)
END_TO_END_S = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1800, 3600)
WAIT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
GAP_S = (0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 30, 60)
DECISION_S = (1e-05, 2.5e-05, 5e-05, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1)
LAG_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
LOAD_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
HANDOFF_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2, 5)
FRAME_TOKENS_COUNT = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 4_096, 16_384)
ERROR_RATIO = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 5, 10)

# ---------------------------------------------------------------- labels

MODEL = {"model": 'models the registry knows (at most 256); "(unknown)" for refused requests that named another'}
PRIORITY = {"priority": "critical, high, normal, low, background"}
POLICY = {"policy": "names of the policy catalogue"}
SHADOW = {"shadow": "names of the policy catalogue; one at a time"}
INSTANCE = {"instance_id": "instances the registry lists (at most 4,096); gone with the instance", **MODEL}
TENANT = {"tenant": 'tenants that the configuration names; "(other)" for all others together'}
OUTCOME = {"outcome": "finished, failed, cancelled, expired, refused"}
SPAN_RESULT = {"result": "exported, dropped_queue_full, dropped_not_delivered"}


def _counter(name: str, unit: str, text: str, *labels: dict[str, str], observed: bool = False) -> Instrument:
    return Instrument(name=name, kind=Kind.COUNTER, unit=unit, help=text, labels=_merged(labels), observed=observed)


def _gauge(name: str, unit: str, text: str, *labels: dict[str, str]) -> Instrument:
    return Instrument(name=name, kind=Kind.GAUGE, unit=unit, help=text, labels=_merged(labels), observed=True)


def _histogram(
    name: str, unit: str, text: str, buckets: tuple[float, ...], *labels: dict[str, str], weighted: bool = False
) -> Instrument:
    return Instrument(
        name=name, kind=Kind.HISTOGRAM, unit=unit, help=text, labels=_merged(labels), buckets=buckets, weighted=weighted
    )


def _merged(labels: tuple[dict[str, str], ...]) -> dict[str, str]:
    return {name: values for some in labels for name, values in some.items()}


# ---------------------------------------------------------------- both services

BUILD = _gauge(
    "sage.build.info",
    "",
    "Always 1: what runs here.",
    {"service": "scheduler, executor", "version": "of this software", "instance_id": "the executor's own; else empty"},
)
LOOP_LAG = _histogram("sage.event_loop.lag", "s", "How late the event loop runs what is due.", LAG_S)
TRACE_SPANS = _counter(
    "sage.telemetry.spans",
    "{span}",
    "Spans by what became of them: with the collector down or slow they are dropped, never waited for.",
    SPAN_RESULT,
    observed=True,
)

# ---------------------------------------------------------------- scheduler: requests

REQUESTS = _counter(
    "sage.requests",
    "{request}",
    "Requests that ended, each once.",
    MODEL,
    PRIORITY,
    OUTCOME,
    {
        "reason": "stop, length, or the error catalogue's reason in lower case; client_gone where the client left; "
        "delivery_failed where an error in the scheduler ended its stream"
    },
)
REQUEST_DURATION = _histogram(
    "sage.request.duration",
    "s",
    "Arrival to end of accepted requests.",
    END_TO_END_S,
    MODEL,
    PRIORITY,
    OUTCOME,
)
TTFT = _histogram(
    "sage.request.time_to_first_token",
    "s",
    "Arrival to first token, once per request that had one.",
    TTFT_S,
    MODEL,
    PRIORITY,
    POLICY,
)
TPOT = _histogram(
    "sage.request.time_per_output_token",
    "s",
    "Mean time per output token after the first, of finished requests with at least two; failovers included.",
    ITL_S,
    MODEL,
    PRIORITY,
)
QUEUE_TIME = _histogram(
    "sage.request.queue_time",
    "s",
    "Arrival to the first placement decision.",
    WAIT_S,
    MODEL,
    PRIORITY,
    POLICY,
)
TOKENS = _counter(
    "sage.tokens",
    "{token}",
    "Tokens of ended requests.",
    MODEL,
    {"kind": "prompt, cached_prompt (those of prompt the prefix cache held), output"},
)
COST = _counter(
    "sage.request.cost",
    "{currency}",
    "Cost of the engine time that attempts took, at their instances' price; per 1,000 tokens with sage_tokens_total.",
    MODEL,
    PRIORITY,
)
SLO = _counter(
    "sage.slo.requests",
    "{request}",
    "Requests by whether they met a target: each stated one, and any (all of them; the class's default first-token "
    "target where none is stated). Failed, expired and refused requests missed theirs; those refused for the caller's "
    "own mistake (INVALID_REQUEST, REQUEST_CONFLICT, UNKNOWN_MODEL) count nowhere, cancelled ones only where a target, "
    "the class's default included, had passed already.",
    MODEL,
    PRIORITY,
    {"target": "ttft, tpot, deadline, any", "result": "met, missed"},
)
ADAPTER_REQUESTS = _counter(
    "sage.adapter.requests",
    "{request}",
    "Accepted requests with a LoRA adapter that ended, each once.",
    MODEL,
    {
        "adapter": "the first 256 adapters of all models that requests ran with since the scheduler's start; (other) "
        "for all others together"
    },
    OUTCOME,
)
REQUESTS_RUNNING = _gauge("sage.requests.running", "{request}", "Requests placed on an instance now.", MODEL)

# ---------------------------------------------------------------- scheduler: queue, decisions, prediction

QUEUE_DEPTH = _gauge("sage.queue.depth", "{request}", "Requests that wait.", MODEL, PRIORITY)
QUEUE_LIMIT = _gauge("sage.queue.limit", "{request}", "Requests that may wait for the model.", MODEL)
EXPECTED_WAIT = _gauge("sage.queue.expected_wait", "s", "What a request that comes now would wait.", MODEL)
DECISIONS = _counter(
    "sage.decisions",
    "{decision}",
    "Placement decisions by the rule that chose the instance.",
    POLICY,
    {
        "phase": "hybrid (whole), decoding (split)",
        "reason": "earliest_finish, earliest_first_token, least_target_used, none_meets_targets, most_crowded, "
        "in_use, cheapest, session, preferred, kept (for a quarantined request); other for policies that name none",
    },
)
DECISION_DURATION = _histogram(
    "sage.decision.duration",
    "s",
    "Time to decide, per decision: a scheduling pass divided by what it placed.",
    DECISION_S,
    weighted=True,
)
PREDICTION_ERROR = _histogram(
    "sage.prediction.error_ratio",
    "1",
    "|predicted - measured| / measured, from decision to first token and to the end.",
    ERROR_RATIO,
    {"quantity": "first_token, finish", "direction": "early (sooner than predicted), late"},
)
POLICY_ACTIVE = _gauge(
    "sage.policy.active",
    "",
    "1 for the policy in force.",
    POLICY,
    {"follows": "the policy it follows now; empty where it decides itself"},
)
SHADOW_DECISIONS = _counter(
    "sage.shadow.decisions",
    "{decision}",
    "Decisions that the shadow policy was asked about; gone while there is none, from 0 with every new one.",
    SHADOW,
    {
        "result": "same (it chose the same instance), other, not_compared (split requests, and those whose caller "
        "prefers an instance), failed (it raised, which switched it off)"
    },
    observed=True,
)
SHADOW_PREDICTED = _counter(
    "sage.shadow.predicted",
    "",
    "Sums over compared decisions of what was predicted at the instance of each policy's choice.",
    SHADOW,
    {
        "choice": "shadow, in_force",
        "figure": "first_token (s since the decision), finish (s), cost (currency of the instances' prices)",
    },
    observed=True,
)
RECORDING_LINES = _counter(
    "sage.recording.lines",
    "{line}",
    "Lines of the recording by what became of them; none is waited for.",
    {"result": "written, dropped_queue_full, dropped_not_written"},
    observed=True,
)

# ---------------------------------------------------------------- scheduler: failover, prefill and decode apart

FAILOVERS = _counter(
    "sage.failovers",
    "{failover}",
    "Attempts that failed and whose request went on elsewhere.",
    MODEL,
    {"cause": "lost, stalled, failed, rejected, returned, undelivered, mismatch"},
)
CONTINUATIONS = _counter(
    "sage.continuations",
    "{attempt}",
    "Attempts that went on after tokens that earlier ones delivered.",
    MODEL,
    {"mode": "history (given to the engine as its output), resume (as a part of its prompt), replay (generated again)"},
)
QUARANTINED = _counter(
    "sage.requests.quarantined",
    "{request}",
    "Requests that were present at engine deaths and run alone since.",
    MODEL,
)
TENANT_TOKENS = _counter(
    "sage.tenant.tokens",
    "{token}",
    "Tokens of ended requests, by tenant.",
    TENANT,
    {"kind": "prompt, output"},
)
TENANT_REQUESTS = _gauge(
    "sage.tenant.requests",
    "{request}",
    "Requests now, by tenant.",
    TENANT,
    {"state": "queued, running"},
)
OVERLOADED = _counter(
    "sage.requests.overloaded",
    "{request}",
    "Requests that were refused, or given up while they waited, for want of capacity or for a tenant's limit.",
    TENANT,
    PRIORITY,
    {"cause": "queue_full, displaced, deadline, queue_wait, waiting_limit, tokens_per_minute"},
)
CALLS_REFUSED = _counter(
    "sage.calls.refused",
    "{call}",
    "Calls that were refused for who calls, or for a limit; one whose answer had begun counts too.",
    {"rpc": "names of the contract's calls, of health checks and of reflection"},
    {
        "reason": "unauthenticated, permission_denied, duplicate_instance, unknown_session, queue_full, limit_reached, "
        "tenant_limit, overloaded"
    },
)
FAILOVER_GAP = _histogram(
    "sage.failover.gap",
    "s",
    "Pause that a failover put into an output: the last token before it to the first one after it.",
    GAP_S,
    MODEL,
)
REQUESTS_ADOPTED = _counter(
    "sage.requests.adopted", "{request}", "Requests of an earlier scheduler that went on with this one.", observed=True
)
RECOVERY_OPEN = _gauge(
    "sage.recovery.open", "", "1 while requests of an earlier scheduler may still come back: new ones wait."
)
RECOVERY_MISSING = _gauge(
    "sage.recovery.missing_instances", "{instance}", "Instances of an earlier scheduler that have not come back."
)
RECOVERY_DURATION = _gauge(
    "sage.recovery.duration", "s", "How long the recovery after this scheduler's start took, or has taken so far."
)
SCHEDULER_LEADS = _gauge("sage.scheduler.leads", "", "1 while this scheduler leads, 0 while it stands by.")
JOURNAL_TROUBLE = _gauge(
    "sage.journal.trouble",
    "",
    "1 while the journal cannot be written: detached requests are refused, others go on; 0 also without a journal.",
)
JOURNAL_WRITES = _counter(
    "sage.journal.writes",
    "{write}",
    "Writes to the journal by what became of them; many share a transaction.",
    {"result": "committed, refused, failed"},
    observed=True,
)
JOURNAL_COMMIT_TIME = _counter(
    "sage.journal.commit.time", "s", "Time that the journal's transactions took, all together.", observed=True
)
JOURNAL_COMMITS = _counter("sage.journal.commits", "{commit}", "Transactions of the journal.", observed=True)
BATCHES_UNFINISHED = _gauge("sage.batches.unfinished", "{batch}", "Batches that have not ended.")
BATCH_LINES_IN_FLIGHT = _gauge(
    "sage.batch.lines.in_flight", "{line}", "Lines of batches that wait or run; batches.lines_in_flight bounds them."
)
BATCH_LINES = _counter(
    "sage.batch.lines",
    "{line}",
    "Lines of batches whose result was written down.",
    {"result": "completed, failed"},
    observed=True,
)
BATCH_RETRIES = _counter(
    "sage.batch.retries", "{try}", "Tries of batches' lines beyond the first, for want of something.", observed=True
)
BATCH_BYTES = _gauge("sage.batch.bytes", "By", "Bytes of batches and files that are kept; batches.bytes bounds them.")
USAGE_RECORDS = _counter(
    "sage.usage.records",
    "{record}",
    "Usage records by what became of them; none is waited for.",
    {"result": "written, dropped_queue_full, dropped_not_written"},
    observed=True,
)
MODEL_CONDITIONS = _gauge(
    "sage.model.conditions",
    "{model}",
    "Models whose instances run different weights, dtypes or tokenizers under one name; 0 when all is well.",
)
SCALED = {**MODEL, "role": "general (and hybrid), prefilling, decoding, embedding"}
DESIRED_INSTANCES = _gauge(
    "sage.scheduler.desired_instances",
    "{instance}",
    "Instances that there are to be; nothing where scaling.enabled is off.",
    SCALED,
)
SCALING_LOAD = _gauge(
    "sage.scaling.load",
    "{instance}",
    "What arrives, in instances with every slot taken.",
    SCALED,
    {"when": "now; forecast: when an instance would be ready that is started now"},
)
WARM_UP = _gauge(
    "sage.scaling.warm_up", "s", "From an instance's registration until it is ready; a setting until measured.", SCALED
)
SCALING_CHANGES = _counter(
    "sage.scaling.changes",
    "{change}",
    "Changes of the instances that there are to be.",
    SCALED,
    {"direction": "up, down"},
    observed=True,
)
DEVICE_GROUP_ORDERS = _counter(
    "sage.device_group.orders",
    "{order}",
    "Orders to engines that take turns on a device.",
    {
        "action": "wake, drain, resume, give_back",
        "cause": "waiting, peer_wanted, turn_over, drain_limit, peer_not_wanted",
    },
    observed=True,
)
ROLE_PRESSURE = _gauge(
    "sage.pd.pressure",
    "1",
    "Of the prefill and of the decode side: 1 is what it can just carry; nothing where roles are not automatic.",
    MODEL,
    {"side": "prefill, decode"},
)
ROLE_CHANGES = _counter(
    "sage.pd.role_changes",
    "{change}",
    "Roles that the scheduler changed by itself.",
    {**MODEL, "role": "prefilling, decoding: the new one"},
    {
        "cause": "prefill_pressed, decode_pressed, prefill_empty, decode_empty, prefill_unable, decode_unable, "
        "splitting_off"
    },
    observed=True,
)
PD_ENABLED = _gauge("sage.pd.enabled", "", "1 where requests may be split into prefill and decode legs.")
PD_CONDITIONS = _gauge("sage.pd.conditions", "{condition}", "What keeps splitting from working; 0 when all is well.")
PD_SPLITS = _counter("sage.pd.splits", "{request}", "Requests placed as two legs.", observed=True)
PD_FALLBACKS = _counter(
    "sage.pd.fallbacks",
    "{request}",
    "Requests that should have been split and ran whole, or whose handoff failed; both count where one led to the "
    "other.",
    {
        "reason": "no_pair, no_room, held_back (it would make those late who run on decode instances), failed_before "
        "(runs whole because its handoff failed); of handoffs prefill_failed, lease_expired, not_fetched, recomputed"
    },
    observed=True,
)
PD_HANDOFF = _histogram("sage.pd.handoff.duration", "s", "Prefill leg's end to decode's first token.", HANDOFF_S, MODEL)
PD_PAIRS = _gauge(
    "sage.pd.pairs", "{pair}", "Pairs of prefill and decode instances.", {"state": "untried, warming, usable, failed"}
)

# ---------------------------------------------------------------- scheduler: the fleet

INSTANCES = _gauge(
    "sage.instances",
    "{instance}",
    "Instances by state; every state of a known model is there, also at 0. A model that the scheduler's configuration "
    "does not name is known until its last instance is forgotten (instance.forget_after_s) and no request waits.",
    MODEL,
    {"state": "downloading, loading, warming, ready, suspect, stalled, draining, drained, sleeping, lost, failed"},
)
INSTANCE_STATE = _gauge(
    "sage.instance.state",
    "",
    "1 for the state each instance is in.",
    INSTANCE,
    {"role": "general, prefilling, decoding, hybrid, embedding", "state": "as sage_instances"},
)
KV_CAPACITY = _gauge("sage.instance.kv.capacity_tokens", "{token}", "KV cache, in tokens.", INSTANCE)
KV_USED = _gauge("sage.instance.kv.used_tokens", "{token}", "KV cache in use, by the latest heartbeat.", INSTANCE)
KV_RESERVED = _gauge("sage.instance.kv.reserved_tokens", "{token}", "KV cache the scheduler has promised.", INSTANCE)
INSTANCE_REQUESTS = _gauge(
    "sage.instance.requests",
    "{request}",
    "Requests in the engine by the latest heartbeat, and those the scheduler reserved room for.",
    INSTANCE,
    {"state": "running, waiting, reserved"},
)
INSTANCE_SLOTS = _gauge("sage.instance.slots", "{request}", "Requests the engine runs at once.", INSTANCE)
THROUGHPUT = _gauge(
    "sage.instance.throughput.tokens_per_second",
    "{token}/s",
    "Tokens a second, by the latest heartbeat.",
    INSTANCE,
    {"kind": "prompt, generation"},
)
PRICE = _gauge(
    "sage.instance.price_per_hour",
    "{currency}/h",
    "What the instance costs, busy or not; with its throughput the cost of 1,000 tokens.",
    INSTANCE,
)
INSTANCE_ADAPTERS = _gauge(
    "sage.instance.adapters",
    "{adapter}",
    "LoRA adapters of each instance that has any: those from its engine's start and those added since.",
    INSTANCE,
    {"state": "loading (or waiting for a slot), loaded, unloading, failed (not tried again by itself)"},
)
HEARTBEAT_AGE = _gauge("sage.instance.heartbeat_age", "s", "Since the latest heartbeat.", INSTANCE)

# ---------------------------------------------------------------- scheduler: clients

RELAY_BACKLOG = _gauge("sage.relay.backlog_tokens", "{token}", "Output that connected clients have not taken yet.")
RELAY_CLIENTS = _gauge("sage.relay.clients", "{client}", "Clients that read a request's output now.")
CLIENT_SESSIONS = _gauge("sage.client_sessions", "{session}", "Sessions of clients that are open.")
FRAMES = _counter("sage.frames", "{frame}", "Frames that were sent to clients.")
FRAME_TOKENS = _histogram(
    "sage.frame.tokens", "1", "Output tokens of a frame, of all its requests together.", FRAME_TOKENS_COUNT
)
FRAME_BYTES = _counter("sage.frame.size", "By", "Bytes of the frames that were sent to clients.")
WINDOW_STALLS = _counter(
    "sage.session.window_stalls",
    "{stall}",
    "Times that output waited for a client to acknowledge frames, because its window was full.",
)

# ---------------------------------------------------------------- executor

ATTEMPTS = _counter(
    "sage.attempts",
    "{attempt}",
    "Attempts that ended here.",
    {
        "cause": "finished, cancelled, invalid, failed, deadline, replay_diverged; rejected_ with stale_epoch, "
        "draining, not_ready, kv_lease_expired, full for those that never started"
    },
)
ATTEMPT_DURATION = _histogram(
    "sage.attempt.duration",
    "s",
    "Handed to the engine until its room was free.",
    END_TO_END_S,
    {"cause": "as sage_attempts"},
)
ATTEMPT_TTFT = _histogram(
    "sage.attempt.time_to_first_token", "s", "Handed to the engine to its first new token.", TTFT_S
)
ITL = _histogram(
    "sage.engine.inter_token_latency",
    "s",
    "Time between two tokens of a running sequence: each engine iteration, once per token that it decoded.",
    ITL_S,
    weighted=True,
)
ENGINE_TOKENS = _counter(
    "sage.engine.tokens",
    "{token}",
    "Tokens since the engine was ready: of prompts, cached ones included, and of outputs.",
    {"kind": "prompt, generation"},
    observed=True,
)
ENGINE_PREFIX_CACHE = _counter(
    "sage.engine.prefix_cache.tokens",
    "{token}",
    "Prompt tokens looked up in the prefix cache.",
    {"result": "hit, miss"},
    observed=True,
)
ENGINE_ITERATIONS = _counter(
    "sage.engine.iterations", "{iteration}", "Engine iterations that scheduled tokens: progress.", observed=True
)
ENGINE_RUNS = _counter(
    "sage.engine.runs",
    "{run}",
    "Requests given to the engine, by how their outputs are taken: a step of all requests at once, or each from a "
    "stream of its own at about twice the CPU, and why.",
    {"path": "steps, logprobs, kv_transfer, embedding, media, off, unsupported"},
    observed=True,
)
ENGINE_REQUESTS = _gauge("sage.engine.requests", "{request}", "Requests in the engine.", {"state": "running, waiting"})
ENGINE_KV_CAPACITY = _gauge("sage.engine.kv.capacity_tokens", "{token}", "KV cache, in tokens.")
ENGINE_KV_USED = _gauge("sage.engine.kv.used_tokens", "{token}", "KV cache in use.")
ENGINE_KV_PULLS = _counter(
    "sage.engine.kv.pulls",
    "{prompt}",
    "Prompts whose KV was to be fetched from another engine; those that could not be are computed here, or fail.",
    {"result": "fetched, failed"},
    observed=True,
)
ENGINE_KV_LEASES_EXPIRED = _counter(
    "sage.engine.kv.leases_expired",
    "{prompt}",
    "Prompts whose KV was kept for another engine and not fetched in time.",
    observed=True,
)
ADAPTER_LOADS = _counter(
    "sage.engine.adapter.loads",
    "{adapter}",
    "LoRA adapters that were to be loaded while the engine ran, by how that ended.",
    {
        "result": "loaded, unusable (no such directory or hub id, broken files, a rank or size above a bound), "
        "timed_out, engine_failed, executor_failed"
    },
)
ADAPTER_LOAD_DURATION = _histogram(
    "sage.engine.adapter.load.duration",
    "s",
    "Time to fetch, check and load an adapter, of those that were loaded.",
    LOAD_S,
)
ADAPTER_UNLOADS = _counter(
    "sage.engine.adapter.unloads",
    "{adapter}",
    "LoRA adapters that were to be unloaded, by how that ended.",
    {"result": "unloaded, timed_out, engine_failed"},
)
ENGINE_STATE = _gauge(
    "sage.engine.state",
    "",
    "1 for the state the engine is in, 0 for the others.",
    {"state": "downloading, loading, warming, ready, failed"},
)
SESSION_CONNECTED = _gauge("sage.session.connected", "", "1 while a scheduler has this executor.")
SESSIONS = _counter("sage.sessions", "{session}", "Sessions with a scheduler that were opened.")
ATTEMPTS_HELD = _gauge("sage.attempts.held", "{attempt}", "Attempts running, or ended and not acknowledged yet.")
OUTBOX_BACKLOG = _gauge("sage.outbox.backlog_tokens", "{token}", "Output that waits for the link to the scheduler.")

BOTH = (BUILD, LOOP_LAG, TRACE_SPANS)
SCHEDULER = (
    *(REQUESTS, REQUEST_DURATION, TTFT, TPOT, QUEUE_TIME, TOKENS, COST, SLO, REQUESTS_RUNNING),
    ADAPTER_REQUESTS,
    *(QUEUE_DEPTH, QUEUE_LIMIT, EXPECTED_WAIT, DECISIONS, DECISION_DURATION, PREDICTION_ERROR, POLICY_ACTIVE),
    *(TENANT_TOKENS, TENANT_REQUESTS, OVERLOADED, CALLS_REFUSED),
    *(SHADOW_DECISIONS, SHADOW_PREDICTED, RECORDING_LINES),
    *(FAILOVERS, CONTINUATIONS, QUARANTINED, FAILOVER_GAP, MODEL_CONDITIONS),
    *(JOURNAL_TROUBLE, JOURNAL_WRITES, JOURNAL_COMMIT_TIME, JOURNAL_COMMITS, USAGE_RECORDS),
    *(BATCHES_UNFINISHED, BATCH_LINES_IN_FLIGHT, BATCH_LINES, BATCH_RETRIES, BATCH_BYTES),
    *(SCHEDULER_LEADS, REQUESTS_ADOPTED, RECOVERY_OPEN, RECOVERY_MISSING, RECOVERY_DURATION),
    *(DESIRED_INSTANCES, SCALING_LOAD, WARM_UP, SCALING_CHANGES),
    *(DEVICE_GROUP_ORDERS,),
    *(ROLE_PRESSURE, ROLE_CHANGES),
    *(PD_ENABLED, PD_CONDITIONS, PD_SPLITS, PD_FALLBACKS, PD_HANDOFF, PD_PAIRS),
    *(INSTANCES, INSTANCE_STATE, KV_CAPACITY, KV_USED, KV_RESERVED, INSTANCE_REQUESTS, INSTANCE_SLOTS),
    *(THROUGHPUT, PRICE, INSTANCE_ADAPTERS, HEARTBEAT_AGE, RELAY_BACKLOG, RELAY_CLIENTS),
    *(CLIENT_SESSIONS, FRAMES, FRAME_TOKENS, FRAME_BYTES, WINDOW_STALLS),
)
EXECUTOR = (
    *(ATTEMPTS, ATTEMPT_DURATION, ATTEMPT_TTFT, ITL, ENGINE_TOKENS, ENGINE_PREFIX_CACHE, ENGINE_ITERATIONS),
    *(ENGINE_RUNS, ENGINE_REQUESTS, ENGINE_KV_CAPACITY, ENGINE_KV_USED, ENGINE_STATE, SESSION_CONNECTED, SESSIONS),
    *(ATTEMPTS_HELD, OUTBOX_BACKLOG, ENGINE_KV_PULLS, ENGINE_KV_LEASES_EXPIRED),
    *(ADAPTER_LOADS, ADAPTER_LOAD_DURATION, ADAPTER_UNLOADS),
)

# ---------------------------------------------------------------- spans

SPANS: dict[str, str] = {
    "sage.request": "scheduler, SERVER: arrival to end; child of the caller's span. ERROR unless finished or cancelled",
    "sage.admission": "scheduler, child of sage.request: arrival to acceptance or refusal",
    "sage.queue": "scheduler, child of sage.request: each time it waits, until the decision or its end",
    "sage.decision": "scheduler, child of sage.request: the scheduling pass that placed it, with the whole explanation",
    "sage.attempt": "scheduler, CLIENT, child of sage.request: the Assign until its end; a retry links to what failed",
    "sage.execute": "executor, SERVER, child of sage.attempt: the attempt as its executor sees it",
    "sage.prefill": "executor, child of sage.execute: handed to the engine to the first new token (or the end)",
    "sage.kv_transfer": "executor, child of sage.execute: KV blocks on their way to a decode leg, until its first "
    "token; where they do not come, the prompt is computed within it (sage.kv.recomputed)",
    "sage.decode": "executor, child of sage.execute: first new token to the end",
    "llm_request": "vLLM's own, child of sage.execute",
}

EVENTS: dict[str, str] = {
    "sage.first_token": "the first token is here",
    "sage.candidate": "one instance that was looked at (the first 16)",
}
EVENTS_OF: dict[str, tuple[str, ...]] = {
    "sage.request": ("sage.first_token",),
    "sage.decision": ("sage.candidate",),
    "sage.attempt": ("sage.first_token",),
    "sage.execute": ("sage.first_token",),
}
"""The events of each span; spans that are not listed have none."""

LINKS_OF: dict[str, str] = {"sage.attempt": "retry_of"}
"""The kind (attribute sage.link) of each span's links; spans that are not listed have none."""

# ---------------------------------------------------------------- attributes

ATTRIBUTES: dict[str, str] = {
    # the request
    "sage.request.id": "the request's id within its tenant",
    "sage.tenant": "whose ids they are",
    "sage.priority": "critical, high, normal, low, background",
    "sage.prompt.kind": "text, chat, tokens",
    "sage.adapter": "LoRA adapter asked for",
    "sage.target.ttft": "stated first-token target, s",
    "sage.target.tpot": "stated target per output token, s",
    "sage.target.deadline": "stated deadline, s from arrival",
    "sage.outcome": "finished, failed, cancelled, expired, refused",
    "sage.attempts": "placements it took",
    "sage.cost": "at the price of the instances that ran it",
    "sage.slo.met": "whether every target was met; absent where it does not count",
    "sage.slo.missed": "stated targets missed: ttft, tpot, deadline; absent where only the class's default was",
    "sage.time.queue": "arrival to first placement, s",
    "sage.time.to_first_token": "arrival to first token, s",
    "sage.time.per_output_token": "mean after the first, s",
    "sage.invalid_fields": "paths of the fields at fault in a request refused as invalid",
    # waiting and deciding
    "sage.queue.resumed": "whether it waits because an attempt failed",
    "sage.queue.left_behind": "requests of the model that still waited then",
    "sage.policy": "policy that decided",
    "sage.decision.rule": "which rule chose, as the label reason of sage_decisions_total",
    "sage.decision.reasons": "in words, most important first",
    "sage.decision.batch": "decisions of the same pass",
    "sage.decision.score": "the chosen instance's, by the scorer that decided first; lower is better",
    "sage.decision.scored_by": "that scorer",
    "sage.phase": "hybrid (whole), prefilling, decoding",
    "sage.phase.reason": "in words",
    "sage.instance.id": "the instance",
    "sage.prefill.instance.id": "where the prefill leg of a split request runs",
    "sage.candidates.considered": "instances looked at",
    "sage.candidate.chosen": "on the event",
    "sage.candidate.filtered_by": "the filter that took it out",
    "sage.candidate.filter_reason": "in words",
    "sage.candidate.scores": "name=value, lower is better",
    "sage.predicted.start": "decision to start of prefill, s",
    "sage.predicted.first_token": "decision to first token, s",
    "sage.predicted.finish": "decision to end, s",
    "sage.predicted.output_tokens": "learned quantile",
    "sage.predicted.cost": "at the instance's price",
    "sage.predicted.cached_tokens": "prompt tokens that the instance's prefix cache was believed to hold",
    "sage.reserved_tokens": "KV room taken",
    # attempts
    "sage.attempt.number": "unique within the epoch",
    "sage.attempt.epoch": "the scheduler's life it belongs to",
    "sage.attempt.from_token": "output tokens delivered before it",
    "sage.attempt.end": "how it ended: the executor's cause, or the failover's",
    "sage.attempt.continuation": "how it goes on after delivered tokens: history, resume, replay; else absent",
    "sage.failure": "why it failed, in words",
    "sage.link": "on a link: retry_of",
    "sage.engine": "engine and version",
    "sage.kv.recomputed": "true on a decode leg that could not fetch the prompt's KV and computed it; else absent",
}

LOG_RECORDS: dict[str, str] = {
    "sage.usage": "scheduler, with usage.otlp_endpoint: what a request that ended used; no prompt, no output",
}
"""Log records, by event name."""

OF_LOG_RECORDS: dict[str, str] = {
    "sage.usage.reason": "stop, length, or why it did not finish, as the label reason of sage_requests_total",
    "sage.usage.arrived_at": "s since 1970",
    "sage.usage.ended_at": "s since 1970",
    "sage.usage.detached": "whether it needed no client",
    "sage.usage.adopted": "whether it began under an earlier scheduler",
}
"""Attributes that log records alone have."""

GEN_AI: dict[str, str] = {
    "gen_ai.operation.name": "chat or text_completion; on the executor's spans text_completion",
    "gen_ai.provider.name": "sage; on the executor's spans the engine",
    "gen_ai.request.model": "model asked for",
    "gen_ai.request.temperature": "sampling",
    "gen_ai.request.top_p": "sampling",
    "gen_ai.request.top_k": "sampling",
    "gen_ai.request.max_tokens": "sampling",
    "gen_ai.request.frequency_penalty": "sampling, where not 0",
    "gen_ai.request.presence_penalty": "sampling, where not 0",
    "gen_ai.request.seed": "sampling, where given",
    "gen_ai.response.id": "the request's id",
    "gen_ai.response.model": "model that answered",
    "gen_ai.response.finish_reasons": "stop, length",
    "gen_ai.usage.input_tokens": "prompt tokens",
    "gen_ai.usage.cache_read.input_tokens": "of them from the prefix cache",
    "gen_ai.usage.output_tokens": "output tokens",
    "gen_ai.conversation.id": "the session the caller named",
    "gen_ai.input.messages": "the prompt; only with telemetry.content",
    "gen_ai.output.messages": "the output and its finish_reason (stop, length, error, cancelled); only with "
    "telemetry.content",
    "error.type": "reason of the error catalogue in lower case, or a failover's cause",
}


def markdown() -> str:
    """Return the catalogue as Markdown tables."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for title, instruments in (("Both services", BOTH), ("Scheduler", SCHEDULER), ("Executor", EXECUTOR)):
        yield from (
            f"### {title}",
            "",
            "| Prometheus | OpenTelemetry | type | unit | labels | what |",
            "|---|---|---|---|---|---|",
        )
        for each in instruments:
            labels = ", ".join(f"`{name}`" for name in each.labels) or "–"
            yield (
                f"| `{each.prometheus_name}` | `{each.name}` | {each.kind.value} | {each.unit or '–'} | {labels} "
                f"| {_cell(each.help)} |"
            )
        yield ""
    yield from ("### Values of labels", "", "| label | of | values |", "|---|---|---|")
    for (name, values), users in _labels().items():
        yield f"| `{name}` | {', '.join(users)} | {_cell(values)} |"
    yield from ("", "### Buckets", "", "| histogram | upper bounds |", "|---|---|")
    for each in (*BOTH, *SCHEDULER, *EXECUTOR):
        if each.buckets:
            yield f"| `{each.prometheus_name}` | {' '.join(f'{bound:g}' for bound in each.buckets)} |"
    attributes = {**ATTRIBUTES, **OF_LOG_RECORDS, **GEN_AI}
    tables = (("Spans", SPANS), ("Events", _events()), ("Log records", LOG_RECORDS), ("Attributes", attributes))
    for title, table in tables:
        yield from ("", f"### {title}", "", "| name | what |", "|---|---|")
        yield from (f"| `{name}` | {_cell(what)} |" for name, what in table.items())


def _events() -> dict[str, str]:
    return {
        event: f"on {', '.join(span for span, events in EVENTS_OF.items() if event in events)}: {what}"
        for event, what in EVENTS.items()
    }


def _labels() -> dict[tuple[str, str], list[str]]:
    users: dict[tuple[str, str], list[str]] = {}
    for each in (*BOTH, *SCHEDULER, *EXECUTOR):
        for label in each.labels.items():
            users.setdefault(label, []).append(f"`{each.prometheus_name}`")
    return users


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(markdown())
