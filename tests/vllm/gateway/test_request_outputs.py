"""The fleet's output in the form of vLLM's engine."""

from __future__ import annotations

from typing import Any

import pytest

from sage_client import FinishReason, PromptRead, TokenLogprob
from sage_gateway.output_collector import Piece

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]  # vLLM warns when it is imported


class Ended:
    """As much of ``Finished`` as is read."""

    finish_reason = FinishReason.LENGTH
    stop_string = None
    stop_token_id = None

    class usage:
        cached_prompt_tokens = 0


ENDED: Any = Ended()


def outputs(kind: str, **options: Any) -> Any:
    from vllm.sampling_params import RequestOutputKind

    from sage_gateway.vllm_server.request_outputs import RequestOutputs

    return RequestOutputs("r", None, [1], kind=RequestOutputKind[kind], **{"choices": 1, **options})


def candidate(token_id: int) -> TokenLogprob:
    return TokenLogprob(token_id=token_id, logprob=-1.0, rank=1)


def test_an_end_without_tokens_has_a_list_of_no_logprobs() -> None:
    """vLLM's server takes None for an engine that forgot them, and breaks the stream off."""
    made = outputs("DELTA", logprobs=True)
    made.of([Piece(0, token_ids=[5], texts=["a"], logprobs=[(candidate(5),)])], over=False)
    [end] = made.of([Piece(0, finished=ENDED)], over=True).outputs
    assert (end.logprobs, end.finish_reason) == ([], "length")


def test_without_logprobs_there_is_no_list() -> None:
    [end] = outputs("DELTA").of([Piece(0, token_ids=[5], texts=["a"], finished=ENDED)], over=True).outputs
    assert end.logprobs is None


def test_all_logprobs_are_in_the_whole_output() -> None:
    made = outputs("FINAL_ONLY", logprobs=True)
    for token in (5, 6):
        assert made.of([Piece(0, token_ids=[token], texts=["a"], logprobs=[(candidate(token),)])], over=False) is None
    [end] = made.of([Piece(0, finished=ENDED)], over=True).outputs
    assert ([list(each) for each in end.logprobs], end.cumulative_logprob) == ([[5], [6]], -2.0)


@pytest.mark.parametrize(("eos", "reason"), [(2, None), (3, 2), (None, 2)])
def test_the_end_of_text_is_no_reason_to_name(eos: int | None, reason: int | None) -> None:
    stopped: Any = Ended()
    stopped.finish_reason, stopped.stop_token_id = FinishReason.STOP, 2
    [end] = outputs("FINAL_ONLY", eos=eos).of([Piece(0, token_ids=[2], finished=stopped)], over=True).outputs
    assert (end.finish_reason, end.stop_reason) == ("stop", reason)


def test_log_probabilities_have_their_tokens_texts() -> None:
    made = outputs("DELTA", logprobs=True, token_texts=lambda ids, before: [f"<{each}>" for each in ids])
    [one] = made.of([Piece(0, token_ids=[5], texts=["a"], logprobs=[(candidate(5), candidate(6))])], over=False).outputs
    assert [(i, each.decoded_token) for i, each in one.logprobs[0].items()] == [(5, "<5>"), (6, "<6>")]


def test_the_text_of_a_token_may_need_those_before() -> None:
    """A few, of its own choice; those of the prompt begin anew."""
    seen: list[list[int]] = []

    def texts(ids: list[int], before: list[int]) -> list[str]:
        seen.append(list(before))
        return [""] * len(ids)

    made = outputs("DELTA", logprobs=True, choices=2, token_texts=texts)
    rows: list[tuple[TokenLogprob, ...]] = [(candidate(token),) for token in range(1, 7)]
    made.of([Piece(0, logprobs=rows)], over=False)
    made.of([Piece(1, logprobs=rows[:1])], over=False)
    made.of([Piece(0, logprobs=rows[:1])], over=False)
    assert seen == [[], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [], [3, 4, 5, 6]]


def test_what_is_known_of_the_prompt_comes_once_in_a_stream() -> None:
    prompt = PromptRead(choice=0, cached_tokens=16, logprobs=((), (candidate(5), candidate(6))))
    made = outputs("DELTA")
    first, second = [made.of([Piece(0, token_ids=[5])], over=False, prompt=prompt) for _ in range(2)]
    assert first.num_cached_tokens == second.num_cached_tokens == 16
    assert [list(row or ()) for row in first.prompt_logprobs] == [[], [5, 6]]
    assert second.prompt_logprobs is None
