"""Changes of a whole trace.  Each returns a new list; none changes its input."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.prefix_blocks import mixed


def requests_per_s(trace: Sequence[TracedRequest]) -> float:
    """Return the mean rate between the first and the last arrival.  Raises ValueError where they are one moment."""
    span_s = trace[-1].arrival_s - trace[0].arrival_s if trace else 0.0
    if span_s <= 0:
        raise ValueError("all requests arrive at the same moment, so the trace has no rate")
    return (len(trace) - 1) / span_s


def scale_time(trace: Sequence[TracedRequest], factor: float) -> list[TracedRequest]:
    """Multiply every arrival; 2 halves the rate.  Targets and deadlines stay.  Raises ValueError unless above 0."""
    _check_above_zero("factor", factor)
    return [replace(request, arrival_s=request.arrival_s * factor) for request in trace]


def scale_to_rate(trace: Sequence[TracedRequest], rate: float) -> list[TracedRequest]:
    """Scale the time so that the mean rate is this many requests per second.  Raises ValueError without a rate."""
    _check_above_zero("rate", rate)
    return scale_time(trace, requests_per_s(trace) / rate)


def window(trace: Sequence[TracedRequest], start_s: float, end_s: float) -> list[TracedRequest]:
    """Keep the arrivals from start_s until before end_s, counted from start_s.  Raises ValueError if none is left."""
    kept = [
        replace(request, arrival_s=request.arrival_s - start_s)
        for request in trace
        if start_s <= request.arrival_s < end_s
    ]
    if not kept:
        raise ValueError(f"no request arrives from {start_s} s until before {end_s} s")
    return kept


def truncate_prompts(trace: Sequence[TracedRequest], prompt_tokens: int) -> list[TracedRequest]:
    """Cut longer prompts to their first tokens, and their hashes to the blocks that are still full.

    Raises ValueError below 1.
    """
    if prompt_tokens < 1:
        raise ValueError(f"prompt_tokens must be at least 1, got {prompt_tokens}")
    return [
        replace(
            request,
            prompt_tokens=prompt_tokens,
            block_hashes=request.block_hashes[: prompt_tokens // request.block_tokens],
        )
        if request.prompt_tokens > prompt_tokens
        else request
        for request in trace
    ]


def repeat_to(trace: Sequence[TracedRequest], count: int) -> list[TracedRequest]:
    """Play the trace again and again until it has this many requests; a longer one is cut.

    Each repetition begins a mean gap after the last arrival of the one before, and shares neither prefixes nor
    sessions with it.  Raises ValueError below 1, and where a trace without a rate would have to be repeated.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    repeated = list(trace[:count])
    if len(repeated) == count:
        return repeated
    period_s = trace[-1].arrival_s - trace[0].arrival_s + 1 / requests_per_s(trace)
    for index in range(len(trace), count):
        repetition, place = divmod(index, len(trace))
        repeated.append(_repeated(trace[place], repetition, period_s))
    return repeated


def with_default_targets(
    trace: Sequence[TracedRequest], *, ttft_s: float | None, tpot_s: float | None
) -> list[TracedRequest]:
    """Give targets, in seconds, to the requests that state neither a target nor a deadline."""
    return [
        each
        if each.ttft_target_s is not None or each.tpot_target_s is not None or each.deadline_s is not None
        else replace(each, ttft_target_s=ttft_s, tpot_target_s=tpot_s)
        for each in trace
    ]


def with_cancels(
    trace: Iterable[TracedRequest], rng: random.Random, *, share: float, mean_s: float
) -> list[TracedRequest]:
    """Have a share of the clients cancel, an exponentially distributed time after the arrival, of mean ``mean_s``.

    A request that has ended by then is not cancelled.  Raises ValueError for a share out of [0, 1] or a mean not above
    0.
    """
    _check_above_zero("mean_s", mean_s)
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, got {share}")
    return [
        replace(each, cancel_after_s=rng.expovariate(1 / mean_s)) if rng.random() < share else each for each in trace
    ]


def with_models(
    trace: Iterable[TracedRequest], rng: random.Random, weights: Mapping[str, float]
) -> list[TracedRequest]:
    """Spread the requests over models by the weights; the turns of one session have one model.

    Raises ValueError where there is no model, or a weight is not above 0.
    """
    if not weights:
        raise ValueError("with_models needs at least one model")
    for model, weight in weights.items():
        _check_above_zero(f"the weight of {model!r}", weight)
    of_session: dict[tuple[str, str], str] = {}
    spread = []
    for request in trace:
        [drawn] = rng.choices(list(weights), list(weights.values()))
        model = of_session.setdefault((request.tenant, request.session), drawn) if request.session else drawn
        spread.append(replace(request, model=model))
    return spread


def _repeated(request: TracedRequest, repetition: int, period_s: float) -> TracedRequest:
    return replace(
        request,
        arrival_s=request.arrival_s + repetition * period_s,
        block_hashes=tuple(mixed(block_hash, repetition) for block_hash in request.block_hashes),
        session=f"{request.session}~{repetition}" if request.session else "",
    )


def _check_above_zero(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be a finite number above 0, got {value}")
