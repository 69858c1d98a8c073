"""Values of control and domain with every field filled, each with a value of its own."""

from __future__ import annotations

from sage_media.kinds import MediaInput, MediaKind
from scheduler_svc.domain.decision import Candidate, Decision, Phase, Prediction, PrefillLeg
from scheduler_svc.domain.engine_facts import EngineFacts, Parallelism
from scheduler_svc.domain.instance_spec import DeviceGroup, InstanceRole, InstanceSpec, Location
from scheduler_svc.domain.load_report import IterationSample, LoadReport
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.request import Request, RequestKey, Sampling, StructuredOutput
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.settings import SchedulerSettings

EPOCH = 7


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
    measured=(IterationSample(prefill_tokens=31, decode_tokens=32, running=33, kv_used_tokens=34, elapsed_s=0.75),),
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
