"""What executors report, checked and converted to control's types."""

from __future__ import annotations

import re
from collections.abc import Sized

from sage.controlplane.v1 import common_pb2, executor_pb2
from sage_media.kinds import MediaInput
from sage_wire import durations
from sage_wire.errors import ErrorReason
from sage_wire.protocol import (
    AUTOMATIC_ROLES,
    MODEL_CONFIG_LIMIT_BYTES,
    OLDEST_PROTOCOL_VERSION,
    PROCESSOR_FILES,
    PROTOCOL_VERSION,
    RUN_TIME_ADAPTERS,
)
from scheduler_svc.control.attempts.held_attempt import HeldAttempt
from scheduler_svc.control.instances.registration import Registration
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.engine_facts import DIMENSIONS_LIMIT, EngineFacts, Parallelism
from scheduler_svc.domain.instance_spec import DeviceGroup, InstanceRole, InstanceSpec, Location
from scheduler_svc.domain.load_report import IterationSample, LoadReport
from scheduler_svc.domain.prefixes.cache_report import CacheReport
from scheduler_svc.transport import media_inputs
from scheduler_svc.transport.automatic_roles import kept_role
from scheduler_svc.transport.clipping import reported, size_of
from scheduler_svc.transport.enums import CAUSE_FROM_WIRE, FINISH_REASON_FROM_WIRE, ROLE_FROM_WIRE
from scheduler_svc.transport.errors import WireError

INSTANCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
SAMPLES_LIMIT = 256  # iterations kept of one heartbeat
HASHES_LIMIT = 65_536  # of prefixes, in one report
LONGEST_ITERATION_S = 3_600.0
HIGHEST_PRICE = 1e9  # per hour, in any currency; the cost of a request stays a finite number
MOST_TOKENS = 2**40  # in a KV cache, and per second
TEXT_BYTES = 1_024  # of a name, an address, a version
LABELS_LIMIT = 64
PLACES_LIMIT = 64  # of a device group
CAPABILITIES_LIMIT = 256
ADAPTERS_LIMIT = 4_096
HELD_LIMIT = 65_536  # attempts that an executor may say it holds
_FACT_TEXTS = (
    *("engine", "engine_version", "model", "revision", "weights", "dtype"),
    *("gpu_name", "kv_connector", "compatibility_key", "tokenizer_hash"),
)
NEWEST_PROTOCOL_VERSION = PROTOCOL_VERSION + 1  # a newer executor also speaks ours: the scheduler may be upgraded last


def registration(wire: executor_pb2.Register) -> Registration:
    """Convert and check Register.

    Raises WireError for a protocol version that this scheduler does not speak or a field that makes no sense.
    """
    if not OLDEST_PROTOCOL_VERSION <= wire.protocol_version <= NEWEST_PROTOCOL_VERSION:
        raise WireError(
            ErrorReason.PROTOCOL_VERSION,
            f"protocol version {wire.protocol_version} is not spoken here;"
            f" this scheduler takes {OLDEST_PROTOCOL_VERSION} to {NEWEST_PROTOCOL_VERSION}",
        )
    if not INSTANCE_ID.fullmatch(wire.instance_id):
        raise _refused("instance_id", f"{wire.instance_id!r}: letters, digits and . _ : -, at most 128")
    if not wire.model:
        raise _refused("model", "is empty")
    for name in ("model", "engine_start_id", "software_version", "address"):
        _bounded(name, getattr(wire, name))
    for name in ("host", "rack", "zone"):
        _bounded(f"location.{name}", getattr(wire.location, name))
    _few("capabilities", wire.capabilities, CAPABILITIES_LIMIT)
    _few("labels", wire.labels, LABELS_LIMIT)
    for key, value in wire.labels.items():
        _bounded(f"labels[{key[:32]!r}]", key + value)
    _few("held", wire.held, HELD_LIMIT)
    if not 0 <= wire.price_per_hour <= HIGHEST_PRICE:  # NaN is not, either
        raise _refused("price_per_hour", f"{wire.price_per_hour} is not a price")
    if wire.role not in ROLE_FROM_WIRE:
        raise _refused("role", f"{wire.role} is not a role")
    return Registration(
        spec=InstanceSpec(
            instance_id=wire.instance_id,
            model=wire.model,
            role=ROLE_FROM_WIRE.get(wire.role, InstanceRole.GENERAL),
            engine_start_id=wire.engine_start_id,
            price_per_hour=wire.price_per_hour,
            location=Location(host=wire.location.host, rack=wire.location.rack, zone=wire.location.zone),
            labels=dict(wire.labels),
            software_version=wire.software_version,
            address=wire.address,
            device_group=_device_group(wire.device_group) if wire.HasField("device_group") else None,
        ),
        resume_secret=wire.resume_secret,
        held=tuple(
            HeldAttempt(
                epoch=h.attempt.epoch,
                number=h.attempt.number,
                tokens=h.tokens,
                ended=h.ended,
                adoption_proof=h.adoption_proof,
            )
            for h in wire.held
        ),
        run_time_adapters=RUN_TIME_ADAPTERS in wire.capabilities,
        keeps_role=AUTOMATIC_ROLES in wire.capabilities,
        kept_role=kept_role(wire.automatic_role, wire.instance_id) if wire.HasField("automatic_role") else None,
    )


