"""How many instances a load needs, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.objectives.held_back import PATIENCE
from scheduler_svc.domain.scaling.carried_share import LEAST, CarriedShare
from scheduler_svc.domain.scaling.need import Need, needed
from scheduler_svc.domain.scaling.parts import is_asked, parts_of
from scheduler_svc.domain.scaling.settings import Bounds, ScalingSettings
from scheduler_svc.domain.scaling.signals import ScalingSignals

_R = InstanceRole
SETTINGS = ScalingSettings(enabled=True, idle_s=600.0)


def signals(*, ready: int = 2, **changes: Any) -> ScalingSignals:
    values: dict[str, Any] = {
        "load": 1.0,
        "forecast": 1.0,
        "lead_s": 75.0,
        "strengths": (1.0,) * ready,
        "starting": 0,
        "settled": True,
        "waiting": 0,
        "running": 4,
        "idle_s": 0.1,
        "wait_share": 0.0,
        "late_share": 0.0,
        "turned_away": 0.0,
        "kv_use": 0.2,
    }
    return ScalingSignals(**values | changes)


def need(found: ScalingSignals, *, share: float = 0.7, least: int = 1, most: int = 8) -> Need:
    return needed(found, share, Bounds(least=least, most=most), SETTINGS)


@pytest.mark.parametrize(("load", "count"), [(0.0, 1), (0.69, 1), (0.71, 2), (1.4, 2), (1.41, 3), (2.8, 4), (99.0, 8)])
def test_so_many_that_each_carries_its_share(load: float, count: int) -> None:
    assert need(signals(load=load, forecast=load)).count == count


def test_the_forecast_counts_and_not_the_load_of_now() -> None:
    found = need(signals(load=1.0, forecast=2.5))
    assert found.count == 4
    assert found.reason == "the load is 1.00 instances, 2.50 expected in 75 s; each is to carry 70%"


def test_the_cheapest_for_what_they_do_are_counted_first() -> None:
    strong = signals(load=1.0, forecast=1.0, strengths=(1.5, 1.0, 0.5))
    weak = signals(load=1.0, forecast=1.0, strengths=(0.5, 1.0, 1.5))
    assert (need(strong).count, need(weak).count) == (1, 2)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ({"turned_away": 1.0}, "refused, or expire"),
        ({"wait_share": 0.8}, "has waited 80% of its TTFT target"),
        ({"late_share": 0.04}, "4.0% of the requests missed a target"),
        ({"kv_use": 0.95}, "95% of the KV tokens"),
    ],
)
def test_what_shows_a_lack_wants_another_instance(trouble: dict[str, Any], said: str) -> None:
    found = need(signals(load=1.0, forecast=1.0, **trouble))
    assert found.count == 3
    assert said in found.reason


def test_a_request_that_was_held_back_for_others_shows_no_lack() -> None:
    held = PATIENCE + 0.1  # it is asked about again a moment after its patience is over

    assert need(signals(load=1.0, forecast=1.0, wait_share=held)).count == need(signals(load=1.0, forecast=1.0)).count


def test_no_further_one_while_the_last_one_starts_or_is_new() -> None:
    assert need(signals(turned_away=5.0, starting=1)).count == 3
    assert need(signals(turned_away=5.0, settled=False)).count == 2


def test_misses_of_instances_with_little_to_do_want_nothing() -> None:
    """Targets that an idle engine misses are too tight for it; more of the same would miss them too."""
    assert need(signals(load=0.2, forecast=0.2, late_share=1.0)).count == 1


def test_nobody_asks_for_long_and_none_is_needed() -> None:
    idle = signals(load=0.0, forecast=0.0, running=0, idle_s=700.0)
    assert need(idle, least=0) == Need(count=0, reason="no request for 700 s")
    assert need(idle, least=1).count == 1
    assert need(signals(load=0.0, forecast=0.0, running=0, idle_s=599.0), least=0).count == 1
    assert need(signals(load=0.0, forecast=0.0, running=1, idle_s=700.0), least=0).count == 1


def test_requests_that_wait_for_a_model_without_an_instance_are_need_for_one() -> None:
    found = need(signals(ready=0, load=0.0, forecast=0.0, running=0, waiting=3, idle_s=1e9), least=0)
    assert found == Need(count=1, reason="3 requests wait and no instance is ready")


def test_the_bounds_hold_and_are_named() -> None:
    over = need(signals(load=9.0, forecast=9.0), most=4)
    under = need(signals(load=0.1, forecast=0.1), least=2)
    assert (over.count, under.count) == (4, 2)
    assert "13 are needed and the maximum is 4" in over.reason
    assert "the minimum is 2" in under.reason


@pytest.mark.parametrize(
    ("role", "roles", "split", "parts"),
    [
        (_R.GENERAL, {_R.GENERAL}, 0.0, (1.0, 1.0)),
        (_R.GENERAL, {_R.GENERAL, _R.PREFILLING, _R.DECODING}, 0.25, (0.75, 0.75)),
        (_R.PREFILLING, {_R.PREFILLING, _R.DECODING}, 0.5, (0.5, 0.0)),
        (_R.DECODING, {_R.PREFILLING, _R.DECODING}, 0.5, (0.5, 1.0)),
        (_R.DECODING, {_R.GENERAL, _R.PREFILLING, _R.DECODING}, 0.25, (0.0, 0.25)),
        (_R.PREFILLING, {_R.PREFILLING}, 0.0, (1.0, 1.0)),
        (_R.EMBEDDING, {_R.EMBEDDING}, 0.0, (1.0, 1.0)),
        (_R.EMBEDDING, {_R.EMBEDDING, _R.GENERAL}, 0.0, (1.0, 1.0)),
    ],
)
def test_each_role_takes_its_part_of_the_load(
    role: InstanceRole, roles: set[InstanceRole], split: float, parts: tuple[float, float]
) -> None:
    assert parts_of(role, roles, split) == parts


@pytest.mark.parametrize(
    ("live", "embedding", "general"),
    [
        (set(), True, True),
        ({_R.EMBEDDING}, True, False),
        ({_R.EMBEDDING, _R.HYBRID}, False, True),
        ({_R.DECODING}, False, True),
    ],
)
def test_requests_go_to_instances_that_embed_where_none_generates(
    live: set[InstanceRole], embedding: bool, general: bool
) -> None:
    assert (is_asked(_R.EMBEDDING, live), is_asked(_R.GENERAL, live)) == (embedding, general)


def test_the_share_falls_below_what_misses_targets_and_rises_slowly() -> None:
    share = CarriedShare(0.7, 0.0)
    assert share.learn(0.6, 10.0, short=True) == pytest.approx(0.63)
    assert share.learn(0.5, 20.0, short=True) == pytest.approx(0.631), "they came under what was there before"
    assert share.learn(0.5, 4_000.0, short=False) == 0.7
    for at in range(5_000, 9_000, 150):
        share.learn(0.1, float(at), short=True)
    assert share.value == LEAST


def test_misses_above_the_share_teach_nothing() -> None:
    assert CarriedShare(0.7, 0.0).learn(0.9, 10.0, short=True) == 0.7


@pytest.mark.parametrize(("least", "most"), [(-1, 2), (3, 2), (0, 0)])
def test_bounds_that_cannot_be_are_refused(least: int, most: int) -> None:
    with pytest.raises(ValueError, match=f"min {least}, max {most}"):
        Bounds(least=least, most=most)


@pytest.mark.parametrize(("key", "value"), [("share", 0.0), ("share", 1.5), ("interval_s", 0.0), ("idle_s", -1.0)])
def test_settings_out_of_range_are_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        ScalingSettings(**{key: value})  # type: ignore[arg-type]


def test_a_share_that_is_set_below_the_least_learned_one_is_never_raised() -> None:
    carried = CarriedShare(0.2, 0.0)
    assert carried.learn(0.1, 1_000.0, short=True) == 0.2
