from __future__ import annotations

import pytest

from scheduler_svc.domain.errors import QueueFull
from scheduler_svc.domain.ordering.fifo import Fifo
from scheduler_svc.domain.ordering.priority import ByClass
from scheduler_svc.domain.prediction.pace import GPU_PRIOR
from scheduler_svc.domain.queue import ModelQueue
from scheduler_svc.domain.request import Priority, RequestKey
from scheduler_svc.domain.waiting_request import WaitingRequest
from tests.contract.policies.modelled_fleet import make_request


def make_waiting(
    request_id: object, *, arrived_at: float = 0.0, priority: Priority = Priority.NORMAL
) -> WaitingRequest:
    return WaitingRequest(
        make_request(request_id, arrived_at=arrived_at, priority=priority),
        enqueued_at=arrived_at,
        emitted_tokens=0,
        excluded=frozenset(),
        resumed=False,
        output_tokens=10,
        pace=GPU_PRIOR,
    )


def key(request_id: object) -> RequestKey:
    return RequestKey(tenant="t", request_id=str(request_id))


def drain(queue: ModelQueue, now: float = 0.0) -> list[str]:
    order = []
    while (head := queue.head(now)) is not None:
        order.append(head.request.key.request_id)
        queue.remove(head.request.key)
    return order


class StepsBack(Fifo):
    """Sends everybody back by a second whenever they come to the head."""

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        return waiting.key + 1


class StepsBackOnce(Fifo):
    """By an hour."""

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        return None if waiting.revisions else waiting.key + 3_600


class StepsForward(Fifo):
    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        return waiting.key - 1


def test_the_smallest_key_goes_first_and_ties_in_order_of_entry() -> None:
    queue = ModelQueue("m", Fifo(), limit=10)
    for request_id, at in (("b", 2.0), ("a", 1.0), ("b2", 2.0)):
        queue.add(make_waiting(request_id, arrived_at=at), at)

    assert drain(queue) == ["a", "b", "b2"]


def test_whoever_waits_already_cannot_wait_again() -> None:
    queue = ModelQueue("m", Fifo(), limit=10)
    queue.add(make_waiting("a"), 0.0)

    with pytest.raises(ValueError, match="waits already"):
        queue.add(make_waiting("a"), 0.0)
    assert len(queue) == 1


def test_whoever_left_may_come_again_and_its_old_entry_is_nothing() -> None:
    queue = ModelQueue("m", Fifo(), limit=10)
    queue.add(make_waiting("a", arrived_at=1.0), 1.0)
    queue.add(make_waiting("b", arrived_at=2.0), 2.0)
    queue.remove(key("a"))
    queue.add(make_waiting("a", arrived_at=3.0), 3.0)

    assert drain(queue) == ["b", "a"]


def test_a_full_queue_says_how_long_to_wait() -> None:
    queue = ModelQueue("m", Fifo(), limit=1)
    queue.check_capacity(1.0)
    queue.add(make_waiting("a"), 0.0)

    with pytest.raises(QueueFull, match=r"full \(1 requests\); expected wait 7.5 s") as full:
        queue.check_capacity(7.5)
    assert full.value.expected_wait_s == 7.5


def test_what_leaves_early_does_not_pile_up() -> None:
    queue = ModelQueue("m", Fifo(), limit=100_000)
    queue.add(make_waiting("first", arrived_at=-1.0), 0.0)
    for n in range(2_000):
        queue.add(make_waiting(n, arrived_at=n), 0.0)
        if n >= 10:
            queue.remove(key(n - 10))
        assert queue.garbage <= len(queue) + 64

    assert drain(queue) == ["first", *map(str, range(1_990, 2_000))]


def test_a_new_order_keeps_everybody_and_breaks_ties_as_before() -> None:
    queue = ModelQueue("m", Fifo(), limit=10)
    for n, priority in enumerate([Priority.LOW, Priority.CRITICAL, Priority.LOW, Priority.CRITICAL]):
        queue.add(make_waiting(n, priority=priority), 0.0)
    queue.remove(key(0))

    assert queue.reorder(ByClass(30.0), 1.0) == 3

    assert drain(queue) == ["1", "3", "2"]


