"""Splitting is decided by token counts, and what cannot be handed over is never split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.pd.router import Forecast, PhaseChoice, Shape, determine_request_phase
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode


def choose(
    mode: SplitMode,
    *,
    prompt: int,
    output: int,
    max_tokens: int = 512,
    prompt_logprobs: bool = False,
    continued: bool = False,
    forecast: Forecast | None = None,
) -> PhaseChoice:
    shape = Shape(
        prompt_tokens=prompt,
        output_tokens=output,
        max_tokens=max_tokens,
        prompt_logprobs=prompt_logprobs,
        continued=continued,
    )
    return determine_request_phase(shape, PdSettings(mode=mode), forecast)


def forecast(**changes: float) -> Forecast:
    figures = {
        "whole_first_token_s": 0.5,
        "split_first_token_s": 0.6,
        "interference_s": 2.0,
        "handoff_s": 0.03,
        "prefill_backlog_s": 0.0,
    }
    return Forecast(**{**figures, **changes})


@pytest.mark.parametrize(
    ("prompt", "output", "split"),
    [
        (2048, 2048, True),  # at the threshold
        (2047, 2047, False),
        (400, 100, True),  # four times the output
        (399, 100, False),
        (63, 1, False),  # far longer than its output, and too short to be worth a handoff
        (64, 1, True),
    ],
)
def test_the_threshold_is_about_tokens(prompt: int, output: int, split: bool) -> None:
    assert choose(SplitMode.THRESHOLD, prompt=prompt, output=output).split is split


def test_always_and_never() -> None:
    assert choose(SplitMode.ALWAYS, prompt=1, output=100).split
    assert not choose(SplitMode.NEVER, prompt=100_000, output=1).split


@given(
    mode=st.sampled_from(SplitMode),
    prompt=st.integers(1, 100_000),
    output=st.integers(1, 4096),
    obstacle=st.sampled_from([{"max_tokens": 1}, {"prompt_logprobs": True}, {"continued": True}]),
)
def test_what_cannot_be_handed_over_is_never_split(
    mode: SplitMode, prompt: int, output: int, obstacle: dict[str, int]
) -> None:
    choice = choose(mode, prompt=prompt, output=output, forecast=forecast(), **obstacle)  # type: ignore[arg-type]
    assert not choice.split
    assert choice.reason


def test_the_phase_says_what_dominates() -> None:
    assert choose(SplitMode.NEVER, prompt=4000, output=10).phase is Phase.PREFILLING
    assert choose(SplitMode.NEVER, prompt=10, output=400).phase is Phase.DECODING
    assert choose(SplitMode.NEVER, prompt=100, output=100).phase is Phase.HYBRID


def test_adaptive_splits_where_others_gain_more_than_this_one_loses() -> None:
    assert choose(SplitMode.ADAPTIVE, prompt=3000, output=100, forecast=forecast()).split
    assert not choose(SplitMode.ADAPTIVE, prompt=3000, output=100, forecast=forecast(interference_s=0.05)).split


def test_adaptive_never_splits_where_prefill_is_the_bottleneck() -> None:
    choice = choose(SplitMode.ADAPTIVE, prompt=3000, output=100, forecast=forecast(prefill_backlog_s=0.6))
    assert not choice.split
    assert "bottleneck" in choice.reason


def test_adaptive_does_not_split_on_no_knowledge() -> None:
    assert not choose(SplitMode.ADAPTIVE, prompt=3000, output=100).split


@pytest.mark.parametrize(
    ("key", "value"),
    [("threshold_input_tokens", 0), ("threshold_ratio", float("nan")), ("threshold_ratio", 0), ("min_split_tokens", 0)],
)
def test_settings_that_make_no_sense_name_their_key(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        PdSettings(**{key: value})  # type: ignore[arg-type]
