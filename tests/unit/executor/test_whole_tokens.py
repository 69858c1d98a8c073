"""Looking a token's text up gives what decoding it after others gives."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from executor_svc.engine.simulated.tokenizer import FIRST_WORD_ID, tokenizer_for
from executor_svc.runtime.messages.commands import TextOptions
from executor_svc.runtime.text.detokenizer import Detokenizer, special_token_ids
from executor_svc.runtime.text.whole_tokens import WholeTokens
from tests.support.sentencepiece_tokenizer import llama_like, mistral_like

BYTE_LEVEL = tokenizer_for(2048)
SPECIAL = special_token_ids(BYTE_LEVEL)
EURO = list("€".encode())  # byte-level ids 0-255 are bytes

any_token = st.one_of(
    st.integers(0, 255), st.sampled_from(EURO), st.integers(FIRST_WORD_ID, 2047), st.sampled_from(sorted(SPECIAL))
)
some_tokens = st.lists(any_token, max_size=30)
some_steps = st.lists(st.lists(any_token, min_size=1, max_size=3), max_size=30)


def made(prompt: Sequence[int], *, looked_up: bool, stop: Sequence[str] = (), skip: bool = True) -> Detokenizer:
    whole = WholeTokens.of(BYTE_LEVEL, SPECIAL if skip else ()) if looked_up else None
    assert whole is not None or not looked_up
    options = TextOptions(stop=tuple(stop), skip_special_tokens=skip)
    return Detokenizer(BYTE_LEVEL, SPECIAL, options, prompt, whole)


@given(some_tokens, some_steps, st.booleans())
def test_every_step_has_the_text_that_decoding_gives(prompt: list[int], steps: list[list[int]], skip: bool) -> None:
    decoded, looked_up = (made(prompt, looked_up=way, skip=skip) for way in (False, True))
    assert [looked_up.push(step) for step in steps] == [decoded.push(step) for step in steps]
    assert looked_up.finish() == decoded.finish()


@example([], EURO[:1], [[FIRST_WORD_ID]])
@given(some_tokens, some_tokens, some_steps)
def test_tokens_that_are_fed_first_are_not_forgotten(prompt: list[int], fed: list[int], steps: list[list[int]]) -> None:
    decoded, looked_up = (made(prompt, looked_up=way) for way in (False, True))
    texts = []
    for each in (decoded, looked_up):
        each.feed(fed)
        texts.append([each.take(), *map(each.push, steps), each.finish()])
    assert texts[0] == texts[1]


@given(some_tokens, some_tokens, st.lists(st.sampled_from(["€", "a", "\ufffd", " w"]), max_size=2))
def test_stop_strings_are_found_at_the_same_token(prompt: list[int], output: list[int], stop: list[str]) -> None:
    decoded, looked_up = (made(prompt, looked_up=way, stop=stop) for way in (False, True))
    assert looked_up.feed(output) == decoded.feed(output)
    assert looked_up.take() == decoded.take()


@given(some_tokens, some_steps, some_tokens, st.integers(0, 60))
def test_delivered_text_is_not_pushed_again(
    prompt: list[int], steps: list[list[int]], delivered: list[int], length: int
) -> None:
    decoded, looked_up = (made(prompt, looked_up=way) for way in (False, True))
    decoded.prime(delivered, length)
    looked_up.prime(delivered, length)
    assert "".join(map(looked_up.push, steps)) == "".join(map(decoded.push, steps))


@pytest.mark.parametrize("tokenizer", [llama_like(), mistral_like()], ids=["llama", "mistral"])
def test_a_decoder_that_looks_at_other_tokens_looks_nothing_up(tokenizer: Tokenizer) -> None:
    assert WholeTokens.of(tokenizer) is None


def test_parts_of_characters_and_skipped_tokens_are_not_whole() -> None:
    whole = WholeTokens.of(BYTE_LEVEL, SPECIAL)
    assert whole is not None
    assert [whole[token_id] for token_id in (*EURO, *SPECIAL)] == [""] * (3 + len(SPECIAL))
    assert whole[ord("a")] == "a"
