"""Values of the SDK as plain dictionaries and JSON."""

from __future__ import annotations

import json
from array import array
from datetime import UTC, datetime

import pytest

import sage_client
from sage_client import Attempt, Embeddings, Priority, Tokens, Usage, plain

RETURNED = ["Completion", "PartialOutput", "Explanation", "FleetView", "FleetSnapshot", "PolicyStatus", "Decision"]
RETURNED += ["UsageRecord", "UsageSum", "JournalStatus", "JournalCompaction"]


def test_enum_members_become_words_and_tuples_lists() -> None:
    length = sage_client.FinishReason.LENGTH
    assert plain({"a": (Priority.HIGH, length), 1: None}) == {"a": ["high", "length"], "1": None}


def test_points_in_time_become_iso_8601() -> None:
    assert plain([datetime(2026, 1, 31, 12, tzinfo=UTC)]) == ["2026-01-31T12:00:00+00:00"]


def test_an_event_becomes_a_dictionary_and_a_json_line() -> None:
    attempt = Attempt(epoch=1, number=2)
    event = Tokens(attempt=attempt, choice=0, first_index=0, token_ids=(7,), text_offset=0, text="é", logprobs=())

    assert event.to_dict()["attempt"] == {"epoch": 1, "number": 2}
    assert event.to_dict()["token_ids"] == [7]
    assert "é" in event.to_json()
    assert "\n" not in event.to_json()
    assert json.loads(event.to_json(indent=2)) == event.to_dict()


def test_vectors_become_lists_of_numbers() -> None:
    usage = Usage(prompt_tokens=1, completion_tokens=0, cached_prompt_tokens=0)
    vectors = Embeddings(request_id="r", model="m", vectors=(array("f", [0.5, 1.0]),), usage=usage, cost=0.0)

    assert vectors.to_dict()["vectors"] == [[0.5, 1.0]]


@pytest.mark.parametrize("name", RETURNED)
def test_what_calls_return_can_be_written_down(name: str) -> None:
    assert callable(getattr(sage_client, name).to_json)
