"""Converts the messages of the control stream to and from the wire; ``assign`` converts Assign."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from executor_svc.runtime.engine_port import EngineFacts, Iteration
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.commands import (
    Cancel,
    Command,
    Drain,
    FetchAssign,
    HeartbeatAck,
    KeepRole,
    ReleaseKv,
    Resume,
    SleepWanted,
    TokenizerWanted,
)
from executor_svc.runtime.messages.registration import (
    AutomaticRole,
    DeviceGroup,
    HeldAttempt,
    Register,
    Role,
    Welcome,
)
from executor_svc.runtime.messages.reports import (
    AdapterStates,
    ControlUp,
    Drained,
    DrainRequested,
    EngineStatus,
    Goodbye,
    Heartbeat,
    HeldAssign,
    KvReleased,
    PrefixCacheReport,
    SleepReport,
    TokenizerChunk,
)
from executor_svc.transport.adapters import adapter_states, adapters_wanted
from executor_svc.transport.assign import assign_command, kv_transfer_params
from executor_svc.transport.enums import ROLE_FROM_WIRE, ROLE_TO_WIRE, STATE_TO_WIRE
from executor_svc.transport.sleep import sleep_report
from sage.controlplane.v1 import common_pb2, executor_pb2, inference_pb2
from sage_media.kinds import MediaInput, MediaKind, input_of
from sage_wire import durations
from sage_wire.protocol import (
    ADOPTION,
    ASSIGN_BATCHES,
    AUTOMATIC_ROLES,
    MODEL_CONFIG_LIMIT_BYTES,
    PROTOCOL_VERSION,
    RUN_TIME_ADAPTERS,
    STEP_FRAMES,
)

log = logging.getLogger(__name__)


def attempt_from_wire(wire: common_pb2.Attempt) -> AttemptId:
    """Return the id of an attempt."""
    return AttemptId(wire.epoch, wire.number)


# --- upwards --------------------------------------------------------------------------------------------------------


def register_request(register: Register) -> executor_pb2.ControlRequest:
    """Make the first message of the control stream."""
    identity = register.identity
    return executor_pb2.ControlRequest(
        register=executor_pb2.Register(
            protocol_version=PROTOCOL_VERSION,
            capabilities=[STEP_FRAMES, ADOPTION, ASSIGN_BATCHES, RUN_TIME_ADAPTERS, AUTOMATIC_ROLES],
            instance_id=identity.instance_id,
            engine_start_id=identity.engine_start_id,
            role=ROLE_TO_WIRE[identity.role],
            model=identity.model,
            location=common_pb2.Location(host=identity.host, rack=identity.rack, zone=identity.zone),
            labels=dict(identity.labels),
            price_per_hour=identity.price_per_hour,
            software_version=identity.software_version,
            held=[_held(held) for held in register.held],
            address=identity.address,
            resume_secret=register.resume_secret,
            device_group=_device_group(identity.device_group),
            automatic_role=_automatic_role(register.automatic_role),
        )
    )


def _device_group(group: DeviceGroup | None) -> executor_pb2.DeviceGroup | None:
    return executor_pb2.DeviceGroup(name=group.name, places=group.places) if group is not None else None


def _automatic_role(role: AutomaticRole | None) -> executor_pb2.AutomaticRole | None:
    if role is None:
        return None
    return executor_pb2.AutomaticRole(
        role=ROLE_TO_WIRE[role.role],
        previous=ROLE_TO_WIRE[role.previous],
        cause=role.cause,
        reason=role.reason,
        age=durations.to_wire(role.age_s),
    )


def _held(held: HeldAttempt) -> executor_pb2.HeldAttempt:
    attempt = common_pb2.Attempt(epoch=held.attempt.epoch, number=held.attempt.number)
    return executor_pb2.HeldAttempt(
        attempt=attempt,
        tokens=held.tokens,
        ended=held.ended,
        adoption_proof=held.adoption_proof,
    )


def _held_assign(held: HeldAssign) -> executor_pb2.HeldAssign:
    source = held.assign.source if held.assign is not None else None
    first_token_for = durations.to_wire(held.first_token_for_s) if held.first_token_for_s is not None else None
    return executor_pb2.HeldAssign(
        attempt=common_pb2.Attempt(epoch=held.attempt.epoch, number=held.attempt.number),
        assign=source if isinstance(source, executor_pb2.Assign) else None,
        held_for=durations.to_wire(held.held_for_s),
        tokens=held.tokens,
        ended=held.ended,
        first_token_for=first_token_for,
    )


def control_request(message: ControlUp) -> executor_pb2.ControlRequest:
    """Make a message of the control stream."""
    match message:
        case EngineStatus():
            return executor_pb2.ControlRequest(engine_status=_status(message))
        case Heartbeat():
            return executor_pb2.ControlRequest(heartbeat=_heartbeat(message))
        case TokenizerChunk():
            chunk = executor_pb2.TokenizerChunk(
                tokenizer_hash=message.tokenizer_hash, data=message.data, last=message.last
            )
            return executor_pb2.ControlRequest(tokenizer_chunk=chunk)
        case PrefixCacheReport():
            return executor_pb2.ControlRequest(prefix_cache_report=_cache_report(message))
        case AdapterStates():
            return executor_pb2.ControlRequest(adapter_states=adapter_states(message))
        case SleepReport():
            return executor_pb2.ControlRequest(sleep_report=sleep_report(message))
        case KvReleased():
            answer = executor_pb2.KvReleased(number=message.number, released=message.released, message=message.message)
            return executor_pb2.ControlRequest(kv_released=answer)
        case HeldAssign():
            return executor_pb2.ControlRequest(held_assign=_held_assign(message))
        case DrainRequested():
            return executor_pb2.ControlRequest(drain_requested=executor_pb2.DrainRequested(reason=message.reason))
        case Drained():
            return executor_pb2.ControlRequest(drained=executor_pb2.Drained())
        case Goodbye():
            return executor_pb2.ControlRequest(goodbye=executor_pb2.Goodbye(reason=message.reason))


def _status(status: EngineStatus) -> executor_pb2.EngineStatus:
    return executor_pb2.EngineStatus(
        state=STATE_TO_WIRE[status.state],
        progress=status.progress,
        message=status.message,
        facts=None if status.facts is None else _facts(status.facts, status.tokenizer_hash),
    )


def _facts(facts: EngineFacts, tokenizer_hash: str) -> executor_pb2.EngineFacts:
    return executor_pb2.EngineFacts(
        engine=facts.engine,
        engine_version=facts.engine_version,
        model=facts.model,
        revision=facts.revision or "",
        weights=facts.weights,
        adapter_weights=facts.adapter_weights,
        adapter_slots=facts.adapter_slots,
        can_sleep=facts.can_sleep,
        embedding_dimensions=facts.embedding_dimensions,
        classifies=facts.classifies,
        dtype=facts.dtype,
        vocab_size=facts.vocab_size,
        max_model_len=facts.max_model_len,
        kv_capacity_tokens=facts.kv_capacity_tokens,
        kv_block_size=facts.kv_block_size,
        max_running=facts.max_running,
        max_batched_tokens=facts.max_batched_tokens,
        parallelism_config=common_pb2.ParallelismConfig(
            tensor_parallel_size=facts.tensor_parallel_size,
            pipeline_parallel_size=facts.pipeline_parallel_size,
            data_parallel_size=facts.data_parallel_size,
            gpu_count=facts.gpu_count,
        ),
        gpu_name=facts.gpu_name or "",
        gpu_memory_bytes=facts.gpu_memory_bytes or 0,
        adapters=facts.adapters,
        supports_priority=facts.supports_priority,
        structured_output_kinds=sorted(kind.value for kind in facts.structured_output_kinds),
        kv_connector=facts.kv_connector or "",
        compatibility_key=facts.compatibility_key,
        tokenizer_hash=tokenizer_hash,
        prefix_caching=facts.prefix_caching,
        keeps_output_history=facts.keeps_output_history,
        config_json=_bounded(facts.config_json, "config.json"),
        generation_config_json=_bounded(facts.generation_config_json, "generation_config.json"),
        processor_files=_sent_files(facts.processor_files),
        image_input=_image_input(facts.media),
        audio_input=_audio_input(facts.media),
        measured_iterations=map(_iteration, facts.measured),
    )


def _sent_files(files: Mapping[str, str]) -> dict[str, str]:
    found = {name: _bounded(content, name) for name, content in files.items()}
    return {name: content for name, content in found.items() if content}


def _image_input(inputs: Sequence[MediaInput]) -> executor_pb2.ImageInput | None:
    takes = input_of(inputs, MediaKind.IMAGE)
    if takes is None:
        return None
    return executor_pb2.ImageInput(
        placeholder_token_id=takes.placeholder_token_id, most_tokens=takes.most_tokens, most_images=takes.most
    )


def _audio_input(inputs: Sequence[MediaInput]) -> inference_pb2.AudioInput | None:
    takes = input_of(inputs, MediaKind.AUDIO)
    if takes is None:
        return None
    return inference_pb2.AudioInput(
        placeholder_token_id=takes.placeholder_token_id,
        most_tokens=takes.most_tokens,
        most_clips=takes.most,
        most_seconds=takes.most_seconds,
        rate_hz=takes.rate_hz,
    )


def _bounded(content: str, file: str) -> str:
    """Return the content of a file of the model; nothing, with a warning, if it is too large to be sent."""
    size = len(content.encode())
    if size <= MODEL_CONFIG_LIMIT_BYTES:
        return content
    log.warning(
        "%s of the model has %d bytes, which is more than %d: it is not sent, so HTTP gateways cannot serve the model",
        file,
        size,
        MODEL_CONFIG_LIMIT_BYTES,
    )
    return ""


def _cache_report(report: PrefixCacheReport) -> executor_pb2.PrefixCacheReport:
    return executor_pb2.PrefixCacheReport(
        number=report.number,
        block_tokens=report.block_tokens,
        reset=report.reset,
        removed=report.removed,
        stored=report.stored,
    )


def _heartbeat(heartbeat: Heartbeat) -> executor_pb2.Heartbeat:
    wire = executor_pb2.Heartbeat(
        number=heartbeat.number,
        last_assign=heartbeat.last_assign,
        prompt_tokens_per_s=heartbeat.prompt_tokens_per_s,
        generation_tokens_per_s=heartbeat.generation_tokens_per_s,
        event_loop_lag=durations.to_wire(heartbeat.event_loop_lag_s),
    )
    load = heartbeat.load
    if load is not None:
        wire.running = load.running
        wire.waiting = load.waiting
        wire.unfinished = load.unfinished
        wire.kv_used_tokens = load.kv_used_tokens
        wire.prefix_queries_tokens = load.prefix_queries_tokens
        wire.prefix_hits_tokens = load.prefix_hits_tokens
        wire.prompt_tokens_total = load.prompt_tokens_total
        wire.generation_tokens_total = load.generation_tokens_total
        wire.iterations = load.iterations
        wire.known_wait = load.known_wait or ""
        wire.gpu_memory_used_bytes = load.gpu_memory_used_bytes or 0
        wire.kv_pulls = load.kv_pulls
        wire.kv_pulls_failed = load.kv_pulls_failed
        wire.kv_leases_expired = load.kv_leases_expired
    wire.recent_iterations.extend(map(_iteration, heartbeat.iterations))
    return wire


def _iteration(iteration: Iteration) -> executor_pb2.Iteration:
    return executor_pb2.Iteration(
        index=iteration.index,
        prefill_tokens=iteration.prefill_tokens,
        decode_tokens=iteration.decode_tokens,
        running=iteration.running,
        kv_used_tokens=iteration.kv_used_tokens,
        elapsed_s=iteration.elapsed_s,
    )


# --- downwards ------------------------------------------------------------------------------------------------------


def welcome_from_wire(wire: executor_pb2.Welcome) -> Welcome:
    """Return Welcome.  Raises ValueError if the lease or the heartbeat interval is not above zero."""
    if durations.from_wire(wire.lease) <= 0 or durations.from_wire(wire.heartbeat_interval) <= 0:
        raise ValueError("Welcome has no lease or no heartbeat interval")
    return Welcome(
        session_id=wire.session_id,
        epoch=wire.epoch,
        lease_s=durations.from_wire(wire.lease),
        heartbeat_interval_s=durations.from_wire(wire.heartbeat_interval),
        keep=frozenset(attempt_from_wire(attempt) for attempt in wire.keep),
        role=ROLE_FROM_WIRE.get(wire.role, Role.GENERAL),  # default: a role of a later version
        resume_secret=wire.resume_secret,
        adopt_s=durations.from_wire(wire.adopt) if wire.HasField("adopt") else None,
        leader_lease_s=durations.from_wire(wire.leader_lease) or None if wire.HasField("leader_lease") else None,
    )


def commands_from_wire(wire: executor_pb2.ControlResponse) -> Iterator[Command | None]:
    """Yield a message's commands; None for one that this version does not know, and for a second Welcome."""
    if wire.HasField("assigns"):
        for assign in wire.assigns.assigns:
            own = executor_pb2.Assign()
            own.CopyFrom(assign)  # a part of a message keeps all of it in memory, and an attempt keeps its Assign
            yield assign_command(own)
    else:
        yield _command(wire)