def _device_group(wire: executor_pb2.DeviceGroup) -> DeviceGroup:
    if not INSTANCE_ID.fullmatch(wire.name):
        raise _refused("device_group.name", f"{wire.name[:128]!r}: letters, digits and . _ : -, at most 128")
    if not 1 <= wire.places <= PLACES_LIMIT:
        raise _refused("device_group.places", f"{wire.places} is not between 1 and {PLACES_LIMIT}")
    return DeviceGroup(name=wire.name, places=wire.places)


def agreed_version(wire: executor_pb2.Register) -> int:
    """Return the protocol version of the session: the older one of both sides."""
    return min(wire.protocol_version, PROTOCOL_VERSION)


def facts(wire: executor_pb2.EngineFacts) -> EngineFacts:
    """Convert and check the facts of an engine.  Raises WireError if a size is not positive, or a text too long."""
    for name in ("vocab_size", "max_model_len", "kv_capacity_tokens", "max_running", "max_batched_tokens"):
        if getattr(wire, name) <= 0:
            raise _refused(f"facts.{name}", "must be positive")
    if wire.embedding_dimensions > DIMENSIONS_LIMIT:
        raise _refused("facts.embedding_dimensions", f"is {wire.embedding_dimensions}; at most {DIMENSIONS_LIMIT}")
    for name in _FACT_TEXTS:
        _bounded(f"facts.{name}", getattr(wire, name))
    for name in ("adapters", "structured_output_kinds"):
        _few(f"facts.{name}", getattr(wire, name), ADAPTERS_LIMIT)
        for each in getattr(wire, name):
            _bounded(f"facts.{name}", each)
    _few("facts.adapter_weights", wire.adapter_weights, ADAPTERS_LIMIT)
    for name, fingerprint in wire.adapter_weights.items():
        _bounded("facts.adapter_weights", name)
        _bounded("facts.adapter_weights", fingerprint)
    for name in ("config_json", "generation_config_json"):
        _bounded(f"facts.{name}", getattr(wire, name), MODEL_CONFIG_LIMIT_BYTES)
    return EngineFacts(
        engine=wire.engine,
        engine_version=wire.engine_version,
        revision=wire.revision,
        weights=wire.weights,
        dtype=wire.dtype,
        vocab_size=wire.vocab_size,
        max_model_len=wire.max_model_len,
        kv_capacity_tokens=wire.kv_capacity_tokens,
        kv_block_size=max(1, wire.kv_block_size),
        max_running=wire.max_running,
        max_batched_tokens=wire.max_batched_tokens,
        parallelism=_parallelism(wire.parallelism_config),
        gpu_name=wire.gpu_name,
        gpu_memory_bytes=wire.gpu_memory_bytes,
        adapters=frozenset(wire.adapters),
        adapter_weights=dict(wire.adapter_weights),
        adapter_slots=min(wire.adapter_slots, ADAPTERS_LIMIT),
        can_sleep=wire.can_sleep,
        supports_priority=wire.supports_priority,
        structured_output_kinds=frozenset(wire.structured_output_kinds),
        kv_connector=wire.kv_connector,
        compatibility_key=wire.compatibility_key,
        tokenizer_hash=wire.tokenizer_hash,
        prefix_caching=wire.prefix_caching,
        keeps_output_history=wire.keeps_output_history,
        config_json=wire.config_json,
        generation_config_json=wire.generation_config_json,
        embedding_dimensions=wire.embedding_dimensions,
        classifies=wire.classifies,
        processor_files=_processor_files(wire),
        media=_media(wire),
    )


def _processor_files(wire: executor_pb2.EngineFacts) -> dict[str, str]:
    """Return the files that front ends process images and audio with; others are left out."""
    found = {name: wire.processor_files[name] for name in PROCESSOR_FILES if name in wire.processor_files}
    for name, content in found.items():
        _bounded(f"facts.processor_files[{name!r}]", content, MODEL_CONFIG_LIMIT_BYTES)
    return found


def _media(wire: executor_pb2.EngineFacts) -> tuple[MediaInput, ...]:
    try:
        return media_inputs.from_wire(wire)
    except ValueError as error:
        raise _refused(*error.args) from None


def progress(wire: executor_pb2.EngineStatus) -> float | None:
    """Return how far the start of an engine is, in [0, 1]; None if it does not say, or says something else."""
    return wire.progress if wire.HasField("progress") and 0 <= wire.progress <= 1 else None


