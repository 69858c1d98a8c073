"""Field by field: what control says arrives on the wire, what executors say arrives in control.

Each test fills every field with its own value, so that one that is added and forgotten, or crossed with another, fails.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from sage.controlplane.v1 import admin_pb2, common_pb2, decision_pb2, executor_pb2, inference_pb2
from sage_media.kinds import MediaInput, MediaKind
from sage_wire import durations
from sage_wire.errors import ErrorReason
from sage_wire.protocol import AUTOMATIC_ROLES, MODEL_CONFIG_LIMIT_BYTES, OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION
from scheduler_svc.control.attempts.executor_link import AssignOrder, Continuation, KvHandoff
from scheduler_svc.control.attempts.held_attempt import HeldAttempt
from scheduler_svc.control.requests.live_request import LiveRequest, Placement
from scheduler_svc.control.requests.outcome import Finished, SloOutcome
from scheduler_svc.control.requests.output_log import TokenSlice
from scheduler_svc.control.requests.prompt_facts import PromptFacts
from scheduler_svc.control.roles.kept_role import KeptRole
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.continuation import ContinuationMode
from scheduler_svc.domain.decision import Candidate, Decision, Phase, Prediction, PrefillLeg
from scheduler_svc.domain.engine_facts import EngineFacts, Parallelism
from scheduler_svc.domain.errors import InvalidRequest
from scheduler_svc.domain.instance_spec import DeviceGroup, InstanceRole, InstanceSpec, Location
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.load_report import IterationSample, LoadReport
from scheduler_svc.domain.media import Media
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.prefixes.cache_report import CacheReport
from scheduler_svc.domain.request import Embedding, Request, RequestKey, Sampling, StructuredOutput
from scheduler_svc.domain.roles.role_change import Cause, RoleChange
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.transport import automatic_roles, embeddings, events, registrations
from scheduler_svc.transport.assign import assign_message
from scheduler_svc.transport.clipping import REASON_BYTES, REPORT_BYTES, reported, stated_reason
from scheduler_svc.transport.errors import WireError
from scheduler_svc.transport.instances import InstanceViews, instance_view
from tests.unit.transport.completeness import at_default, unset

EPOCH = 7
ONE_CHOICE = common_pb2.StructuredOutput.Choices(choices=["a"])

SAMPLING = Sampling(
    temperature=0.5,
    top_p=0.9,
    top_k=5,
    min_p=0.1,
    presence_penalty=0.2,
    frequency_penalty=0.3,
    repetition_penalty=1.1,
    seed=-7,
    stop=("x", "y"),
    stop_token_ids=(2,),
    include_stop_in_output=True,
    min_tokens=1,
    max_tokens=9,
    logprobs=3,
    prompt_logprobs=4,
    ignore_eos=True,
    logit_bias={3: -1.5},
    allowed_token_ids=(6, 7),
    bad_words=("z",),
    structured_output=StructuredOutput(kind="regex", value="a+", reasoning_ended=True, reasoning_arguments="{}"),
    skip_special_tokens=False,
    cache_salt="salt",
    engine_options={"mine": "1"},
)

REQUEST = Request(
    key=RequestKey(tenant="t", request_id="r"),
    model="m",
    prompt_token_ids=[1, 2, 3],
    sampling=SAMPLING,
    arrived_at=100.0,
    adapter="lora",
    trace_headers={"traceparent": "caller's"},
)

DECISION = Decision(
    key=REQUEST.key,
    attempt_number=12,
    policy="fifo",
    instance_id="d",
    phase=Phase.DECODING,
    phase_reason="long prompt",
    engine_priority=3,
    prediction=Prediction(start_s=0.25, first_token_s=0.5, finish_s=4.0, output_tokens=8, cost=0.125),
    reserved_tokens=48,
    decided_at=101.0,
    waited_s=1.5,
    queue_length=6,
    rule="soonest",
    reasons=("earliest predicted finish", "second"),
    candidates=[
        Candidate(instance_id="d", chosen=True, scores={"start_s": 0.25}, cached_tokens=64),
        Candidate(instance_id="e", filtered_by="room", filter_reason="full"),
    ],
    candidates_considered=2,
    prefill=PrefillLeg(instance_id="p", attempt_number=11, reserved_tokens=32, cached_tokens=128),
    cached_tokens=64,
)

FACTS = EngineFacts(
    engine="vllm",
    engine_version="0.32",
    revision="abc",
    dtype="float32",
    vocab_size=4096,
    max_model_len=2048,
    kv_capacity_tokens=65536,
    kv_block_size=32,
    max_running=64,
    max_batched_tokens=1024,
    parallelism=Parallelism(tensor_parallel_size=2, pipeline_parallel_size=3, data_parallel_size=4, gpu_count=24),
    gpu_name="H200",
    gpu_memory_bytes=141,
    adapters=frozenset({"lora"}),
    adapter_slots=6,
    can_sleep=True,
    supports_priority=True,
    structured_output_kinds=frozenset({"regex"}),
    kv_connector="nixl",
    compatibility_key="key",
    tokenizer_hash="hash",
    prefix_caching=True,
    keeps_output_history=True,
    weights="w1",
    adapter_weights={"lora": "l1"},
    config_json="{}",
    generation_config_json="[]",
    embedding_dimensions=256,
    classifies=True,
    media=(
        MediaInput(kind=MediaKind.IMAGE, placeholder_token_id=9, most_tokens=19, most=4),
        MediaInput(
            kind=MediaKind.AUDIO, placeholder_token_id=8, most_tokens=750, most=3, most_seconds=30.0, rate_hz=16_000
        ),
    ),
    processor_files={"processor_config.json": "{}"},
)

SPEC = InstanceSpec(
    instance_id="d",
    model="m",
    role=InstanceRole.DECODING,
    engine_start_id="start",
    price_per_hour=2.5,
    location=Location(host="h", rack="r", zone="z"),
    labels={"a": "b"},
    software_version="1.2",
    address="h:1",
    device_group=DeviceGroup(name="gpu-0", places=2),
)

LOAD = LoadReport(
    number=5,
    last_assign=4,
    running=3,
    waiting=2,
    unfinished=6,
    kv_used_tokens=1000,
    iterations=77,
    prefix_queries_tokens=10,
    prefix_hits_tokens=8,
    prompt_tokens_per_s=1.5,
    generation_tokens_per_s=2.5,
    gpu_memory_used_bytes=99,
    known_wait="compiles a grammar",
    kv_pulls=21,
    kv_pulls_failed=22,
    kv_leases_expired=23,
    samples=(IterationSample(prefill_tokens=11, decode_tokens=12, running=13, kv_used_tokens=14, elapsed_s=0.5),),
)


def the_instance() -> Scheduler:
    scheduler = Scheduler(SchedulerSettings(), PolicyCatalogue())
    instance = scheduler.register(SPEC, 90.0)
    instance.facts = FACTS
    return scheduler


# --- to executors ---------------------------------------------------------------------------------


def the_order() -> AssignOrder:
    return AssignOrder(
        number=41,
        epoch=EPOCH,
        attempt_number=12,
        phase=Phase.DECODING,
        request=REQUEST,
        sampling=SAMPLING,
        engine_priority=3,
        remaining_s=9.5,
        reasons=("because",),
        trace_headers={"traceparent": "ours", "tracestate": "state"},
        continuation=Continuation(
            emitted_token_ids=[8, 9], emitted_text_length=4, mode=ContinuationMode.REPLAY, best_effort=True
        ),
        handoff=KvHandoff(params=b"{}", lease_s=3.5),
    )


def test_an_assign_says_everything() -> None:
    order = the_order()
    wire = assign_message(order)
    media = {"images", "audio", "image_tokens"}  # not with a handoff
    assert unset(wire) == {"direct_delivery_ticket", "record", "adoption_proof", "embedding"} | media
    assert wire.number == 41
    assert (wire.attempt.epoch, wire.attempt.number) == (EPOCH, 12)
    assert (wire.request_id, wire.phase, list(wire.prompt_token_ids)) == ("r", common_pb2.PHASE_DECODING, [1, 2, 3])
    assert wire.engine_priority == 3
    assert durations.from_wire(wire.remaining) == 9.5
    assert (wire.trace_context.traceparent, wire.trace_context.tracestate) == ("ours", "state")
    assert wire.adapter == "lora"
    assert (wire.kv_transfer_params, durations.from_wire(wire.kv_lease)) == (b"{}", 3.5)
    assert list(wire.reasons) == ["because"]
    assert unset(wire.continuation) == set()
    assert list(wire.continuation.emitted_token_ids) == [8, 9]
    assert wire.continuation.emitted_text_length == 4
    assert wire.continuation.mode == executor_pb2.Continuation.MODE_REPLAY
    assert wire.continuation.best_effort


@pytest.mark.parametrize(("request_id", "fresh", "new"), [("", False, True), ("r", False, False), ("r", True, True)])
async def test_inputs_without_an_id_or_with_a_fresh_one_are_new(request_id: str, fresh: bool, new: bool) -> None:
    request = inference_pb2.EmbedRequest(
        request_id=request_id, fresh=fresh, inputs=[inference_pb2.EmbedInput(text="x")]
    )
    (found,) = await embeddings.submissions(request, {}, tenant="t")
    assert found.fresh is new


async def test_a_vector_is_scaled_or_left_as_it_is() -> None:
    request = inference_pb2.EmbedRequest(raw=True, inputs=[inference_pb2.EmbedInput(text="x")])
    (found,) = await embeddings.submissions(request, {}, tenant="t")
    assert found.embedding == Embedding(raw=True)
    request.normalize = True
    with pytest.raises(InvalidRequest, match="raw"):
        await embeddings.submissions(request, {}, tenant="t")


@pytest.mark.parametrize("embedding", [Embedding(), Embedding(dimensions=7, normalize=True), Embedding(raw=True)])
def test_an_assign_says_how_to_embed(embedding: Embedding) -> None:
    wire = assign_message(replace(the_order(), request=replace(REQUEST, embedding=embedding)))
    assert wire.HasField("embedding")
    assert embeddings.from_wire(wire.embedding) == embedding


def test_an_assign_has_the_media_and_the_tokens_that_they_may_take() -> None:
    media = (Media(data=b"one"), Media(kind=MediaKind.AUDIO, data=b"clip"), Media(data=b"two"))
    wire = assign_message(replace(the_order(), request=replace(REQUEST, media=media, media_tokens=36)))
    assert ([each.data for each in wire.images], wire.image_tokens) == ([b"one", b"two"], 36)
    assert [each.data for each in wire.audio] == [b"clip"]


def test_an_engine_that_takes_images_of_no_size_is_refused() -> None:
    wire = the_facts()
    wire.image_input.most_tokens = 0
    with pytest.raises(WireError, match="image_input"):
        registrations.facts(wire)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("most_tokens", 0), ("most_clips", 0), ("rate_hz", 0), ("rate_hz", 4_000_000_000)),
        *(("most_seconds", 0.0), ("most_seconds", float("nan")), ("most_seconds", float("inf"))),
    ],
)
def test_an_engine_that_takes_audio_of_no_size_or_out_of_bounds_is_refused(field: str, value: float) -> None:
    wire = the_facts()
    setattr(wire.audio_input, field, value)
    with pytest.raises(WireError, match="audio_input"):
        registrations.facts(wire)


def test_of_the_files_that_images_are_processed_with_only_known_ones_are_kept_and_bounded() -> None:
    wire = the_facts()
    wire.processor_files["../../elsewhere.json"] = "{}"
    assert registrations.facts(wire).processor_files.keys() == {"processor_config.json"}
    wire.processor_files["processor_config.json"] = "x" * (MODEL_CONFIG_LIMIT_BYTES + 1)
    with pytest.raises(WireError, match="processor_files"):
        registrations.facts(wire)


def test_sampling_is_complete_in_an_assign() -> None:
    assert at_default(SAMPLING) == set(), "the test itself must fill everything"
    wire = assign_message(the_order()).sampling
    assert unset(wire) == {"n"}, "one choice per request: the executor has no choice either"
    for name in ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty"):
        assert getattr(wire, name) == getattr(SAMPLING, name)
    for name in ("repetition_penalty", "seed", "min_tokens", "max_tokens", "logprobs", "prompt_logprobs"):
        assert getattr(wire, name) == getattr(SAMPLING, name)
    for name in ("include_stop_in_output", "ignore_eos", "skip_special_tokens"):
        assert getattr(wire, name) is getattr(SAMPLING, name)
    for name in ("stop", "stop_token_ids", "allowed_token_ids", "bad_words"):
        assert tuple(getattr(wire, name)) == getattr(SAMPLING, name)
    assert dict(wire.logit_bias) == SAMPLING.logit_bias
    assert (wire.cache_salt, dict(wire.engine_options)) == (SAMPLING.cache_salt, SAMPLING.engine_options)
    assert (wire.structured_output.reasoning_ended, wire.structured_output.reasoning_arguments) == (True, "{}")


def test_defaults_are_said_not_left_out() -> None:
    order = AssignOrder(
        number=1,
        epoch=EPOCH,
        attempt_number=1,
        phase=Phase.HYBRID,
        request=REQUEST,
        sampling=Sampling(),
        engine_priority=0,
        remaining_s=None,
    )
    wire = assign_message(order)
    for name in ("temperature", "top_p", "top_k", "max_tokens", "ignore_eos", "skip_special_tokens"):
        assert wire.sampling.HasField(name), name
    for name in ("remaining", "continuation", "kv_lease"):
        assert not wire.HasField(name), name  # type: ignore[arg-type]
    for name in ("seed", "logprobs", "prompt_logprobs", "structured_output"):
        assert not wire.sampling.HasField(name), name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("structured", "wire"),
    [
        (StructuredOutput(kind="json_schema", value="{}"), common_pb2.StructuredOutput(json_schema="{}")),
        (StructuredOutput(kind="json_object", value=""), common_pb2.StructuredOutput(json_object=True)),
        (StructuredOutput(kind="regex", value="a"), common_pb2.StructuredOutput(regex="a")),
        (StructuredOutput(kind="choice", value='["a"]'), common_pb2.StructuredOutput(choice=ONE_CHOICE)),
        (StructuredOutput(kind="grammar", value="g"), common_pb2.StructuredOutput(grammar="g")),
        (StructuredOutput(kind="structural_tag", value="t"), common_pb2.StructuredOutput(structural_tag="t")),
    ],
)
def test_every_kind_of_structured_output_goes_out(
    structured: StructuredOutput, wire: common_pb2.StructuredOutput
) -> None:
    order = AssignOrder(
        number=1,
        epoch=EPOCH,
        attempt_number=1,
        phase=Phase.HYBRID,
        request=REQUEST,
        sampling=Sampling(structured_output=structured),
        engine_priority=0,
        remaining_s=None,
    )
    assert assign_message(order).sampling.structured_output == wire


def test_a_message_does_not_change_when_the_request_goes_on() -> None:
    emitted = [8, 9]
    continuation = Continuation(
        emitted_token_ids=emitted, emitted_text_length=2, mode=ContinuationMode.RESUME, best_effort=False
    )
    order = AssignOrder(
        number=1,
        epoch=EPOCH,
        attempt_number=1,
        phase=Phase.HYBRID,
        request=REQUEST,
        sampling=Sampling(),
        engine_priority=0,
        remaining_s=None,
        continuation=continuation,
    )
    wire = assign_message(order)
    emitted.append(10)
    assert list(wire.continuation.emitted_token_ids) == [8, 9]
    assert wire.continuation.mode == executor_pb2.Continuation.MODE_RESUME


# --- to clients -----------------------------------------------------------------------------------


LIVE = LiveRequest(request=REQUEST, digest=b"", detached=False)


def test_accepted() -> None:
    live = LiveRequest(request=REQUEST, digest=b"", detached=False, warnings=("top_p has no effect",))
    wire = events.accepted(live, attached=True, expected_wait_s=1.5, receipt=b"signed").accepted
    assert unset(wire) == set()
    assert (wire.request_id, wire.model, wire.prompt_tokens) == ("r", "m", 3)
    assert wire.attached
    assert durations.from_wire(wire.expected_wait) == 1.5
    assert list(wire.warnings) == ["top_p has no effect"]


def test_scheduled() -> None:
    placement = Placement(decision=DECISION, from_token=5)
    wire = events.scheduled(placement, the_instance().instance("d"), LIVE, EPOCH).scheduled
    assert unset(wire) == {"direct_delivery", "choice"}
    assert wire.resumed_from_token == 5
    assert unset(wire.decision) == {"candidates"}, "candidates are for explain"


def test_a_decision() -> None:
    wire = decision_pb2.Decision()
    events.fill_decision(wire, DECISION, the_instance().instance("d"), LIVE, EPOCH, with_candidates=True)
    assert unset(wire) == set()
    assert (wire.request_id, wire.tenant, wire.policy) == ("r", "t", "fifo")
    assert (wire.phase, wire.phase_reason) == (common_pb2.PHASE_DECODING, "long prompt")
    assert (wire.instance_id, wire.prefill_instance_id) == ("d", "p")
    assert wire.instance_role == common_pb2.INSTANCE_ROLE_DECODING
    assert wire.parallelism_config.gpu_count == 24
    assert list(wire.reasons) == ["earliest predicted finish", "second"]
    assert (wire.attempt.epoch, wire.attempt.number) == (EPOCH, 12)
    assert (wire.prefill_attempt.epoch, wire.prefill_attempt.number) == (EPOCH, 11)
    assert (wire.reserved_tokens, wire.prefill_reserved_tokens) == (48, 32)
    assert durations.from_wire(wire.waited) == 1.5
    assert (wire.queue_length, wire.candidates_considered) == (6, 2)
    predicted = wire.prediction
    assert unset(predicted) == set()
    assert [durations.from_wire(d) for d in (predicted.start, predicted.first_token, predicted.finish)] == [
        0.25,
        0.5,
        4.0,
    ]
    assert (predicted.output_tokens, predicted.cost) == (8, 0.125)
    chosen, other = wire.candidates
    assert (chosen.instance_id, chosen.chosen, dict(chosen.scores)) == ("d", True, {"start_s": 0.25})
    assert (other.instance_id, other.filtered_by, other.filter_reason) == ("e", "room", "full")


def test_a_decision_outlives_its_instance() -> None:
    wire = decision_pb2.Decision()
    events.fill_decision(wire, DECISION, None, LIVE, EPOCH, with_candidates=False)
    assert unset(wire) == {"candidates", "instance_role", "parallelism_config"}


def logprob(token_id: int) -> common_pb2.TokenLogprobs:
    return common_pb2.TokenLogprobs(candidates=[common_pb2.TokenLogprob(token_id=token_id, logprob=-0.5)])


def test_tokens() -> None:
    logprobs = [logprob(5).SerializeToString(), logprob(6).SerializeToString()]
    wire = events.tokens(TokenSlice(12, 3, [5, 6], 7, "ab", logprobs), LIVE, EPOCH).tokens
    assert unset(wire) == {"choice", "cached_prompt_tokens", "prompt_logprobs"}
    assert (wire.attempt.epoch, wire.attempt.number, wire.first_index) == (EPOCH, 12, 3)
    assert (list(wire.token_ids), wire.text_offset, wire.text) == ([5, 6], 7, "ab")
    assert list(wire.logprobs) == [logprob(5), logprob(6)]


@pytest.mark.parametrize(("position", "told"), [(0, True), (3, False)])
def test_what_is_known_of_the_prompt_comes_with_the_first_tokens(position: int, told: bool) -> None:
    live = LiveRequest(request=REQUEST, digest=b"", detached=False)
    live.prompt = PromptFacts(cached_tokens=2, logprobs=[b"", logprob(5).SerializeToString()])
    wire = events.tokens(TokenSlice(12, position, [5], 0, "a", None), live, EPOCH).tokens
    assert wire.HasField("cached_prompt_tokens") is told
    assert list(wire.prompt_logprobs) == ([common_pb2.TokenLogprobs(), logprob(5)] if told else [])


def test_the_end_of_one_choice() -> None:
    live = LiveRequest(request=replace(REQUEST, key=REQUEST.key._replace(choice=2)), digest=b"", detached=False)
    wire = events.choice_finished(the_end(), live).choice_finished
    assert wire.choice == 2
    assert wire.finished == events.finished(the_end()).finished


def test_tokens_of_which_some_have_no_log_probabilities() -> None:
    pieces = [b"", logprob(6).SerializeToString()]
    wire = events.tokens(TokenSlice(12, 3, [5, 6], 7, "ab", pieces), LIVE, EPOCH).tokens
    assert list(wire.logprobs) == [common_pb2.TokenLogprobs(), logprob(6)]


def the_end(**changes: object) -> Finished:
    fields: dict[str, object] = {
        "finish_reason": "stop",
        "stop_string": "",
        "stop_token_id": 2,
        "prompt_tokens": 3,
        "completion_tokens": 9,
        "cached_prompt_tokens": 1,
        "attempts": 2,
        "queue_s": 0.5,
        "ttft_s": 1.0,
        "prefill_s": 0.25,
        "transfer_s": 0.125,
        "decode_s": 2.0,
        "total_s": 3.5,
        "cost": 0.75,
        "slo": (SloOutcome(target="ttft", wanted_s=2.0, measured_s=1.0, met=True),),
    }
    return Finished(**{**fields, **changes})  # type: ignore[arg-type]


def test_finished() -> None:
    wire = events.finished(the_end()).finished
    assert unset(wire) == set()
    assert wire.finish_reason == common_pb2.FINISH_REASON_STOP
    assert wire.stop_token_id == 2
    assert (wire.usage.prompt_tokens, wire.usage.completion_tokens, wire.usage.cached_prompt_tokens) == (3, 9, 1)
    assert (wire.attempts, wire.cost) == (2, 0.75)
    timings = wire.timings
    assert unset(timings) == set()
    assert durations.from_wire(timings.queue) == 0.5
    assert durations.from_wire(timings.time_to_first_token) == 1.0
    assert durations.from_wire(timings.prefill) == 0.25
    assert durations.from_wire(timings.transfer) == 0.125
    assert durations.from_wire(timings.decode) == 2.0
    assert durations.from_wire(timings.total) == 3.5
    [slo] = wire.slo
    assert (slo.target, durations.from_wire(slo.wanted), durations.from_wire(slo.measured), slo.met) == (
        "ttft",
        2.0,
        1.0,
        True,
    )


def test_what_stopped_it_is_one_thing() -> None:
    assert events.finished(the_end(stop_string="x")).finished.WhichOneof("stop") == "stop_string"
    assert events.finished(the_end(stop_token_id=0)).finished.WhichOneof("stop") == "stop_token_id"
    assert events.finished(the_end(stop_token_id=None)).finished.WhichOneof("stop") is None


def test_times_that_did_not_happen_are_absent() -> None:
    wire = events.finished(the_end(ttft_s=None, prefill_s=None, transfer_s=None, decode_s=None)).finished
    assert unset(wire.timings) == {"time_to_first_token", "prefill", "transfer", "decode"}


# --- to operators ---------------------------------------------------------------------------------


def test_an_instance() -> None:
    instance = the_instance().transition("d", InstanceState.READY, "its engine is ready", 95.0)
    instance.load, instance.last_report_at, instance.progress = LOAD, 99.0, 0.5
    instance.wake_s = 2.5
    instance.account.reservations[1] = None  # type: ignore[assignment]  # it is counted only
    instance.account.reserved_tokens = 48
    decision = admin_pb2.InstanceDecision(instance_id="d", drained=True)
    instance.role_change = RoleChange(
        model="m",
        instance_id="d",
        before=InstanceRole.DECODING,
        role=instance.role,
        cause=Cause.PREFILL_PRESSED,
        reason="prefill is pressed",
        at=90.0,
    )
    wire = instance_view(instance, 100.0, decision)
    assert unset(wire) == set()
    assert wire.decision == decision
    assert (wire.instance_id, wire.model, wire.revision) == ("d", "m", "abc")
    assert (wire.role, wire.state) == (common_pb2.INSTANCE_ROLE_DECODING, common_pb2.INSTANCE_STATE_READY)
    assert (wire.state_reason, durations.from_wire(wire.state_age)) == ("its engine is ready", 5.0)
    assert (wire.engine, wire.engine_version) == ("vllm", "0.32")
    assert (wire.max_running, wire.max_model_len, wire.kv_capacity_tokens) == (64, 2048, 65536)
    assert (wire.kv_used_tokens, wire.kv_reserved_tokens, wire.assigned) == (1000, 48, 1)
    assert (wire.running, wire.waiting, wire.iterations) == (3, 2, 77)
    assert (wire.prompt_tokens_per_s, wire.generation_tokens_per_s) == (1.5, 2.5)
    assert durations.from_wire(wire.heartbeat_age) == 1.0
    assert durations.from_wire(wire.wake_time) == 2.5
    assert (wire.prefix_queries_tokens, wire.prefix_hits_tokens) == (10, 8)
    assert (wire.gpu_memory_used_bytes, wire.gpu_memory_bytes) == (99, 141)
    assert (wire.kv_pulls, wire.kv_pulls_failed, wire.kv_leases_expired) == (21, 22, 23)
    assert (wire.known_wait, wire.software_version) == ("compiles a grammar", "1.2")
    assert not wire.engine_start_id, "it would help to take the executor's place"
    assert (wire.price_per_hour, dict(wire.labels), list(wire.adapters)) == (2.5, {"a": "b"}, ["lora"])
    assert (wire.location.host, wire.location.rack, wire.location.zone) == ("h", "r", "z")
    assert wire.device_group == "gpu-0"


def test_a_view_that_is_made_again_shows_what_changed() -> None:
    registry, views = the_instance(), InstanceViews()
    instance = registry.instance("d")

    def shown() -> admin_pb2.Instance:
        wire = admin_pb2.Instance()
        views.fill(wire, instance, 100.0)
        return wire

    assert shown() == instance_view(instance, 100.0)
    registry.transition("d", InstanceState.READY, "its engine is ready", 95.0)
    instance.load, instance.last_report_at = LOAD, 99.0
    assert shown() == instance_view(instance, 100.0)
    assert instance.facts is not None
    instance.facts = replace(instance.facts, revision="def")
    assert shown().revision == "def"
    instance.spec = replace(instance.spec, software_version="1.3", labels={})
    assert shown() == instance_view(instance, 100.0)


# --- from executors -------------------------------------------------------------------------------


KEPT_ROLE = KeptRole(
    role=InstanceRole.PREFILLING,
    previous=InstanceRole.DECODING,
    cause=Cause.PREFILL_PRESSED,
    reason="why",
    age_s=2.5,
)


def the_registration() -> executor_pb2.Register:
    return executor_pb2.Register(
        protocol_version=PROTOCOL_VERSION,
        capabilities=[AUTOMATIC_ROLES],
        instance_id="d",
        engine_start_id="start",
        role=common_pb2.INSTANCE_ROLE_DECODING,
        model="m",
        location=common_pb2.Location(host="h", rack="r", zone="z"),
        labels={"a": "b"},
        price_per_hour=2.5,
        software_version="1.2",
        held=[
            executor_pb2.HeldAttempt(attempt=common_pb2.Attempt(epoch=EPOCH, number=12), tokens=3, ended=True),
        ],
        address="h:1",
        resume_secret=b"proof",
        device_group=executor_pb2.DeviceGroup(name="gpu-0", places=2),
        automatic_role=executor_pb2.AutomaticRole(
            role=common_pb2.INSTANCE_ROLE_PREFILLING,
            previous=common_pb2.INSTANCE_ROLE_DECODING,
            cause="prefill_pressed",
            reason="why",
            age=durations.to_wire(2.5),
        ),
    )


def test_a_registration() -> None:
    wire = the_registration()
    assert unset(wire) == set(), "the test itself must fill everything"
    found = registrations.registration(wire)
    assert found.spec == SPEC
    assert at_default(found.spec) == set()
    assert found.held == (HeldAttempt(epoch=EPOCH, number=12, tokens=3, ended=True),)
    assert found.resume_secret == b"proof"
    assert found.keeps_role
    assert found.kept_role == KEPT_ROLE


def test_a_role_that_came_by_itself() -> None:
    change = RoleChange(
        model="m",
        instance_id="d",
        before=KEPT_ROLE.previous,
        role=KEPT_ROLE.role,
        cause=KEPT_ROLE.cause,
        reason="why" * REASON_BYTES,
        at=0.0,
    )
    wire = automatic_roles.kept_role_to_wire(change, 2.5)
    assert unset(wire) == set()
    assert len(wire.reason) == REASON_BYTES
    wire.reason = "why"
    assert automatic_roles.kept_role(wire, "d") == KEPT_ROLE
    assert automatic_roles.kept_role_to_wire(None, 0.0) == executor_pb2.AutomaticRole()


@pytest.mark.parametrize("field", ["role", "previous"])
def test_a_kept_role_that_a_later_version_gave_is_ignored_and_logged(
    field: str, caplog: pytest.LogCaptureFixture
) -> None:
    wire = the_registration()
    setattr(wire.automatic_role, field, 99)
    assert registrations.registration(wire).kept_role is None
    assert f"instance {wire.instance_id} kept a role that is not known here" in caplog.text


def test_a_role_that_was_kept_for_a_cause_of_a_later_version_is_taken_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wire = the_registration()
    wire.automatic_role.cause = "of a later version" + "!" * 1_000
    assert registrations.registration(wire).kept_role == replace(KEPT_ROLE, cause=Cause.UNKNOWN)
    assert "for a cause that is not known here: 'of a later version" in caplog.text
    assert len(caplog.messages[0]) < 200


@pytest.mark.parametrize("version", [OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, PROTOCOL_VERSION + 1])
def test_neighbouring_versions_agree_on_the_older(version: int) -> None:
    wire = the_registration()
    wire.protocol_version = version
    registrations.registration(wire)
    assert registrations.agreed_version(wire) == min(version, PROTOCOL_VERSION)


def test_a_version_further_away_is_refused() -> None:
    wire = the_registration()
    wire.protocol_version = PROTOCOL_VERSION + 2
    with pytest.raises(WireError, match=f"{PROTOCOL_VERSION + 2} is not spoken here") as refused:
        registrations.registration(wire)
    assert refused.value.reason is ErrorReason.PROTOCOL_VERSION


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("instance_id", ""),
        ("instance_id", "two words"),
        ("instance_id", "-a"),
        ("instance_id", "x" * 129),
        ("instance_id", "a\n"),
        ("instance_id", "é"),
        ("model", ""),
        ("price_per_hour", -1.0),
        ("price_per_hour", float("nan")),
        ("price_per_hour", float("inf")),
        ("price_per_hour", 1e308),
    ],
)
def test_registrations_that_make_no_sense_name_the_field(field: str, value: object) -> None:
    wire = the_registration()
    setattr(wire, field, value)
    with pytest.raises(WireError, match=f"registration refused: {field}") as refused:
        registrations.registration(wire)
    assert refused.value.reason is ErrorReason.INVALID_REGISTRATION


def test_an_unknown_role_is_refused() -> None:
    wire = the_registration()
    wire.MergeFromString(executor_pb2.Register(role=77).SerializeToString())  # type: ignore[arg-type]
    with pytest.raises(WireError, match="role: 77"):
        registrations.registration(wire)


def the_facts() -> executor_pb2.EngineFacts:
    return executor_pb2.EngineFacts(
        engine="vllm",
        engine_version="0.32",
        model="m",
        revision="abc",
        dtype="float32",
        vocab_size=4096,
        max_model_len=2048,
        kv_capacity_tokens=65536,
        kv_block_size=32,
        max_running=64,
        max_batched_tokens=1024,
        parallelism_config=common_pb2.ParallelismConfig(
            tensor_parallel_size=2, pipeline_parallel_size=3, data_parallel_size=4, gpu_count=24
        ),
        gpu_name="H200",
        gpu_memory_bytes=141,
        adapters=["lora"],
        adapter_slots=6,
        can_sleep=True,
        supports_priority=True,
        structured_output_kinds=["regex"],
        kv_connector="nixl",
        compatibility_key="key",
        tokenizer_hash="hash",
        prefix_caching=True,
        keeps_output_history=True,
        weights="w1",
        adapter_weights={"lora": "l1"},
        config_json="{}",
        generation_config_json="[]",
        embedding_dimensions=256,
        classifies=True,
        image_input=executor_pb2.ImageInput(placeholder_token_id=9, most_tokens=19, most_images=4),
        audio_input=inference_pb2.AudioInput(
            placeholder_token_id=8, most_tokens=750, most_clips=3, most_seconds=30.0, rate_hz=16_000
        ),
        processor_files={"processor_config.json": "{}"},
    )


def test_engine_facts() -> None:
    wire = the_facts()
    assert unset(wire) == set(), "the test itself must fill everything"
    assert registrations.facts(wire) == FACTS
    assert at_default(FACTS) == {"run_time"}  # comes with AdapterStates


@pytest.mark.parametrize(
    "field", ["vocab_size", "max_model_len", "kv_capacity_tokens", "max_running", "max_batched_tokens"]
)
def test_an_engine_without_room_is_refused(field: str) -> None:
    wire = the_facts()
    wire.ClearField(field)  # type: ignore[arg-type]
    with pytest.raises(WireError, match=f"facts.{field}"):
        registrations.facts(wire)


def test_sizes_that_are_not_said_are_one() -> None:
    wire = the_facts()
    wire.ClearField("parallelism_config")
    wire.ClearField("kv_block_size")
    found = registrations.facts(wire)
    assert found.kv_block_size == 1
    assert found.parallelism == Parallelism()


def test_a_heartbeat() -> None:
    wire = executor_pb2.Heartbeat(
        number=5,
        last_assign=4,
        running=3,
        waiting=2,
        unfinished=6,
        kv_used_tokens=1000,
        prefix_queries_tokens=10,
        prefix_hits_tokens=8,
        iterations=77,
        known_wait="compiles a grammar",
        prompt_tokens_per_s=1.5,
        generation_tokens_per_s=2.5,
        gpu_memory_used_bytes=99,
        kv_pulls=21,
        kv_pulls_failed=22,
        kv_leases_expired=23,
        recent_iterations=[
            executor_pb2.Iteration(
                index=1, prefill_tokens=11, decode_tokens=12, running=13, kv_used_tokens=14, elapsed_s=0.5
            )
        ],
    )
    assert registrations.load_report(wire) == LOAD
    assert at_default(LOAD) == set()


def test_a_heartbeat_brings_a_bounded_number_of_iterations() -> None:
    wire = executor_pb2.Heartbeat(recent_iterations=[executor_pb2.Iteration(elapsed_s=0.01)] * 10_000)
    assert len(registrations.load_report(wire).samples) == registrations.SAMPLES_LIMIT


def test_what_an_engine_says_of_its_prefix_cache() -> None:
    wire = executor_pb2.PrefixCacheReport(number=3, block_tokens=64, reset=True, removed=[5], stored=[2**64 - 1, 7])
    assert unset(wire) == set()

    report = registrations.cache_report(wire)

    assert report == CacheReport(block_tokens=64, cleared=True, removed=(5,), stored=(2**64 - 1, 7))
    assert at_default(report) == set()


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (executor_pb2.PrefixCacheReport(stored=[1]), "block_tokens"),
        (executor_pb2.PrefixCacheReport(block_tokens=64, stored=[1] * 65_537), "65537 hashes"),
    ],
)
def test_a_report_of_a_prefix_cache_that_makes_no_sense_is_refused(
    wire: executor_pb2.PrefixCacheReport, words: str
) -> None:
    with pytest.raises(WireError, match=words):
        registrations.cache_report(wire)


@pytest.mark.parametrize(
    ("said", "taken"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (None, None), (-0.1, None), (1.1, None), (math.nan, None)]
)
def test_the_progress_of_a_start_is_a_share_or_not_known(said: float | None, taken: float | None) -> None:
    assert registrations.progress(executor_pb2.EngineStatus(progress=said)) == taken


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308, 3_601.0])
def test_figures_that_no_engine_can_have_are_not_learned(odd: float) -> None:
    good = executor_pb2.Iteration(prefill_tokens=1, elapsed_s=0.5)
    wire = executor_pb2.Heartbeat(recent_iterations=[executor_pb2.Iteration(elapsed_s=odd), good])
    wire.prompt_tokens_per_s = wire.generation_tokens_per_s = odd if odd not in (0.0, 3_601.0) else math.nan
    load = registrations.load_report(wire)
    assert [sample.elapsed_s for sample in load.samples] == [0.5]
    assert (load.prompt_tokens_per_s, load.generation_tokens_per_s) == (0.0, 0.0)


def test_no_engine_holds_more_tokens_than_memory() -> None:
    most = executor_pb2.Iteration(kv_used_tokens=2**64 - 1, elapsed_s=0.5)
    load = registrations.load_report(executor_pb2.Heartbeat(kv_used_tokens=2**64 - 1, recent_iterations=[most]))
    assert (load.kv_used_tokens, load.samples) == (registrations.MOST_TOKENS, ())


LONG = "x" * (registrations.TEXT_BYTES + 1)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("model", {"model": LONG}),
        ("engine_start_id", {"engine_start_id": LONG}),
        ("software_version", {"software_version": LONG}),
        ("address", {"address": LONG}),
        ("location.zone", {"location": {"zone": LONG}}),
        ("labels", {"labels": {str(n): "" for n in range(registrations.LABELS_LIMIT + 1)}}),
        ("labels['k']", {"labels": {"k": LONG}}),
        ("held", {"held": [{}] * (registrations.HELD_LIMIT + 1)}),
        ("device_group.name", {"device_group": {"name": LONG, "places": 1}}),
        ("device_group.name", {"device_group": {"places": 1}}),
        ("device_group.places", {"device_group": {"name": "gpu-0"}}),
        ("device_group.places", {"device_group": {"name": "gpu-0", "places": registrations.PLACES_LIMIT + 1}}),
    ],
)
def test_a_registration_is_bounded_in_bytes(field: str, fields: dict[str, Any]) -> None:
    wire = executor_pb2.Register(**{"protocol_version": PROTOCOL_VERSION, "instance_id": "a", "model": "m", **fields})
    with pytest.raises(WireError, match=f"^registration refused: {re.escape(field)}: "):
        registrations.registration(wire)


def test_an_engines_texts_are_bounded_in_bytes() -> None:
    sizes = ("vocab_size", "max_model_len", "kv_capacity_tokens", "max_running", "max_batched_tokens")
    texts = [each.name for each in executor_pb2.EngineFacts.DESCRIPTOR.fields if each.type == each.TYPE_STRING]
    limits = dict.fromkeys(("config_json", "generation_config_json"), MODEL_CONFIG_LIMIT_BYTES)
    for name in texts:
        long = "x" * (limits.get(name, registrations.TEXT_BYTES) + 1)
        value: Any = long if isinstance(getattr(executor_pb2.EngineFacts(), name), str) else [long]
        wire = executor_pb2.EngineFacts(**{**dict.fromkeys(sizes, 1), name: value})
        with pytest.raises(WireError, match=rf"facts\.{name}: is longer"):
            registrations.facts(wire)


def test_a_report_is_shortened_and_a_callers_reason_is_refused() -> None:
    long = "\N{SNOWMAN}" * REPORT_BYTES
    assert len(reported(long).encode()) <= REPORT_BYTES
    assert reported("short") == stated_reason("short") == "short"
    with pytest.raises(InvalidRequest, match=r"^reason: has"):
        stated_reason(long)


def test_an_attempts_end() -> None:
    wire = executor_pb2.AssignmentEnded(
        attempt_number=12,
        cause=executor_pb2.AssignmentEnded.CAUSE_INVALID,
        finish_reason=common_pb2.FINISH_REASON_STOP,
        stop_string="x",
        stop_token_id=2,
        total_tokens=9,
        trailing_text="z",
        cached_prompt_tokens=1,
        field="sampling.regex",
        message="no",
        kv_transfer_params=b"{}",
        kv_lease=Duration(seconds=30),
        engine_time=Duration(seconds=4),
        kv_unclaimed=True,
        kv_recomputed=True,
        engine_died=True,
        epoch=7,
        embedding=b"1234",
    )
    assert unset(wire) == set(), "the test itself must fill everything"
    found = registrations.attempt_end(wire, wire.attempt_number)
    assert found == AttemptEnd(
        attempt_number=12,
        cause=EndCause.INVALID,
        finish_reason="stop",
        stop_string="x",
        stop_token_id=2,
        total_tokens=9,
        trailing_text="z",
        cached_prompt_tokens=1,
        field="spec.sampling.regex",
        message="no",
        engine_time_s=4.0,
        kv_transfer_params=b"{}",
        kv_lease_s=30.0,
        kv_unclaimed=True,
        kv_recomputed=True,
        engine_died=True,
        embedding=b"1234",
    )
    assert at_default(found) == set()


def test_an_end_without_a_known_cause_is_a_failure() -> None:
    wire = executor_pb2.AssignmentEnded(attempt_number=1)
    wire.MergeFromString(executor_pb2.AssignmentEnded(cause=77).SerializeToString())  # type: ignore[arg-type]
    found = registrations.attempt_end(wire, wire.attempt_number)
    assert found.cause is EndCause.FAILED
    assert found.stop_token_id is None


@pytest.mark.parametrize(
    ("theirs", "callers"),
    [("", "spec"), ("sampling.seed", "spec.sampling.seed"), ("spec.sampling.seed", "spec.sampling.seed")],
)
def test_fields_at_fault_are_named_as_the_caller_knows_them(theirs: str, callers: str) -> None:
    assert registrations.attempt_end(executor_pb2.AssignmentEnded(field=theirs), 1).field == callers


# --- durations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 0.001, 1.5, 3_600.25, 1e9])
def test_durations_there_and_back(seconds: float) -> None:
    assert durations.from_wire(durations.to_wire(seconds)) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    ("seconds", "sent"),
    [(-1.0, 0.0), (float("inf"), durations.LIMIT_S), (float("-inf"), 0.0), (1e300, durations.LIMIT_S)],
)
def test_durations_that_cannot_be_sent_become_the_nearest_that_can(seconds: float, sent: float) -> None:
    wire = durations.to_wire(seconds)
    assert durations.from_wire(wire) == sent
    wire.ToJsonString()  # refuses what the contract does not allow
