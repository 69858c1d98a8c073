"""Messages that a service accepts, by type: what is changed a little from them gets behind the first check.

A message that holds one of these types gets a plausible one too, so an RPC that nobody thought of when this was written
is reached as well, if it carries what others carry.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

ROGUES = 6  # instances that the fuzzer registers, each with a model of its own name
MODEL = "sim"  # of the real executors
STATE_READY = 4

Fill = Callable[[Any, Random], None]


def rogue(dice: Random) -> str:
    """Return the name of one of the fuzzer's instances, which is also that of its model."""
    return f"rogue-{dice.randrange(ROGUES)}"


def _generate(message: Any, dice: Random) -> None:
    message.request_id = f"f{dice.getrandbits(20)}"
    _spec(message.spec, dice)
    if dice.random() < 0.1:
        message.detached = True


def _submit(message: Any, dice: Random) -> None:
    message.request_id = f"f{dice.getrandbits(20)}"
    _spec(message.spec, dice)
    if dice.random() < 0.5:
        message.keep_result.seconds = dice.choice((1, 5, 100))


def _spec(spec: Any, dice: Random) -> None:
    spec.model = MODEL if dice.random() < 0.7 else rogue(dice)
    kind = dice.randrange(3)
    if kind == 0:
        spec.text = "Once upon a time " * dice.choice((1, 1, 8, 100))
    elif kind == 1:
        spec.tokens.ids.extend(dice.randrange(1, 500) for _ in range(dice.choice((1, 20, 300))))
    else:
        _chat(spec.chat, dice)
    _sampling(spec.sampling, dice)
    spec.deadline.seconds = dice.choice((1, 2, 3))


def _chat(chat: Any, dice: Random) -> None:
    for role in dice.choice((("user",), ("system", "user"), ("user", "assistant", "user"))):
        chat.messages.add(role=role).content.add(text="Tell me a story.")


def _sampling(sampling: Any, dice: Random) -> None:
    sampling.max_tokens = dice.choice((1, 2, 8, 24, 64))
    sampling.temperature = dice.choice((0.0, 0.0, 0.7, 2.0))
    if dice.random() < 0.2:
        sampling.logprobs = dice.choice((0, 1, 20))
    if dice.random() < 0.2:
        sampling.seed = dice.choice((0, 1, 2**63 - 1))


def _register(register: Any, dice: Random) -> None:
    name = rogue(dice)
    register.protocol_version = 1
    register.instance_id = name
    register.engine_start_id = f"start-{dice.randrange(1_000)}"
    register.model = name
    register.role = dice.choice((0, 1, 1, 2, 3, 4))
    if dice.random() < 0.5:
        register.capabilities.append("run_time_adapters")
    if dice.random() < 0.5:
        register.capabilities.append("automatic_roles")
        kept = register.automatic_role
        kept.role, kept.previous, kept.cause = 2, 3, dice.choice(("prefill_pressed", "unheard_of"))
    register.price_per_hour = dice.choice((0.0, 1.0))
    if dice.random() < 0.3:
        register.device_group.name, register.device_group.places = "gpu-0", dice.randrange(3)


def _status(status: Any, dice: Random) -> None:
    status.state = STATE_READY
    _facts(status.facts, dice)


def _facts(facts: Any, dice: Random) -> None:
    facts.engine = "simulated"
    facts.model = rogue(dice)
    facts.vocab_size = 2_048
    facts.max_model_len = 8_192
    facts.kv_capacity_tokens = 65_536
    facts.kv_block_size = 16
    facts.max_running = dice.choice((1, 8, 64))
    facts.max_batched_tokens = 2_048
    facts.dtype = "float32"
    facts.weights = "w"
    facts.kv_connector = dice.choice(("", "NixlConnector"))
    facts.compatibility_key = dice.choice(("", "k"))
    facts.adapter_slots = dice.choice((0, 1, 4))
    facts.can_sleep = dice.random() < 0.5
    facts.keeps_output_history = dice.random() < 0.5
    facts.prefix_caching = dice.random() < 0.5
    for _ in range(dice.choice((0, 1, 4, 100))):
        facts.measured_iterations.add(
            prefill_tokens=dice.choice((0, 512, 2_048, 2**32 - 1)),
            running=dice.choice((0, 1, 32, 2**32 - 1)),
            kv_used_tokens=dice.choice((0, 64, 65_536, 2**40)),
            elapsed_s=dice.choice((0.01, 0.1, 0.0, 1e-300, 3_600.0, float("inf"), float("nan"))),
        )


def _heartbeat(heartbeat: Any, dice: Random) -> None:
    heartbeat.number = dice.randrange(1, 100)
    heartbeat.iterations = dice.randrange(1_000)
    heartbeat.running = dice.randrange(4)
    heartbeat.recent_iterations.add(index=1, decode_tokens=2, running=2, kv_used_tokens=64, elapsed_s=0.01)