def _command(wire: executor_pb2.ControlResponse) -> Command | None:
    """Return a command; None for a message that this version does not know, and for a second Welcome."""
    match wire.WhichOneof("message"):
        case "assign":
            return assign_command(wire.assign)
        case "cancel":
            return Cancel(attempt=attempt_from_wire(wire.cancel.attempt), reason=wire.cancel.reason)
        case "drain":
            return Drain(resume=wire.drain.resume)
        case "heartbeat_ack":
            return HeartbeatAck(number=wire.heartbeat_ack.number)
        case "tokenizer_wanted":
            return TokenizerWanted(tokenizer_hash=wire.tokenizer_wanted.tokenizer_hash)
        case "resume":
            return Resume(attempt=attempt_from_wire(wire.resume.attempt), from_index=wire.resume.from_index)
        case "release_kv":
            release = wire.release_kv
            return ReleaseKv(number=release.number, kv_transfer_params=kv_transfer_params(release.kv_transfer_params))
        case "adapters_wanted":
            return adapters_wanted(wire.adapters_wanted)
        case "sleep_wanted":
            return SleepWanted(number=wire.sleep_wanted.number, asleep=wire.sleep_wanted.asleep)
        case "automatic_role":
            return KeepRole(role=_kept_role(wire.automatic_role))
        case "fetch_assign":
            return FetchAssign(attempt=attempt_from_wire(wire.fetch_assign.attempt))
        case _:
            return None


def _kept_role(wire: executor_pb2.AutomaticRole) -> AutomaticRole | None:
    """Return a role to keep; None for none, and for a role that this version does not know."""
    known = [each in ROLE_FROM_WIRE for each in (wire.role, wire.previous)]
    if wire.role == common_pb2.INSTANCE_ROLE_UNSPECIFIED or not all(known):
        return None
    return AutomaticRole(
        role=ROLE_FROM_WIRE[wire.role],
        previous=ROLE_FROM_WIRE[wire.previous],
        cause=wire.cause,
        reason=wire.reason,
        age_s=durations.from_wire(wire.age),
    )
