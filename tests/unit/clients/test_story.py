"""``sagectl explain``: a request's story in time order, and a bar per phase."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console

from sage.controlplane.v1 import admin_pb2, decision_pb2
from sage_client import (
    Candidate,
    Decision,
    Explanation,
    HistoryEntry,
    RequestState,
    SloResult,
    TimeSlice,
    TimeUse,
)
from sage_client._decode import decision as decode_decision
from sage_client._decode_admin import explanation as decode_explanation
from sagectl.output.bars import FULL, span_bar
from sagectl.output.story import story


def decision(instance_id: str, **fields: object) -> Decision:
    bare = decode_decision(decision_pb2.Decision(instance_id=instance_id, policy="slo_aware"))
    return replace(bare, **fields)  # type: ignore[arg-type]


def told(**fields: object) -> Explanation:
    bare = decode_explanation(admin_pb2.ExplainResponse(request_id="r", model="tiny"))
    return replace(bare, **fields)  # type: ignore[arg-type]


def shown(explanation: Explanation, width: int = 140) -> list[str]:
    written = StringIO()
    Console(file=written, width=width, highlight=False).print(story(explanation))
    return [line.rstrip() for line in written.getvalue().splitlines()]


SPLIT = told(
    state=RequestState.FINISHED,
    prompt_tokens=1_024,
    completion_tokens=40,
    slo=(SloResult(target="ttft", wanted_s=0.5, measured_s=0.31, met=True),),
    decisions=(
        decision(
            "d1",
            prefill_instance_id="p1",
            phase_reason="1024 prompt tokens, threshold 600",
            reasons=("decode: earliest predicted finish 0.00 s",),
            waited_s=0.1,
            queue_length=3,
            reserved_tokens=1_072,
            candidates=(
                Candidate(instance_id="e1", chosen=False, filtered_by="decode_leg", filter_reason="is general"),
                Candidate(instance_id="d1", chosen=True, filtered_by="", filter_reason="", scores={"start_s": 0.25}),
            ),
        ),
    ),
    history=(
        HistoryEntry(at_s=0.0, event="accepted", detail="1024 prompt tokens for tiny"),
        HistoryEntry(at_s=0.0, event="queued", detail="3 others wait"),
        HistoryEntry(at_s=0.1, event="placed", detail="prefill on p1, decode on d1: ..."),
        HistoryEntry(at_s=0.3, event="prefilled", detail="on p1; d1 fetches"),
        HistoryEntry(at_s=0.31, event="first_token", detail="from d1"),
        HistoryEntry(at_s=0.5, event="finished", detail="length"),
    ),
    time_slices=(
        TimeSlice(use=TimeUse.QUEUE, start_s=0.0, length_s=0.1, instance_id=""),
        TimeSlice(use=TimeUse.PREFILL, start_s=0.1, length_s=0.2, instance_id="p1"),
        TimeSlice(use=TimeUse.TRANSFER, start_s=0.3, length_s=0.01, instance_id="d1"),
        TimeSlice(use=TimeUse.DECODE, start_s=0.31, length_s=0.19, instance_id="d1"),
    ),
)


def test_a_split_request_from_its_arrival_to_its_end() -> None:
    assert shown(SPLIT) == [
        "r: finished (tiny, normal, 1024 prompt + 40 output tokens)",
        "targets: ttft 0.310 s of 0.5 s met",
        "",
        "0.000 s  accepted     1024 prompt tokens for tiny",
        "0.000 s  queued       3 others wait",
        "0.100 s  placed       decision 1: prefill on p1, decode on d1",
        "                      0.100 s after arrival; slo_aware decided; 3 left waiting",
        "                      - decode: earliest predicted finish 0.00 s",
        "                      - split: 1024 prompt tokens, threshold 600",
        "                      predicted: start 0.000 s, first token 0.000 s, finish 0.000 s, 0 output tokens,"
        " cost 0; 1072 KV tokens reserved",
        "                      candidate  start_s  filtered because",
        "                      ▸ d1          0.25",
        "                        e1                decode_leg: is general",
        "0.300 s  prefilled    on p1; d1 fetches",
        "0.310 s  first token  from d1",
        "0.500 s  finished     length",
        "",
        "where the time went: 0.500 s",
        "queue         0.100 s  20%  ██████",
        "prefill   p1  0.200 s  40%        █████████████",
        "transfer  d1  0.010 s   2%                     █",
        "decode    d1  0.190 s  38%                      ████████████",
    ]


def test_time_lost_to_failed_attempts_is_summed_up() -> None:
    slices = (
        TimeSlice(use=TimeUse.LOST, start_s=0.0, length_s=1.0, instance_id="a"),
        TimeSlice(use=TimeUse.QUEUE, start_s=1.0, length_s=0.5, instance_id=""),
        TimeSlice(use=TimeUse.LOST, start_s=1.5, length_s=0.5, instance_id="b"),
    )
    assert shown(replace(SPLIT, time_slices=slices))[-1] == "in all: lost 1.500 s, queue 0.500 s"


def test_one_that_waits_says_where_and_why() -> None:
    waiting = told(
        state=RequestState.QUEUED, queue_position=4, ordering_key="arrival", waiting_because="all 2 instances full"
    )
    assert shown(waiting)[1:3] == ["position 4 in the queue, ordered by arrival", "waits because: all 2 instances full"]


def test_one_that_failed_says_how() -> None:
    failed = told(state=RequestState.FAILED, error="every attempt failed")
    assert shown(failed)[:2] == [
        "r: failed (tiny, normal, 0 prompt + 0 output tokens)",
        "ended with: every attempt failed",
    ]


def test_of_many_candidates_the_chosen_one_and_those_compared_are_shown() -> None:
    many = tuple(
        Candidate(instance_id=f"e{n}", chosen=n == 99, filtered_by="" if n > 90 else "room", filter_reason="full")
        for n in range(100)
    )
    text = "\n".join(shown(replace(SPLIT, decisions=(decision("e99", candidates=many),))))
    assert "▸ e99" in text
    assert "e91" in text
    assert "and 84 more (--json has all)" in text


def test_cached_tokens_have_a_column_where_a_candidate_holds_any() -> None:
    two = tuple(
        Candidate(instance_id=f"e{n}", chosen=n == 0, filtered_by="", filter_reason="", cached_tokens=n * 512)
        for n in range(2)
    )
    text = shown(replace(SPLIT, decisions=(decision("e0", candidates=two),)))

    assert any("cached tokens" in line for line in text)
    assert any("e1" in line and "512" in line for line in text)
    assert not any("cached tokens" in line for line in shown(SPLIT))


def test_decisions_of_a_history_cut_short_are_shown_all_the_same() -> None:
    cut = replace(SPLIT, history=SPLIT.history[:2])
    assert "decision 1: prefill on p1, decode on d1" in "\n".join(shown(cut))


def test_whatever_took_time_has_a_bar_within_the_whole() -> None:
    assert span_bar(0.999, 0.001, 20, "").plain == " " * 19 + FULL
    assert span_bar(0.5, 1e-9, 20, "").plain.strip() == FULL
    assert span_bar(0.0, 0.0, 20, "").plain == ""
