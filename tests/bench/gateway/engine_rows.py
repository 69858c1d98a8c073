"""Figures of the rounds with real engines."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from tests.bench.gateway.engine_turns import LoadKind, Turn
from tests.bench.report import Row
from tests.bench.rounds import spread

OURS = "gateway"
VLLM = "vLLM's server"

Rounds = Sequence[Mapping[str, Turn]]  # what each arm took, round by round


def rows(engine: str, kind: LoadKind, taken: Rounds) -> list[Row]:
    """Return a load's figures: tokens/s of the gateway by those of vLLM's server, first tokens, CPU by process."""
    benchmark = f"gateway, {engine}, {kind.name}"
    arms = list(taken[0])
    found = [_rate(benchmark, arm, taken) for arm in arms if arm != VLLM]
    for arm in arms:
        firsts = {
            "median": [each[arm].first_p50_ms for each in taken],
            "99 of 100": [each[arm].first_p99_ms for each in taken],
        }
        for name, of in firsts.items():
            found.append(Row(benchmark=benchmark, case=f"{arm}: first token, {name}", unit="ms", **spread(of)))
    for arm in arms:
        for part in taken[0][arm].cpu:
            used = [each[arm].cpu[part] for each in taken]
            found.append(Row(benchmark=benchmark, case=f"{arm}: {part}", unit="CPU s / 1M tokens", **spread(used)))
    return found


def _rate(benchmark: str, arm: str, taken: Rounds) -> Row:
    ratios = [each[arm].rate / each[VLLM].rate for each in taken]
    busiest = max(each[name].busiest_client for each in taken for name in (arm, VLLM))
    rates = (f"{statistics.median(each[name].rate for each in taken):,.0f}" for name in (arm, VLLM))
    return Row(
        benchmark=benchmark,
        case=arm,
        unit="of vLLM's tokens/s",
        target=">= 0.95" if arm == OURS else "",
        note=f"{' of '.join(rates)} tokens/s; busiest client {busiest:.0%}",
        **spread(ratios),
    )
