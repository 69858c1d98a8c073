"""The rule by which one side gets an instance of the other, and what keeps it from flapping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import pi, sin
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_media.kinds import MediaInput, MediaKind
from scheduler_svc.domain.engine_facts import RunTimeAdapters
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.role_change import Cause, RoleChange
from scheduler_svc.domain.roles.balance import wished
from scheduler_svc.domain.roles.model_roles import ModelRoles
from scheduler_svc.domain.roles.settings import RoleSettings
from scheduler_svc.domain.roles.side import Side
from tests.contract.policies.modelled_fleet import MODEL, add_instance, make_facts, make_scheduler

PREFILLING, DECODING = InstanceRole.PREFILLING, InstanceRole.DECODING
SETTINGS = RoleSettings(automatic=True)


def side(name: str, pressure: float, ready: int = 4, starting: int = 0) -> Side:
    return Side(name=name, ready=ready, starting=starting, pressure=pressure, why="the test says so")


def prefill(pressure: float, ready: int = 4, starting: int = 0) -> Side:
    return side("prefill", pressure, ready, starting)


def decode(pressure: float, ready: int = 4, starting: int = 0) -> Side:
    return side("decode", pressure, ready, starting)


def make_instances(prefills: int = 4, decodes: int = 4) -> list[Instance]:
    scheduler = make_scheduler()
    facts = make_facts(kv_connector="modelled", compatibility_key="k")
    for n in range(prefills):
        add_instance(scheduler, f"p{n}", facts=facts, role=PREFILLING)
    for n in range(decodes):
        add_instance(scheduler, f"d{n}", facts=facts, role=DECODING)
    return scheduler.instances()


def test_a_pressed_side_gets_an_instance_of_one_that_has_room() -> None:
    wish = wished(prefill(1.2), decode(0.3), SETTINGS)
    assert wish is not None
    assert (wish.leaves, wish.role, wish.cause) == (DECODING, PREFILLING, Cause.PREFILL_PRESSED)
    assert wish.reason == (
        "prefill is pressed, 1.20 (the test says so), and decode is not, 0.30; expected after the change: 0.96 and 0.40"
    )
    wish = wished(prefill(0.3), decode(1.2), SETTINGS)
    assert wish is not None
    assert (wish.leaves, wish.role, wish.cause) == (PREFILLING, DECODING, Cause.DECODE_PRESSED)


@pytest.mark.parametrize(
    ("short", "rich"),
    [
        (prefill(0.7), decode(0.1)),  # not pressed
        (prefill(1.2), decode(0.6)),  # the other side would have no room left
        (prefill(0.8, ready=20), decode(0.1)),  # one more would hardly help
        (prefill(1.2), decode(0.1, ready=1)),  # its last one
        (prefill(1.2, starting=4), decode(0.1)),  # help is on its way
        (prefill(0.0, ready=0, starting=1), decode(0.1)),
        (prefill(1.2), decode(0.7, ready=2, starting=4)),  # those that start have not taken its work over yet
        (replace(prefill(0.0, ready=0), stood_in=True), decode(0.1)),  # hybrid instances take its leg
    ],
)
def test_no_instance_changes_where_that_would_not_help_or_harm_the_other_side(short: Side, rich: Side) -> None:
    assert wished(short, rich, SETTINGS) is None


def test_floors_are_kept() -> None:
    assert wished(prefill(2.0), decode(0.1, ready=3), replace(SETTINGS, least_decode=3)) is None
    assert wished(prefill(2.0), decode(0.1, ready=3), replace(SETTINGS, least_decode=2)) is not None
    assert wished(prefill(0.1, ready=3), decode(2.0), replace(SETTINGS, least_prefill=3)) is None


def test_an_empty_side_gets_an_instance_however_much_the_other_has_to_do() -> None:
    wish = wished(prefill(0.0, ready=0), decode(3.0, ready=2), SETTINGS)
    assert wish is not None
    assert wish.cause is Cause.PREFILL_EMPTY
    wish = wished(prefill(3.0, ready=2), decode(0.0, ready=0), SETTINGS)
    assert wish is not None
    assert wish.cause is Cause.DECODE_EMPTY
    assert wished(prefill(0.0, ready=0), decode(3.0, ready=1), SETTINGS) is None
    assert wished(prefill(0.0, ready=0), decode(0.0, ready=0), SETTINGS) is None


@given(
    prefills=st.integers(1, 12),
    decodes=st.integers(1, 12),
    prompts=st.floats(0, 20),
    outputs=st.floats(0, 20),
    least=st.integers(1, 4),
)
def test_under_the_same_load_changes_come_to_an_end_and_leave_no_side_below_its_floor(
    prefills: int, decodes: int, prompts: float, outputs: float, least: int
) -> None:
    """No change is undone, so there are fewer changes than instances."""
    settings = RoleSettings(automatic=True, least_prefill=least, least_decode=least)
    roles = set()
    for _ in range(prefills + decodes):
        wish = wished(prefill(prompts / prefills, prefills), decode(outputs / decodes, decodes), settings)
        if wish is None:
            break
        roles.add(wish.role)
        by = 1 if wish.role is PREFILLING else -1
        assert (decodes if by > 0 else prefills) > least
        prefills, decodes = prefills + by, decodes - by
    else:
        pytest.fail("the roles change for ever")
    assert len(roles) <= 1


class Played:
    """Plays pressures against a model's roles, two seconds a look."""

    def __init__(self, instances: Sequence[Instance], settings: RoleSettings = SETTINGS) -> None:
        self.instances = instances
        self.roles = ModelRoles(MODEL, settings)
        self.pinned: set[str] = set()
        self.now = 0.0
        self.changes: list[RoleChange] = []

    def look(self, prompts: float, outputs: float) -> RoleChange | None:
        """Look once.  ``prompts`` and ``outputs``: what is to be done, in instances."""
        ready = {r: sum(i.role is r and i.state is InstanceState.READY for i in self.instances) for r in InstanceRole}
        p, d = ready[PREFILLING], ready[DECODING]
        sides = prefill(prompts / p if p else 0.0, p), decode(outputs / d if d else 0.0, d)
        change = self.roles.look(*sides, self.instances, self.pinned, self.now)
        if change is not None:
            assert ready[change.before] > 1, "never the last one of a side"
            next(i for i in self.instances if i.instance_id == change.instance_id).role = change.role
            self.changes.append(change)
        self.now += 2.0
        return change

    def hold(self, prompts: float, outputs: float, seconds: float) -> list[RoleChange]:
        """Look again and again, and return what changed."""
        before = len(self.changes)
        until = self.now + seconds
        while self.now < until:
            self.look(prompts, outputs)
        return self.changes[before:]


