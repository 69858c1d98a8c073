"""Text is a function of the tokens: not of how they were cut into steps, nor of where an attempt broke off."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from executor_svc.engine.simulated.tokenizer import EOS_ID, FIRST_WORD_ID, tokenizer_for
from executor_svc.runtime.messages.commands import TextOptions
from executor_svc.runtime.text.detokenizer import PENDING_LIMIT, Detokenizer, special_token_ids

BYTE_LEVEL = tokenizer_for(2048)
SPECIAL = special_token_ids(BYTE_LEVEL)
EURO = list("€".encode())  # byte-level ids 0-255 are bytes

any_tokens = st.lists(
    st.one_of(st.integers(0, 255), st.integers(FIRST_WORD_ID, 2047), st.sampled_from(sorted(SPECIAL))), max_size=40
)
some_text = st.text(st.characters(codec="utf-8"), max_size=30)
cut_points = st.lists(st.integers(0, 40), max_size=6)


def sentencepiece_like() -> Tokenizer:
    """Words carry their leading space, bytes stand in for what is not in the vocabulary."""
    words = ["<s>", "</s>", "▁he", "▁said", "llo", "▁", "a", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    return tokenizer


def detokenizer(stop: Sequence[str] = (), **options: bool | int) -> Detokenizer:
    return Detokenizer(BYTE_LEVEL, SPECIAL, TextOptions(stop=tuple(stop), **options))  # type: ignore[arg-type]


def whole_text(tokens: Sequence[int], stop: Sequence[str] = (), **options: bool | int) -> tuple[str, str | None]:
    text = detokenizer(stop, **options)
    match = text.feed(tokens)
    return text.take() + ("" if match else text.finish()), match.stop if match else None


def chunks(tokens: Sequence[int], cuts: Sequence[int]) -> list[Sequence[int]]:
    edges = sorted({0, len(tokens), *(min(cut, len(tokens)) for cut in cuts)})
    return [tokens[start:end] for start, end in pairwise(edges)]


@given(some_text)
def test_text_comes_back_as_it_was_encoded(text: str) -> None:
    tokens = BYTE_LEVEL.encode(text, add_special_tokens=False).ids
    got, _ = whole_text(tokens)
    if "\ufffd" not in text and not any(special in text for special in ("<|pad|>", "<|im_start|>", "<|im_end|>")):
        assert got == text


@given(any_tokens, cut_points, st.lists(st.text("ab é€", min_size=1, max_size=4), max_size=3))
def test_how_tokens_are_cut_into_steps_makes_no_difference(tokens: list[int], cuts: list[int], stop: list[str]) -> None:
    text = detokenizer(stop)
    got, matched = "", None
    for chunk in chunks(tokens, cuts):
        match = text.feed(chunk)
        got += text.take()
        if match:
            matched = match.stop
            break
    assert (got + ("" if matched else text.finish()), matched) == whole_text(tokens, stop)


@given(any_tokens, st.data(), st.lists(st.text("ab é€\ufffd", min_size=1, max_size=4), max_size=3))
def test_a_primed_detokenizer_goes_on_where_the_first_one_broke_off(
    tokens: list[int], data: st.DataObject, stop: list[str]
) -> None:
    cut = data.draw(st.integers(0, len(tokens)))
    first = detokenizer(stop)
    if first.feed(tokens[:cut]):
        return  # complete before the seam
    delivered = first.take()

    second = detokenizer(stop)
    assert second.prime(tokens[:cut], len(delivered)) is None
    match = second.feed(tokens[cut:])
    after = second.take() + ("" if match else second.finish())
    assert (delivered + after, match.stop if match else None) == whole_text(tokens, stop)


def test_a_character_split_over_tokens_comes_whole_with_its_last_token() -> None:
    text = detokenizer()
    for byte in EURO[:-1]:
        text.feed([byte])
        assert text.take() == ""
    text.feed([EURO[-1]])
    assert text.take() == "€"


def test_an_unfinished_character_at_the_end_is_left_out() -> None:
    assert whole_text([*b"ab", *EURO[:2]]) == ("ab", None)


def test_bytes_that_are_no_character_become_replacement_characters_in_the_middle() -> None:
    assert whole_text([0x80, *b"a"]) == ("\ufffda", None)


def test_endless_invalid_bytes_are_not_held_forever() -> None:
    text = detokenizer()
    text.feed([0x80] * (PENDING_LIMIT - 1))
    assert text.take() == ""
    text.feed([0x80])
    assert text.take() == "\ufffd" * PENDING_LIMIT


def test_special_tokens_are_skipped_or_shown_as_asked() -> None:
    assert whole_text([*b"a", EOS_ID, *b"b"]) == ("ab", None)
    assert whole_text([*b"a", EOS_ID, *b"b"], skip_special_tokens=False) == ("a<|im_end|>b", None)


def test_token_ids_without_a_word_are_passed_over() -> None:
    assert whole_text([*b"a", 60_000, *b"b"]) == ("ab", None)


@pytest.mark.parametrize("cut", range(7))
def test_words_with_leading_spaces_join_across_any_seam(cut: int) -> None:
    tokenizer = sentencepiece_like()
    special = special_token_ids(tokenizer)
    pieces = ("▁he", "llo", "▁said", *(f"<0x{byte:02X}>" for byte in "€".encode()))
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary[piece] for piece in pieces]
    first = Detokenizer(tokenizer, special, TextOptions())
    first.feed(ids[:cut])
    delivered = first.take()
    second = Detokenizer(tokenizer, special, TextOptions())
    second.prime(ids[:cut], len(delivered))
    second.feed(ids[cut:])
    assert delivered + second.take() == "hello said€"


def test_text_that_was_delivered_beyond_what_is_certain_is_not_given_twice() -> None:
    text = detokenizer()
    text.prime(list(b"ab"), text_length=3)
    text.feed(list(b"cd"))
    assert text.take() == "d"


def test_text_that_was_not_delivered_with_its_tokens_is_made_up_for() -> None:
    text = detokenizer()
    text.prime(list(b"abc"), text_length=1)
    assert text.take() == "bc"


def test_a_stop_string_found_while_priming_says_that_the_output_was_complete() -> None:
    match = detokenizer(["bc"]).prime(list(b"abc"), text_length=1)
    assert match is not None
    assert (match.stop, match.consumed) == ("bc", 3)


def test_tokens_after_the_stop_string_are_not_consumed() -> None:
    text = detokenizer(["b"])
    match = text.feed(list(b"abcd"))
    assert match is not None
    assert match.consumed == 2
    assert text.take() == "a"
