"""How many requests of a mix a fleet can serve, computed rather than simulated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.traced_request import TracedRequest


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


def fleet_capacity(fleet: Iterable[InstanceModel], mix: RequestMix) -> float:
    """Return the requests per second that a fleet serves when all of it is always full."""
    return sum(instance_capacity(instance, mix) for instance in fleet)


def load_capacity(fleet: Sequence[InstanceModel], trace: Sequence[TracedRequest]) -> float:
    """Return the requests per second, of all models in the trace's proportions, that a fleet serves when it is full.

    The model whose instances are full first sets it.  0 where a model has no instance.
    """
    by_model: dict[str, list[TracedRequest]] = {}
    for each in trace:
        by_model.setdefault(each.model, []).append(each)
    return min(
        fleet_capacity((i for i in fleet if i.model in ("", model)), RequestMix.of(requests))
        * len(trace)
        / len(requests)
        for model, requests in by_model.items()
    )