def _tokens(tokens: Any, dice: Random) -> None:
    tokens.first_index = dice.choice((0, 0, 0, 1, 2))
    tokens.token_ids.extend(range(1, 1 + dice.choice((1, 1, 2, 5))))
    tokens.text = "word "


def _ended(ended: Any, dice: Random) -> None:
    ended.cause = dice.randrange(1, 7)
    ended.finish_reason = dice.choice((1, 2))
    ended.total_tokens = dice.randrange(6)
    ended.kv_lease.seconds = 2


def _welcome(welcome: Any, dice: Random) -> None:
    welcome.protocol_version = 1
    welcome.session_id = f"session-{dice.randrange(1_000)}"
    welcome.epoch = 1
    welcome.lease.seconds = 2
    welcome.heartbeat_interval.nanos = 50_000_000


def _assign(assign: Any, dice: Random) -> None:
    assign.number = dice.randrange(1, 1_000)
    assign.attempt.epoch = 1
    assign.attempt.number = dice.randrange(1, 200)
    assign.request_id = "default/fuzz"
    assign.phase = dice.choice((1, 1, 1, 2, 3))
    assign.prompt_token_ids.extend(dice.randrange(1, 500) for _ in range(dice.choice((1, 20, 300))))
    _sampling(assign.sampling, dice)
    assign.remaining.seconds = 5


def _continuation(continuation: Any, dice: Random) -> None:
    continuation.emitted_token_ids.extend(dice.randrange(1, 500) for _ in range(dice.choice((1, 3, 9))))
    continuation.mode = dice.choice((1, 2, 3))
    continuation.emitted_text_length = dice.choice((0, 1, 5))


def _session_request(message: Any, dice: Random) -> None:
    for _ in range(dice.choice((0, 1, 1, 2))):
        _session_submit(message.submit.add(), dice)
    message.acknowledged = dice.choice((0, 1, 2, 5))


def _session_submit(submit: Any, dice: Random) -> None:
    submit.handle = dice.randrange(1, 2**31)  # one that was used before ends the stream
    _generate(submit.request, dice)


def _watch(watch: Any, dice: Random) -> None:
    watch.interval.nanos = 300_000_000


def _adapter_source(source: Any, dice: Random) -> None:
    """Fill AdapterSource, AddAdapterRequest: the same names."""
    source.name = f"adapter-{dice.randrange(3)}"
    source.source = dice.choice(("org/adapter", "/nowhere"))
    source.max_rank = dice.choice((0, 0, 8))


def _adapter_state(state: Any, dice: Random) -> None:
    _adapter_source(state.source, dice)
    state.state = dice.randrange(6)
    state.weights = "simulated org/adapter@"


def _sleep_report(report: Any, dice: Random) -> None:
    report.state = dice.randrange(8)
    report.number = dice.randrange(4)


def _sleep_instance(request: Any, dice: Random) -> None:
    """Fill SleepInstanceRequest and WakeInstanceRequest: the same name."""
    request.instance_id = rogue(dice)


def _add_adapter(request: Any, dice: Random) -> None:
    _adapter_source(request, dice)
    request.model = MODEL if dice.random() < 0.3 else rogue(dice)


def _remove_adapter(request: Any, dice: Random) -> None:
    request.name = f"adapter-{dice.randrange(3)}"
    request.model = MODEL if dice.random() < 0.3 else rogue(dice)


_PACKAGE = "sage.controlplane.v1."

PLAUSIBLE: dict[str, Fill] = {
    _PACKAGE + "GenerateRequest": _generate,
    _PACKAGE + "SubmitRequest": _submit,
    _PACKAGE + "GenerationSpec": _spec,
    _PACKAGE + "Chat": _chat,
    _PACKAGE + "SamplingParams": _sampling,
    _PACKAGE + "Register": _register,
    _PACKAGE + "EngineStatus": _status,
    _PACKAGE + "EngineFacts": _facts,
    _PACKAGE + "SleepReport": _sleep_report,
    _PACKAGE + "SleepInstanceRequest": _sleep_instance,
    _PACKAGE + "WakeInstanceRequest": _sleep_instance,
    _PACKAGE + "Heartbeat": _heartbeat,
    _PACKAGE + "AssignmentTokens": _tokens,
    _PACKAGE + "AssignmentEnded": _ended,
    _PACKAGE + "Welcome": _welcome,
    _PACKAGE + "Assign": _assign,
    _PACKAGE + "Continuation": _continuation,
    _PACKAGE + "WatchFleetRequest": _watch,
    _PACKAGE + "SessionRequest": _session_request,
    _PACKAGE + "Submit": _session_submit,
    _PACKAGE + "AdapterSource": _adapter_source,
    _PACKAGE + "AdapterState": _adapter_state,
    _PACKAGE + "AddAdapterRequest": _add_adapter,
    _PACKAGE + "RemoveAdapterRequest": _remove_adapter,
}
"""What fills a message of each type, by the type's full name."""
