"""How many requests of a mix a fleet can serve, computed rather than simulated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.instance_spec import InstanceRole


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestMix:
    """Means of a trace's requests."""

    prompt_tokens: float
    output_tokens: float
    context_tokens: float  # of a running sequence at any time: longer outputs weigh by their length

    @classmethod
    def of(cls, trace: Sequence[TracedRequest]) -> RequestMix:
        """Take the means of a trace.  Raises ValueError if it is empty."""
        if not trace:
            raise ValueError("an empty trace has no means")
        output = sum(each.output_tokens for each in trace)
        context = sum(each.output_tokens * (each.prompt_tokens + each.output_tokens / 2) for each in trace)
        return cls(
            prompt_tokens=sum(each.prompt_tokens for each in trace) / len(trace),
            output_tokens=output / len(trace),
            context_tokens=context / output,
        )


def instance_capacity(instance: InstanceModel, mix: RequestMix) -> float:
    """Return the requests per second that an instance serves when it is always full.

    With n sequences decoding, a step emits n tokens and has to prefill n x p / o tokens, so that as many requests
    begin as end; p and o are the mean prompt and output tokens.  It takes

        base + a x n x p / o + b x n + c x n x k

    seconds, k being the mean context, and serves n / o requests.  n is the least of the slots, of what fits into the
    KV cache (n x k tokens) and of what fits into a step (n + n x p / o tokens).  Prefix hits are not counted, so that
    shared prefixes allow loads above 1.
    """
    per_output = mix.prompt_tokens / mix.output_tokens
    running = min(
        instance.max_running,
        instance.kv_capacity_tokens / mix.context_tokens,
        instance.max_batched_tokens / (1 + per_output),
    )
    step_s = instance.pace_here.iteration_s(running * per_output, running, running * mix.context_tokens)
    return running / mix.output_tokens / step_s


def prefill_capacity(instance: InstanceModel, mix: RequestMix) -> float:
    """Return the prompts per second that an instance computes that does nothing else, in full chunks."""
    chunk = instance.max_batched_tokens
    prompts = max(1.0, chunk / mix.prompt_tokens)
    step_s = instance.pace_here.iteration_s(chunk, prompts, prompts * mix.prompt_tokens)
    return chunk / mix.prompt_tokens / step_s


def decode_capacity(instance: InstanceModel, mix: RequestMix) -> float:
    """Return the requests per second that an instance serves whose prompts are computed elsewhere.

    As ``instance_capacity``, but for the prompts: of each request a step computes one prompt token at its begin.
    """
    running = min(instance.max_running, instance.kv_capacity_tokens / mix.context_tokens)
    step_s = instance.pace_here.iteration_s(running / mix.output_tokens, running, running * mix.context_tokens)
    return running / mix.output_tokens / step_s


def fleet_capacity(fleet: Iterable[InstanceModel], mix: RequestMix, *, split: bool = False) -> float:
    """Return the requests per second that a fleet serves when all of it is always full.

    ``split``: whether requests are split.  Then instances for legs serve as many as both sides of them can, beside the
    others' whole requests.  Otherwise, and where one side is missing, they serve nothing, unless there are no others:
    whole requests run on decode instances then, or else on prefill instances.
    """
    by_role: dict[InstanceRole, list[InstanceModel]] = {}
    for each in fleet:
        by_role.setdefault(each.scaled_as, []).append(each)
    of_whole = by_role.get(InstanceRole.GENERAL, [])
    prefillers, decoders = by_role.get(InstanceRole.PREFILLING, []), by_role.get(InstanceRole.DECODING, [])
    if split and prefillers and decoders:
        prompts = sum(prefill_capacity(each, mix) for each in prefillers)
        legs = min(prompts, sum(decode_capacity(each, mix) for each in decoders))
        return legs + sum(instance_capacity(each, mix) for each in of_whole)
    return sum(instance_capacity(each, mix) for each in of_whole or decoders or prefillers)


def load_capacity(fleet: Sequence[InstanceModel], trace: Sequence[TracedRequest], *, split: bool = False) -> float:
    """Return the requests per second, of all models in the trace's proportions, that a fleet serves when it is full.

    The model whose instances are full first sets it.  0 where a model has no instance.
    """
    by_model: dict[str, list[TracedRequest]] = {}
    for each in trace:
        by_model.setdefault(each.model, []).append(each)

    def of(model: str) -> float:
        there = (each for each in fleet if each.model in ("", model))
        requests = by_model[model]
        return fleet_capacity(there, RequestMix.of(requests), split=split) * len(trace) / len(requests)

    return min(map(of, by_model))
