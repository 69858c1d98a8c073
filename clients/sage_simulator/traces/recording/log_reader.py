"""Reads the file that ``sage-scheduler --record FILE`` writes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sage_simulator.traces.json_record import JsonRecord
from sage_simulator.traces.recording.recorded_lines import RecordedInstance, RecordedLoad, RecordedLog, RecordedRequest
from sage_simulator.traces.request_fields import block_hashes, check_format, optional_number, optional_text, priority
from sage_simulator.traces.source_lines import SourceLine, source_lines
from sage_simulator.traces.trace_error import TraceError
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.load_report import IterationSample

FORMAT = "sage_log"
VERSION = 1


def is_log(path: Path) -> bool:
    """Whether the file begins as a recording does.  Raises OSError."""
    for line in source_lines(path):
        text = line.text.lstrip()
        try:
            return text.startswith("{") and JsonRecord.of(line).fields.get("format") == FORMAT
        except TraceError:
            return False
    return False


def read_log(path: Path) -> RecordedLog:
    """Read a recording.

    Its files may be put one after the other, oldest first.  Fields and kinds of lines that this release does not know
    are passed over.  Raises TraceError, which names file, line and field, and OSError.
    """
    requests: list[RecordedRequest] = []
    instances: list[RecordedInstance] = []
    loads: list[RecordedLoad] = []
    began: str | None = None
    for line in source_lines(path):
        if began is None and not _has_format(line):
            raise line.error(
                f'no recording of `sage-scheduler --record`: that begins with {{"format": "{FORMAT}", ...}}'
            )
        record = JsonRecord.of(line)
        if began is None or record.has("format"):
            began = _check_header(record, began)
            continue
        match record.fields.get("kind"):
            case "request":
                requests.append(_request(record))
            case "instance":
                instances.append(_instance(record))
            case "load":
                loads.append(_load(record))
    if began is None:
        raise TraceError(path, "the file is empty")
    return RecordedLog(requests=tuple(requests), instances=tuple(instances), loads=tuple(loads))


def _has_format(line: SourceLine) -> bool:
    """Whether a line is a JSON object that states a format."""
    try:
        return JsonRecord.of(line).has("format")
    except TraceError:
        return False


def _check_header(record: JsonRecord, began: str | None) -> str:
    check_format(record, FORMAT, VERSION)
    here = record.text("began")
    if began is not None and here != began:
        raise record.error("began", "another recording begins here; its times do not go on from those before")
    return here


def _request(record: JsonRecord) -> RecordedRequest:
    prompt_tokens = record.tokens("prompt_tokens")
    block_tokens = record.tokens("block_tokens") if record.has("block_tokens") else 1
    return RecordedRequest(
        arrival_s=record.number("arrival_s"),
        model=record.text("model"),
        prompt_tokens=prompt_tokens,
        output_tokens=_count(record, "output_tokens"),
        max_tokens=record.tokens("max_tokens"),
        priority=priority(record),
        ttft_target_s=optional_number(record, "ttft_target_s"),
        tpot_target_s=optional_number(record, "tpot_target_s"),
        deadline_s=optional_number(record, "deadline_s"),
        tenant=optional_text(record, "tenant"),
        session=optional_text(record, "session"),
        block_hashes=block_hashes(record, block_tokens, prompt_tokens),
        block_tokens=block_tokens,
        end=record.text("end"),
        policy=optional_text(record, "policy"),
        instance=optional_text(record, "instance"),
        prefill_instance=optional_text(record, "prefill_instance"),
        attempts=_count(record, "attempts"),
        decided_s=optional_number(record, "decided_s"),
        first_token_s=optional_number(record, "first_token_s"),
        last_token_s=optional_number(record, "last_token_s"),
        ended_s=record.number("ended_s"),
        expected_wait_s=optional_number(record, "expected_wait_s"),
        predicted_first_token_s=optional_number(record, "predicted_first_token_s"),
    )


def _instance(record: JsonRecord) -> RecordedInstance:
    return RecordedInstance(
        at_s=record.number("at_s"),
        instance=record.text("instance"),
        model=record.text("model"),
        state=record.text("state"),
        role=_role(record),
        price_per_hour=record.number("price_per_hour"),
        engine_start=optional_text(record, "engine_start"),
        max_model_len=_count(record, "max_model_len"),
        kv_capacity_tokens=_count(record, "kv_capacity_tokens"),
        kv_block_size=_count(record, "kv_block_size"),
        max_running=_count(record, "max_running"),
        max_batched_tokens=_count(record, "max_batched_tokens"),
        gpu_count=_count(record, "gpu_count"),
        gpu_name=optional_text(record, "gpu_name"),
    )


def _role(record: JsonRecord) -> str:
    role, roles = record.text("role"), [each.value for each in InstanceRole]
    if role not in roles:
        raise record.error("role", f"expected one of {', '.join(roles)}, got {role!r:.80}")
    return role


def _load(record: JsonRecord) -> RecordedLoad:
    samples = record.fields.get("samples", [])
    if not isinstance(samples, list):
        raise record.error("samples", "expected a list")
    return RecordedLoad(
        at_s=record.number("at_s"),
        instance=record.text("instance"),
        heartbeats=_count(record, "heartbeats"),
        shortest_gap_s=optional_number(record, "shortest_gap_s"),
        longest_gap_s=optional_number(record, "longest_gap_s"),
        prefix_queries_tokens=_count(record, "prefix_queries_tokens"),
        prefix_hits_tokens=_count(record, "prefix_hits_tokens"),
        samples=tuple(_sample(record, each) for each in samples),
    )


def _sample(record: JsonRecord, figures: Any) -> IterationSample:
    if not (isinstance(figures, list) and len(figures) == 5 and all(type(each) in (int, float) for each in figures)):
        raise record.error("samples", f"expected five numbers, got {figures!r:.80}")
    prefill, decode, running, kv_used, elapsed_s = figures
    if not all(math.isfinite(each) and each >= 0 for each in figures):
        raise record.error("samples", f"expected finite numbers that are not negative, got {figures!r:.80}")
    return IterationSample(
        prefill_tokens=int(prefill),
        decode_tokens=int(decode),
        running=int(running),
        kv_used_tokens=int(kv_used),
        elapsed_s=float(elapsed_s),
    )


def _count(record: JsonRecord, field: str) -> int:
    value = record.fields.get(field, 0)
    if type(value) is not int or value < 0:
        raise record.error(field, f"expected an integer that is not negative, got {value!r:.80}")
    return value