def test_a_wish_has_to_last_and_changes_keep_their_distance() -> None:
    played = Played(make_instances())
    assert not played.hold(5.0, 0.5, seconds=14.0)
    (first,) = played.hold(5.0, 0.5, seconds=20.0)
    assert (first.before, first.role, first.instance_id) == (DECODING, PREFILLING, "d0")
    (second,) = played.hold(5.0, 0.5, seconds=30.0)
    assert second.at - first.at >= SETTINGS.cooldown_s


def test_a_change_in_the_other_direction_waits_longer() -> None:
    played = Played(make_instances())
    (there,) = played.hold(5.0, 0.5, seconds=20.0)
    changes = played.hold(0.5, 5.0, seconds=200.0)
    assert changes[0].role is DECODING
    assert changes[0].at - there.at >= SETTINGS.back_s


@pytest.mark.parametrize("period_s", [4.0, 12.0, 24.0])
def test_a_load_that_swings_faster_than_the_delay_changes_nothing(period_s: float) -> None:
    played = Played(make_instances())
    for _ in range(500):
        swing = sin(2 * pi * played.now / period_s + 0.5)
        played.look(2.6 + 2.4 * swing, 2.6 - 2.4 * swing)
    assert not played.changes


@pytest.mark.parametrize("period_s", [60.0, 120.0, 240.0, 900.0])
def test_a_load_that_swings_slowly_changes_direction_no_more_than_once_in_back_s(period_s: float) -> None:
    played = Played(make_instances())
    for _ in range(1_800):
        swing = sin(2 * pi * played.now / period_s)
        played.look(2.6 + 2.4 * swing, 2.6 - 2.4 * swing)
    for one, other in zip(played.changes, played.changes[1:], strict=False):
        assert other.at - one.at >= (SETTINGS.cooldown_s if one.role is other.role else SETTINGS.back_s)


def test_the_pauses_hold_after_a_change_of_an_earlier_scheduler() -> None:
    instances = make_instances()
    instances[0].role_change = RoleChange(
        model=MODEL,
        instance_id=instances[0].instance_id,
        before=PREFILLING,
        role=DECODING,
        cause=Cause.DECODE_PRESSED,
        reason="it was so",
        at=-20.0,
    )
    played = Played(instances)
    assert not played.hold(5.0, 0.5, seconds=100.0)
    assert [each.role for each in played.hold(5.0, 0.5, seconds=4.0)] == [PREFILLING]


def test_a_side_that_is_empty_for_a_moment_gets_nothing_however_long_it_was_pressed_before() -> None:
    """The pauses keep a pressed side waiting; they do not count for an empty one, but its own delay does."""
    instances = make_instances(prefills=1, decodes=4)
    played = Played(instances)
    assert len(played.hold(3.0, 0.5, seconds=20.0)) == 1
    assert not played.hold(3.0, 0.5, seconds=24.0)
    for each in instances:
        if each.role is PREFILLING:
            each.transition(InstanceState.SUSPECT, "a heartbeat is late", played.now)
    assert not played.hold(3.0, 0.5, seconds=4.0)
    (change,) = played.hold(3.0, 0.5, seconds=14.0)
    assert change.cause is Cause.PREFILL_EMPTY


