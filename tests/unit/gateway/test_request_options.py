"""The options of a request that are ours, from headers and from the body."""

from __future__ import annotations

from typing import Any

import pytest

from sage_client import NoInstance, Priority, ResumeMode
from sage_gateway.http_headers import HttpHeaders
from sage_gateway.request_options import OptionError, RequestOptions, read_options


def test_without_any_there_is_nothing_for_the_sdk() -> None:
    assert read_options({}, {"model": "m"}) == RequestOptions()
    assert read_options({}).for_sdk() == {}


def test_headers_fill_all_options() -> None:
    options = read_options(
        {
            "x-sage-priority": "HIGH",
            "x-sage-deadline": "2.5",
            "x-sage-ttft-target": "0.1",
            "x-sage-tpot-target": "0.02",
            "x-sage-cost-budget": "1",
            "x-sage-session": "talk",
            "x-sage-request-id": "r1",
            "x-sage-tenant": "team",
            "x-sage-resume-mode": "best_effort",
            "x-sage-no-instance": "wait",
            "x-sage-preferred-instance": "e1",
            "x-sage-report": "1",
        }
    )
    assert (options.request_id, options.report) == ("r1", True)
    assert options.for_sdk() == {
        "priority": Priority.HIGH,
        "deadline": 2.5,
        "ttft_target": 0.1,
        "tpot_target": 0.02,
        "cost_budget": 1.0,
        "session": "talk",
        "tenant": "team",
        "resume_mode": ResumeMode.BEST_EFFORT,
        "no_instance": NoInstance.WAIT,
        "preferred_instance": "e1",
    }


def test_the_body_counts_before_a_header() -> None:
    options = read_options({"x-sage-deadline": "9", "x-sage-session": "a"}, {"sage": {"deadline": 3, "priority": 4}})
    assert (options.deadline, options.session, options.priority) == (3.0, "a", Priority.LOW)


def test_a_priority_in_a_header_may_be_a_number() -> None:
    assert read_options({"x-sage-priority": "1"}).priority is Priority.CRITICAL


def test_x_request_id_names_the_request_where_nothing_else_does() -> None:
    assert read_options({"x-request-id": "theirs"}).request_id == "theirs"
    assert read_options({"x-request-id": "theirs", "x-sage-request-id": "ours"}).request_id == "ours"


def test_headers_of_ours_that_are_no_options_are_ignored() -> None:
    assert read_options({"x-sage-instance": "e1"}) == RequestOptions()


@pytest.mark.parametrize(
    ("headers", "body", "name"),
    [
        ({"x-sage-deadline": "soon"}, {}, "x-sage-deadline"),
        ({"x-sage-deadline": "-1"}, {}, "x-sage-deadline"),
        ({"x-sage-deadline": "nan"}, {}, "x-sage-deadline"),
        ({"x-sage-deadline": "inf"}, {}, "x-sage-deadline"),
        ({"x-sage-priority": "urgent"}, {}, "x-sage-priority"),
        ({"x-sage-priority": "7"}, {}, "x-sage-priority"),
        ({"x-sage-no-instance": "ask"}, {}, "x-sage-no-instance"),
        ({}, {"sage": {"deadline": True}}, "sage.deadline"),
        ({}, {"sage": {"deadline": [1]}}, "sage.deadline"),
        ({}, {"sage": {"session": 3}}, "sage.session"),
        ({}, {"sage": {"report": 1}}, "sage.report"),
        ({"x-sage-report": "yes"}, {}, "x-sage-report"),
        ({}, {"sage": {"priority": None}}, "sage.priority"),
        ({}, {"sage": {"resume_mode": {}}}, "sage.resume_mode"),
        ({}, {"sage": {"dead_line": 3}}, "sage.dead_line"),
        ({}, {"sage": 5}, "sage"),
    ],
)
def test_a_wrong_value_names_its_place(headers: dict[str, str], body: dict[str, Any], name: str) -> None:
    with pytest.raises(OptionError) as caught:
        read_options(headers, body)
    assert caught.value.name == name


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([], ""),
        ([(b"Authorization", b"Bearer abc")], "abc"),
        ([(b"authorization", b"bearer  abc ")], "abc"),
        ([(b"authorization", b"Basic abc")], ""),
        ([(b"x-api-key", b"abc")], "abc"),
        ([(b"x-api-key", b"b"), (b"authorization", b"Bearer a")], "a"),
    ],
)
def test_the_callers_token(headers: list[tuple[bytes, bytes]], token: str) -> None:
    assert HttpHeaders(headers).token() == token
