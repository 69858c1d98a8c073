"""``sagectl top``: what a frame shows, and what it leaves out where there is no room."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.text import Text

from sage_client import FleetSnapshot, FleetStretch, InstanceState, Percentiles
from sagectl.output.durations import duration
from sagectl.top.frame import Choices, ConnectionState, frame
from sagectl.top.section import Section, fit
from sagectl.top.sorting import SortBy, chosen_by
from tests.unit.clients.fleet_snapshots import counts, decision, instance, prefill_decode, snapshot, splitting

HERE = ConnectionState(address="127.0.0.1:50051")


def lines(
    shown: FleetSnapshot | None, width: int = 80, height: int | None = 24, connection: ConnectionState = HERE
) -> list[str]:
    return [line.plain.rstrip() for line in frame(shown, connection, width, height)]


def test_the_essence_in_80_columns_and_24_lines() -> None:
    found = lines(snapshot())
    assert found == [
        "SAGE 127.0.0.1:50051  up 1.0h                        policy adaptive → slo_aware",
        "10.0 requests/s  1,537 tokens/s  12 running  3 waiting  11.0 arriving/s",
        "SLO 5 min 99.9%  since start 90.0%  critical 100%  normal 99.9%",
        "5 min: 2049 finished  1 failed  0 expired  4 refused  0 cancelled  2 failovers",
        "INSTANCE         ROLE       STATE       KV                  RUN  WAIT  TOKENS/S",
        "executor-1       general    ready       ██▒▒▒▒····  60%     4/8     1       512",
        "executor-2       general    ready       ██▒▒▒▒····  60%     4/8     1       512",
        "executor-3       general    ready       ██▒▒▒▒····  60%     4/8     1       512",
        "QUEUE                  WAITING BY CLASS",
        "tiny                   3/10000 high 1, normal 2",
        "PREFILL/DECODE threshold  120 split  3 fallbacks  pairs: 1 usable, 1 failed",
        "! no prefill instance of 'other' is ready",
        "  p1 → d2: failed, nothing to fetch",
        "  p1 → d1: usable, handoff 0.028 s",
        "   AGO FAILOVER      CAUSE          WHY",
        "    1s f-1           lost           executor-9 was lost",
        "    2s f-2           lost           executor-9 was lost",
        "    3s f-3           lost           executor-9 was lost",
        "    4s f-4           lost           executor-9 was lost",
        "   AGO REQUEST       POLICY         PHASE  WHERE              WHY",
        "    1s r-1           slo_aware      whole  executor-1         uses 40% of its t…",
        "    2s r-2           slo_aware      whole  executor-1         uses 40% of its t…",
        "    3s r-3           slo_aware      whole  executor-1         uses 40% of its t…",
        "… and 37 more",
    ]


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 250])
@pytest.mark.parametrize("height", [1, 3, 6, 10, 16, 24, 50, None])
def test_it_never_is_larger_than_the_screen(width: int, height: int | None) -> None:
    many = snapshot(instances=tuple(instance(f"a-rather-long-name-of-executor-{n}") for n in range(30)))
    found = frame(many, HERE, width, height)
    assert height is None or len(found) <= height
    assert max(line.cell_len for line in found) <= width


def test_a_taller_screen_shows_more_decisions_and_a_wider_one_more_columns() -> None:
    assert "r-30" not in "\n".join(lines(snapshot(), 80, 24))
    assert "r-30" in "\n".join(lines(snapshot(), 80, 60))
    wide = "\n".join(lines(snapshot(), 160, 24))
    assert "6,000/10,000" in wide
    assert "1.5 tiny" in wide


def test_instances_that_need_a_look_stay_where_not_all_fit_and_say_why() -> None:
    lost = instance("zz", state=InstanceState.LOST, state_reason="its lease ended", assigned=0)
    loading = instance("yy", state=InstanceState.LOADING, progress=0.45, state_reason="weights", assigned=0)
    draining = instance("xx", state=InstanceState.DRAINING, state_reason="maintenance", assigned=3)
    ready = tuple(instance(f"executor-{n}") for n in range(30))
    found = "\n".join(lines(snapshot(instances=(*ready, draining, loading, lost)), 80, 24))
    assert "zz               general    lost        its lease ended (1m15s)" in found
    assert "yy               general    loading 45% weights (1m15s)" in found
    assert "xx               general    draining    3 in flight; maintenance (1m15s)" in found
    assert "executor-0 " in found
    assert "executor-29" not in found


def test_a_long_state_is_not_cut() -> None:
    slow = instance("xx", state=InstanceState.DOWNLOADING, progress=0.4, state_reason="of the hub", assigned=0)
    assert "xx               general    downloading 40% of the hub (1m15s)" in lines(snapshot(instances=(slow,)))


def test_a_split_decision_names_both_instances() -> None:
    split = decision(1, prefill_instance_id="p1", instance_id="d1", reason="decode: fullest")
    assert "split  p1→d1" in "\n".join(lines(snapshot(decisions=(split,))))


def test_prefill_decode_takes_no_room_where_it_is_off() -> None:
    assert "PREFILL/DECODE" not in "\n".join(lines(snapshot(prefill_decode=prefill_decode())))


def test_pairs_are_counted_whether_they_are_shown_or_not() -> None:
    many = replace(splitting(), pairs_by_state={"failed": 1, "usable": 9_999})
    assert "pairs: 9,999 usable, 1 failed" in "\n".join(lines(snapshot(prefill_decode=many)))


def test_an_empty_fleet_is_shown_too() -> None:
    nothing = snapshot(
        instances=(),
        queues=(),
        decisions=(),
        failovers=(),
        latest=counts(0.0),
        recent=counts(0.0),
        since_start=counts(0.0),
        prefill_decode=prefill_decode(),
    )
    assert lines(nothing)[1:3] == [
        "0.0 requests/s  0 tokens/s  12 running  3 waiting  0.0 arriving/s",
        "SLO 5 min –  since start –",
    ]


def test_less_than_all_is_never_shown_as_all() -> None:
    assert "normal 99.9%" in lines(snapshot())[2]
    assert "normal 100%" not in lines(snapshot())[2]


def test_while_the_scheduler_is_gone_the_old_picture_stays_and_says_so() -> None:
    gone = ConnectionState(address="127.0.0.1:50051", trouble="connection refused", age_s=12.0)
    found = lines(snapshot(), connection=gone)
    assert found[:2] == ["reconnecting to 127.0.0.1:50051; data is 12 s old", "connection refused"]
    assert found[2:20] == lines(snapshot())[1:19]
    assert lines(None, connection=gone) == ["connecting to 127.0.0.1:50051", "connection refused"]
    assert lines(None) == ["connecting to 127.0.0.1:50051"]


def test_the_cause_of_a_lost_connection_is_shown_whole() -> None:
    cause = "TLS: the certificate of the scheduler is signed by an authority that --tls-ca does not name, or has ended"
    found = lines(snapshot(), connection=ConnectionState(address="10.0.0.7:50051", trouble=cause, age_s=1.0))
    assert " ".join(found[1:3]) == cause


def stretch(accepted: int, first_token_s: float | None) -> FleetStretch:
    return FleetStretch(accepted=accepted, ended=accepted, output_tokens=9, time_to_first_token_p95_s=first_token_s)


def test_latency_and_the_last_minutes_have_a_line_each() -> None:
    recent = counts(
        time_to_first_token=Percentiles(requests=9, p50_s=0.012, p95_s=0.24, p99_s=0.53),
        time_per_output_token=Percentiles(requests=9, p50_s=0.0058, p95_s=0.0064, p99_s=0.0077),
        total=Percentiles(requests=9, p50_s=0.32, p95_s=2.5, p99_s=12.0),
    )
    history = tuple(stretch(number, None if number < 2 else number / 10) for number in range(9))
    found = lines(snapshot(recent=recent, history=history))
    assert found[4] == "p50/95/99  TTFT 12/240/530 ms  per token 5.8/6.4/7.7 ms  in all 0.3/2.5/12 s"
    assert found[5] == "5 min  arriving ▁▂▃▄▅▅▆▇█ 1.6/s  TTFT p95   ▃▄▅▅▆▇█ 800 ms"


def test_a_key_sorts_the_instances_and_marks_the_column() -> None:
    fleet = (instance("a", running=1), instance("b", running=7), instance("c", state=InstanceState.LOST))
    by_run = frame(snapshot(instances=fleet), HERE, 80, 24, Choices(sort_by=SortBy.RUN))
    found = [line.plain for line in by_run]
    [title] = [line for line in found if line.startswith("INSTANCE")]
    assert "RUN▾" in title
    rows = found[found.index(title) + 1 :]
    assert [row.split()[0] for row in rows[:3]] == ["c", "b", "a"]


def test_the_last_of_several_keys_chooses_and_others_change_nothing() -> None:
    assert chosen_by("kw", SortBy.ID) is SortBy.WAIT
    assert chosen_by("x\x1b[A", SortBy.KV) is SortBy.KV


def test_the_keys_are_listed_on_request() -> None:
    assert frame(snapshot(), HERE, 80, 24, Choices(help=True))[0].plain.startswith("keys: sort by i id")


def section(name: str, count: int, least: int) -> Section:
    return Section(title=Text(name.upper()), lines=[Text(f"{name}{n}") for n in range(count)], least=least)


def test_sections_get_their_least_first_and_the_rest_in_their_order() -> None:
    first, second = section("a", 5, 2), section("b", 5, 2)
    plain = [line.plain for line in fit([first, second], 8)]
    assert plain == ["A", "a0", "a1", "a2", "… and 2 more", "B", "b0", "… and 4 more"]


def test_a_section_without_room_goes_as_a_whole() -> None:
    assert [line.plain for line in fit([section("a", 2, 2), section("b", 5, 2)], 4)] == ["A", "a0", "a1"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0s"), (59.9, "59s"), (61, "1m01s"), (599, "9m59s"), (3_599, "59m"), (5_400, "1.5h"), (400_000, "5d")],
)
def test_durations_in_a_few_characters(seconds: float, said: str) -> None:
    assert duration(seconds) == said
