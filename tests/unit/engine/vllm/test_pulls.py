"""Which pull of several failed, though vLLM only says how many did."""

from __future__ import annotations

import pytest

from executor_svc.engine.vllm.kv_connectors.connector import Pull
from executor_svc.engine.vllm.pulls import Pulls

TOKENS = 64


def pull(peer: str = "other") -> Pull:
    return Pull(params={}, peer=peer, tokens=TOKENS, cached_tokens=None)


def under_way(*request_ids: str) -> Pulls:
    pulls = Pulls()
    for request_id in request_ids:
        pulls.begin(request_id)
    return pulls


def test_all_failed() -> None:
    pulls = under_way("a", "b")
    pulls.note_failures(2)
    assert pulls.first_output("a", pull(), TOKENS)
    assert pulls.first_output("b", pull(), TOKENS)


def test_one_of_two_failed_and_has_fewer_cached_tokens() -> None:
    pulls = under_way("a", "b")
    pulls.note_failures(1)
    assert pulls.first_output("a", pull(), 0)
    assert not pulls.first_output("b", pull(), TOKENS)


def test_one_of_two_failed_beside_a_cached_prefix() -> None:
    """vLLM counts its tokens as cached.  It computes its prompt, so its first output is the last."""
    pulls = under_way("fetched", "failed")
    pulls.note_failures(1)
    assert not pulls.first_output("fetched", pull(), TOKENS)
    assert pulls.first_output("failed", pull("dead"), TOKENS)
    assert not pulls.reaches("dead")


def test_two_of_three_failed_one_of_them_beside_a_cached_prefix() -> None:
    pulls = under_way("a", "b", "c")
    pulls.note_failures(2)
    assert not pulls.first_output("a", pull(), TOKENS)
    assert pulls.first_output("b", pull(), 0)
    assert pulls.first_output("c", pull(), TOKENS)


def test_pulls_that_begin_after_the_report_are_not_suspected() -> None:
    pulls = under_way("a", "b")
    pulls.note_failures(1)
    pulls.begin("later")
    assert pulls.first_output("a", pull(), 0)
    assert not pulls.first_output("b", pull(), TOKENS)
    assert not pulls.first_output("later", pull(), TOKENS)


@pytest.mark.parametrize("ended", ["a", "b"])
def test_a_request_that_ends_leaves_no_report_behind(ended: str) -> None:
    pulls = under_way("a", "b")
    pulls.note_failures(1)
    pulls.end(ended)
    [left] = {"a", "b"} - {ended}
    assert pulls.first_output(left, pull(), TOKENS), "the failure is its own, as far as can be known"
    assert pulls._reports == []
