"""What was learned of an idle engine fades towards the fastest engine of its model."""

from __future__ import annotations

from dataclasses import astuple

from hypothesis import given
from hypothesis import strategies as st

from scheduler_svc.domain.prediction.fading import FADES_AFTER_S, HALF_LIFE_S, LOAD_HALF_LIFE_S, faded
from scheduler_svc.domain.prediction.pace import Pace

coefficients = st.floats(0, 1)
paces = st.builds(
    Pace, base_s=coefficients, prefill_token_s=coefficients, running_s=coefficients, kv_token_s=coefficients
)


@given(paces, paces, st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_pace_nears_the_fastest_and_never_passes_it(own: Pace, fastest: Pace, first_s: float, later_s: float) -> None:
    sooner, later = (faded(own, fastest, each) for each in sorted((first_s, later_s)))
    for mine, early, late, other in zip(*map(astuple, (own, sooner, later, fastest)), strict=True):
        assert min(mine, other) <= late <= early <= mine


def test_half_of_the_difference_is_left_after_a_half_life() -> None:
    own = Pace(base_s=3.0, prefill_token_s=1.0, running_s=0.0, kv_token_s=0.0)
    fastest = Pace(base_s=1.0, prefill_token_s=2.0, running_s=0.0, kv_token_s=0.0)
    assert faded(own, fastest, FADES_AFTER_S) == own
    after = faded(own, fastest, FADES_AFTER_S + HALF_LIFE_S)
    assert (after.base_s, after.prefill_token_s) == (2.0, 1.0)
    slower = faded(own, fastest, FADES_AFTER_S + LOAD_HALF_LIFE_S, LOAD_HALF_LIFE_S)
    assert (slower.base_s, slower.prefill_token_s) == (2.0, 1.0)
