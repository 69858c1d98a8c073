"""What an engine is given while its speed is measured, and how its iterations are told."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from sage_common.speed_measurement import MOST_KINDS, Load, by_kind, loads


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Those of an engine."""

    max_model_len: int = 32_768
    kv_capacity_tokens: int = 65_536
    max_batched_tokens: int = 2_048
    max_running: int = 256


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """One that an engine told of."""

    elapsed_s: float
    running: int = 1
    kv_used_tokens: int = 10
    prefill_tokens: int = 0

    @property
    def decode_tokens(self) -> int:
        """One of each sequence."""
        return self.running


LIMITS = Limits()


@pytest.mark.parametrize(
    ("changes", "prompts", "together"),
    [
        ({}, (2_048,), 32),
        ({"max_running": 4}, (2_048,), 4),
        ({"max_model_len": 1_000}, (984, 984, 80), 32),
        ({"max_model_len": 1_000, "max_running": 1}, (984,), 1),
        ({"max_model_len": 1_000, "kv_capacity_tokens": 4_096}, (984, 984), 32),
        ({"max_model_len": 500, "kv_capacity_tokens": 512}, (240,), 8),
        ({"max_model_len": 4_096, "kv_capacity_tokens": 32}, (8,), 1),
        ({"max_model_len": 17}, (9,) * 227 + (5,), 32),
        ({"max_model_len": 2, "kv_capacity_tokens": 16, "max_batched_tokens": 2, "max_running": 1}, (1,), 1),
    ],
)
def test_what_is_run_fits_the_engine(changes: dict[str, int], prompts: tuple[int, ...], together: int) -> None:
    limits = replace(LIMITS, **changes)
    filling, short = loads(limits)
    assert (filling.prompts, len(short.prompts)) == (prompts[: limits.max_running], together)
    for load in (filling, short):
        assert min(*load.prompts, load.output_tokens) >= 1
        assert max(load.prompts) + load.output_tokens <= limits.max_model_len
        assert sum(load.prompts) + len(load.prompts) * load.output_tokens <= limits.kv_capacity_tokens // 2


def test_an_engine_that_embeds_gets_a_short_prompt_alone_as_well() -> None:
    assert loads(LIMITS, embeds=True) == [*loads(LIMITS), Load((16,), 1)]


def test_of_iterations_of_one_kind_the_median_time_and_the_mean_kv_are_told() -> None:
    told = [
        Iteration(elapsed_s=5.0, running=2),
        Iteration(elapsed_s=1.0),
        Iteration(elapsed_s=2.0, kv_used_tokens=20),
        Iteration(elapsed_s=90.0, kv_used_tokens=30),
    ]

    one, other = by_kind(told)
    assert (one.iterations, one.elapsed_s, one.kv_used_tokens) == (told[1:], 2.0, 20)
    assert (other.iterations, other.elapsed_s) == (told[:1], 5.0)


def test_the_most_frequent_kinds_are_told_and_no_more_than_a_bound() -> None:
    rare = [Iteration(elapsed_s=1.0, prefill_tokens=each) for each in range(1, 2 * MOST_KINDS)]

    told = by_kind([*rare, Iteration(elapsed_s=1.0), Iteration(elapsed_s=1.0)])
    assert len(told) == MOST_KINDS
    assert len(told[0].iterations) == 2
