"""What `sagectl generate -v` prints: text on stdout, notes on stderr, none within another choice's text."""

from __future__ import annotations

import pytest

import sage_client as sage
from sage_client._events import new_tokens
from sagectl.output.events import write
from sagectl.output.formats import Output

ATTEMPT = sage.Attempt(epoch=1, number=1)


def tokens(choice: int, text: str) -> sage.Tokens:
    return new_tokens(
        attempt=ATTEMPT, choice=choice, first_index=0, token_ids=(1,), text_offset=0, text=text, logprobs=()
    )


def finished(count: int) -> sage.Finished:
    return sage.Finished(
        finish_reason=sage.FinishReason.LENGTH,
        stop_string=None,
        stop_token_id=None,
        usage=sage.Usage(prompt_tokens=1, completion_tokens=count, cached_prompt_tokens=0),
        timings=sage.Timings(
            queue_s=None, time_to_first_token_s=None, prefill_s=None, transfer_s=None, decode_s=None, total_s=None
        ),
        attempts=1,
        cost=0.0,
        slo=(),
    )


def test_notes_of_choices_stand_behind_the_text_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    stream: list[sage.Event] = [
        tokens(0, "a cat"),
        tokens(1, "a dog"),
        sage.ChoiceFinished(choice=1, finished=finished(2)),
        tokens(0, " sat"),
        sage.ChoiceFinished(choice=0, finished=finished(3)),
        finished(5),
    ]
    write(stream, Output(), verbose=True)
    out, err = capsys.readouterr()
    assert out == "a cat sat\n\n[choice 1]\na dog\n"
    assert [line.partition(",")[0] for line in err.splitlines()] == [
        "[choice 0: length after 3 tokens",
        "[choice 1: length after 2 tokens",
        "[length after 5 tokens",
    ]
