"""Names that somebody may have meant."""

from __future__ import annotations

import time

import pytest

from sage_common.near_names import did_you_mean, names_instead, near_names

POLICIES = ("adaptive", "cost_optimized", "fifo", "least_kv", "least_requests", "priority", "slo_aware")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("slo_awar", "slo_aware"),
        ("slo-aware", "slo_aware"),
        ("SLO_AWARE", "slo_aware"),
        ("SloAware", "slo_aware"),
        ("fifoo", "fifo"),
        ("cost", "cost_optimized"),
        ("prio", "priority"),
        (" fifo", "fifo"),
    ],
)
def test_a_mistyped_or_shortened_name_has_a_nearest_one(name: str, nearest: str) -> None:
    assert near_names(name, POLICIES)[0] == nearest


@pytest.mark.parametrize("name", ["", "zzz", "best", "x" * 10_000])
def test_a_name_like_none_has_no_nearest_one(name: str) -> None:
    assert near_names(name, POLICIES) == []


def test_a_beginning_that_several_names_share_suggests_them() -> None:
    assert did_you_mean("least", POLICIES) == "; did you mean least_kv or least_requests?"


def test_a_message_suggests_the_nearest_name_before_it_lists_all() -> None:
    assert names_instead("fifoo", ["adaptive", "fifo"]) == "; did you mean fifo? There are: adaptive, fifo"
    assert names_instead("zzz", ["adaptive", "fifo"], title="served now") == "; served now: adaptive, fifo"
    assert names_instead("zzz", []) == "; there are: none"


def test_neither_a_long_name_nor_many_known_ones_take_long() -> None:
    began = time.process_time()
    names_instead("x" * 4_000_000, POLICIES)
    names_instead("instance-1x", [f"instance-{each}" for each in range(100_000)])
    assert time.process_time() - began < 1.0
