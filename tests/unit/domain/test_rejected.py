"""An objective says which candidates it took out and why, and the words are made when they are read."""

from __future__ import annotations

import numpy as np

from scheduler_svc.domain.objectives.rejected import Rejected


def test_the_first_reason_of_a_candidate_stays() -> None:
    rejected = Rejected()
    rejected.add(np.array([True, False, False]), lambda i: ("budget", f"candidate {i}"))
    rejected.add(np.array([True, False, True]), lambda i: ("targets", f"candidate {i}"))

    assert dict(rejected) == {0: ("budget", "candidate 0"), 2: ("targets", "candidate 2")}
    assert 1 not in rejected
    assert len(rejected) == 2


def test_nothing_is_rejected_at_first() -> None:
    assert not Rejected()
    assert 0 not in Rejected()


def test_no_reason_is_written_before_it_is_read() -> None:
    def written(index: int) -> tuple[str, str]:
        raise AssertionError("nobody asked")

    rejected = Rejected()
    rejected.add(np.array([True, True]), written)

    assert len(rejected) == 2
    assert 0 in rejected