def test_a_pinned_instance_stays() -> None:
    played = Played(make_instances())
    played.pinned = {"d0", "d1", "d2"}
    (change,) = played.hold(5.0, 0.5, seconds=20.0)
    assert change.instance_id == "d3"
    assert not played.hold(5.0, 0.5, seconds=100.0)


def test_the_instance_that_runs_least_changes() -> None:
    instances = make_instances()
    for each in instances:
        each.account.live = {"d2": 1}.get(each.instance_id, 3)
    (change,) = Played(instances).hold(5.0, 0.5, seconds=20.0)
    assert change.instance_id == "d2"


def test_only_an_instance_that_can_hand_over_to_one_that_stays_changes() -> None:
    scheduler = make_scheduler()
    for name, key in (("d0", "other"), ("d1", ""), ("d2", "k"), ("d3", "k")):
        add_instance(scheduler, name, facts=make_facts(kv_connector="c", compatibility_key=key), role=DECODING)
    add_instance(scheduler, "d4", facts=make_facts(compatibility_key="k"), role=DECODING)  # without a connector
    add_instance(scheduler, "p0", facts=make_facts(kv_connector="c", compatibility_key="k"), role=PREFILLING)
    (change,) = Played(scheduler.instances()).hold(2.0, 0.5, seconds=20.0)
    assert change.instance_id == "d2"


FACTS: dict[str, Any] = {"kv_connector": "c", "compatibility_key": "k"}


def make_decoders(*facts: dict[str, Any]) -> list[Instance]:
    """Make a prefill instance and decode instances d0, d1 ... with these facts beside the usual ones."""
    scheduler = make_scheduler()
    add_instance(scheduler, "p0", facts=make_facts(**FACTS), role=PREFILLING)
    for n, each in enumerate(facts):
        add_instance(scheduler, f"d{n}", facts=make_facts(**FACTS, **each), role=DECODING)
    return scheduler.instances()


@pytest.mark.parametrize(
    "more",
    [
        {"max_model_len": 16_384},
        {"adapters": frozenset({"sql"})},
        {"run_time": RunTimeAdapters(loadable=frozenset({"sql"}))},
        {"structured_output_kinds": frozenset({"json"})},
        {"media": (MediaInput(kind=MediaKind.IMAGE, placeholder_token_id=1, most_tokens=100, most=2),)},
        {"tokenizer_hash": "another"},
        {"vocab_size": 2_000},
        {"weights": "others"},
    ],
)
def test_the_only_instance_of_a_side_that_can_serve_some_requests_stays(more: dict[str, Any]) -> None:
    """They would wait for ever: no other decode instance can take them, split or whole."""
    (change,) = Played(make_decoders(more, {}, {})).hold(2.0, 0.5, seconds=20.0)
    assert change.instance_id == "d1"
    (change,) = Played(make_decoders(more, more, {})).hold(2.0, 0.5, seconds=20.0)
    assert change.instance_id == "d0"


def test_a_little_more_kv_capacity_keeps_no_instance_where_it_is() -> None:
    """Equal engines find a few blocks more or less; what a request may take is bounded by the model's length."""
    (change,) = Played(make_decoders({"kv_capacity_tokens": 65_552}, {})).hold(2.0, 0.5, seconds=20.0)
    assert change.instance_id == "d0"
    (change,) = Played(make_decoders({}, {"kv_capacity_tokens": 4_096})).hold(2.0, 0.5, seconds=20.0)
    assert change.instance_id == "d1"


@given(st.data())
def test_failures_at_any_time_never_have_a_change_empty_a_side(data: st.DataObject) -> None:
    """``Played.look`` asserts that the side which gives an instance keeps a READY one."""
    instances = make_instances(3, 3)
    played = Played(instances, RoleSettings(automatic=True, delay_s=2.0, cooldown_s=0.0, back_s=0.0))
    for _ in range(30):
        hit = data.draw(st.sampled_from(instances))
        up = hit.state is InstanceState.READY
        hit.transition(InstanceState.SUSPECT if up else InstanceState.READY, "as the test wants", played.now)
        load = st.floats(0, 6)
        played.look(data.draw(load), data.draw(load))


def test_settings_out_of_range_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="least_prefill: 0 is not at least 1"):
        RoleSettings(least_prefill=0)
    with pytest.raises(ValueError, match=r"gain: 1\.0 is not below 1"):
        RoleSettings(gain=1.0)
    with pytest.raises(ValueError, match=r"delay_s: -1\.0 is not at least 0"):
        RoleSettings(delay_s=-1.0)