def load_report(wire: executor_pb2.Heartbeat) -> LoadReport:
    """Convert a heartbeat; at most SAMPLES_LIMIT of its iterations are kept.

    Figures that no engine can have are left out: the scheduler learns from the others, and would never forget one that
    is infinite.
    """
    return LoadReport(
        number=wire.number,
        last_assign=wire.last_assign,
        running=wire.running,
        waiting=wire.waiting,
        unfinished=wire.unfinished,
        kv_used_tokens=min(wire.kv_used_tokens, MOST_TOKENS),
        iterations=wire.iterations,
        prefix_queries_tokens=wire.prefix_queries_tokens,
        prefix_hits_tokens=wire.prefix_hits_tokens,
        prompt_tokens_per_s=_rate(wire.prompt_tokens_per_s),
        generation_tokens_per_s=_rate(wire.generation_tokens_per_s),
        gpu_memory_used_bytes=wire.gpu_memory_used_bytes,
        known_wait=reported(wire.known_wait),
        kv_pulls=wire.kv_pulls,
        kv_pulls_failed=wire.kv_pulls_failed,
        kv_leases_expired=wire.kv_leases_expired,
        samples=tuple(
            IterationSample(
                prefill_tokens=i.prefill_tokens,
                decode_tokens=i.decode_tokens,
                running=i.running,
                kv_used_tokens=i.kv_used_tokens,
                elapsed_s=i.elapsed_s,
            )
            for i in wire.recent_iterations[:SAMPLES_LIMIT]
            if 0 < i.elapsed_s <= LONGEST_ITERATION_S and i.kv_used_tokens <= MOST_TOKENS
        ),
    )


def cache_report(wire: executor_pb2.PrefixCacheReport) -> CacheReport:
    """Convert what an engine says of its prefix cache.  Raises WireError for too many hashes, or no block size."""
    count = len(wire.removed) + len(wire.stored)
    if count > HASHES_LIMIT:
        raise _refused("prefix_cache_report", f"{count} hashes; at most {HASHES_LIMIT}")
    if wire.block_tokens <= 0:
        raise _refused("prefix_cache_report.block_tokens", "must be positive")
    return CacheReport(
        block_tokens=wire.block_tokens, cleared=wire.reset, removed=tuple(wire.removed), stored=tuple(wire.stored)
    )


def _rate(per_s: float) -> float:
    """Return a rate, or 0 for one that no engine can have (every comparison with NaN is false)."""
    return per_s if 0 <= per_s <= MOST_TOKENS else 0.0


def attempt_end(wire: executor_pb2.AssignmentEnded, number: int) -> AttemptEnd:
    """Convert the end of the attempt that has ``number`` here.

    A cause that this scheduler does not know counts as FAILED.
    """
    return AttemptEnd(
        attempt_number=number,
        cause=CAUSE_FROM_WIRE.get(wire.cause, EndCause.FAILED),
        finish_reason=FINISH_REASON_FROM_WIRE.get(wire.finish_reason, ""),
        stop_string=wire.stop_string,
        stop_token_id=wire.stop_token_id if wire.HasField("stop_token_id") else None,
        total_tokens=wire.total_tokens,
        trailing_text=wire.trailing_text,
        cached_prompt_tokens=wire.cached_prompt_tokens,
        field=_caller_path(reported(wire.field)),
        message=reported(wire.message),
        engine_time_s=durations.from_wire(wire.engine_time),
        kv_transfer_params=wire.kv_transfer_params,
        kv_lease_s=durations.from_wire(wire.kv_lease),
        kv_unclaimed=wire.kv_unclaimed,
        kv_recomputed=wire.kv_recomputed,
        engine_died=wire.engine_died,
        embedding=wire.embedding,
    )


def rejection(reason: executor_pb2.AssignmentRejected.Reason.ValueType) -> str:
    """Return a rejection's reason in lower case, or ``reason N`` for one that only a newer executor knows."""
    known = executor_pb2.AssignmentRejected.Reason
    return known.Name(reason).removeprefix("REASON_").lower() if reason in known.values() else f"reason {reason}"


def _caller_path(field: str) -> str:
    """Return the caller's path for a field of Assign: the same field below ``spec``."""
    if not field:
        return "spec"
    return field if field.startswith("spec.") else f"spec.{field}"


def _parallelism(wire: common_pb2.ParallelismConfig) -> Parallelism:
    return Parallelism(
        tensor_parallel_size=max(1, wire.tensor_parallel_size),
        pipeline_parallel_size=max(1, wire.pipeline_parallel_size),
        data_parallel_size=max(1, wire.data_parallel_size),
        gpu_count=wire.gpu_count,
    )


def _bounded(field: str, text: str, limit: int = TEXT_BYTES) -> None:
    if size_of(text) > limit:
        raise _refused(field, f"is longer than {limit} bytes")


def _few(field: str, found: Sized, limit: int) -> None:
    if len(found) > limit:
        raise _refused(field, f"has {len(found)} entries; the limit is {limit}")


def _refused(field: str, why: str) -> WireError:
    return WireError(ErrorReason.INVALID_REGISTRATION, f"registration refused: {field}: {why}")