def test_whoever_is_sent_back_lets_others_go_first_but_not_for_ever() -> None:
    queue = ModelQueue("m", StepsBack(), limit=10)
    queue.add(make_waiting("a", arrived_at=0.0), 0.0)
    queue.add(make_waiting("b", arrived_at=0.5), 0.0)

    assert drain(queue) == ["a", "b"], "each was sent back four times"


def test_a_burst_to_be_sent_back_is_worked_off_in_parts() -> None:
    queue = ModelQueue("m", StepsBackOnce(), limit=10_000)
    for n in range(2_000):
        queue.add(make_waiting(n, arrived_at=n * 1e-3), 0.0)

    revised = []
    for _ in range(4):
        queue.head(0.0)
        revised.append(sum(w.revisions for w in queue))

    assert revised == [512, 1_024, 1_536, 2_000]


def test_an_ordering_cannot_send_anybody_forward() -> None:
    queue = ModelQueue("m", StepsForward(), limit=10)
    queue.add(make_waiting("a", arrived_at=1.0), 0.0)

    head = queue.head(0.0)

    assert head is not None
    assert head.key == 1.0


def test_those_behind_the_head_are_shown_in_order_and_stay() -> None:
    queue = ModelQueue("m", Fifo(), limit=100)
    for n in range(10):
        queue.add(make_waiting(n, arrived_at=n), 0.0)
    queue.remove(key(2))

    behind = queue.behind_head(3, 0.0)

    assert [w.request.key.request_id for w in behind] == ["1", "3", "4"]
    assert len(drain(queue)) == 9


def test_those_set_aside_leave_the_order_and_come_back_to_their_place() -> None:
    queue = ModelQueue("m", Fifo(), limit=3)
    waiting = [make_waiting(n, arrived_at=n) for n in range(4)]
    for each in waiting:
        queue.add(each, 0.0)
    queue.set_aside(waiting[0], 1.0)
    assert queue.behind_head(3, 2.0, lambda w: w is waiting[2]) == [waiting[3]]

    assert list(queue.aside) == [waiting[0], waiting[2]]
    assert [w.unserved_since for w in waiting] == [1.0, None, 2.0, None]
    assert (queue.placeable, len(queue), queue.full) == (2, 4, False)
    assert queue.position(waiting[3]) == 2, "those aside are nobody's predecessors"

    queue.bring_back()
    assert drain(queue) == ["0", "1", "2", "3"]


def test_one_that_leaves_while_it_is_aside_does_not_come_back() -> None:
    queue = ModelQueue("m", Fifo(), limit=3)
    waiting = [make_waiting(n, arrived_at=n) for n in range(2)]
    for each in waiting:
        queue.add(each, 0.0)
    queue.set_aside(waiting[0], 1.0)
    queue.remove(waiting[0].request.key)
    queue.bring_back()

    assert queue.head(1.0) is waiting[1]
    assert len(queue) == 1


def test_reordering_leaves_those_aside_where_they_are() -> None:
    queue = ModelQueue("m", Fifo(), limit=3)
    waiting = [make_waiting(n, arrived_at=n) for n in range(3)]
    for each in waiting:
        queue.add(each, 0.0)
    queue.set_aside(waiting[0], 1.0)
    queue.reorder(ByClass(30.0), 1.0)

    assert queue.head(1.0) is waiting[1]
    queue.bring_back()
    assert queue.head(1.0) is waiting[0]


def test_a_queue_of_requests_set_aside_is_full_at_twice_its_limit() -> None:
    queue = ModelQueue("m", Fifo(), limit=2)
    for n in range(4):
        waiting = make_waiting(n, arrived_at=n)
        queue.add(waiting, 0.0)
        queue.set_aside(waiting, 0.0)

    assert queue.full
    assert queue.placeable == 0


def test_a_position_counts_those_ahead() -> None:
    queue = ModelQueue("m", ByClass(30.0), limit=10)
    low, high = make_waiting("low", priority=Priority.LOW), make_waiting("high", priority=Priority.HIGH)
    queue.add(low, 0.0)
    queue.add(high, 0.0)

    assert (queue.position(high), queue.position(low)) == (1, 2)
    assert queue.view().by_priority[Priority.LOW] == 1
