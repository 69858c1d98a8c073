"""No text has fewer tokens than its bytes divided by the bound."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from scheduler_svc.tokenization.text_bound import bytes_per_token, least_words, one_word_per_token

CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    " " * 40,
    "日本語のテキスト",
    "def f(x):\n        return x",
] * 8
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
LEFT, VOWEL, TAIL = "\u1112", "\u1161", "\u11ab"  # three letters of nine bytes, which NFC makes one of three


def byte_level(normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    tokenizer.add_special_tokens(["<|a_special_token_longer_than_all_others_of_this_tiny_vocabulary|>"])
    return tokenizer


def sentence_piece() -> Tokenizer:
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + [SPACE, *"abcdefgh", SPACE + "a"]
    vocabulary = {piece: number for number, piece in enumerate(["<unk>", *pieces])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [(SPACE, "a")], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.ByteFallback()
    return tokenizer


BOUNDED = {"bytes": byte_level(), "composed": byte_level(normalizers.NFC()), "pieces": sentence_piece()}


@pytest.mark.parametrize("name", BOUNDED)
@given(st.text(max_size=60) | st.text(alphabet=f" a{LEFT}{VOWEL}{TAIL}", max_size=60))
@settings(deadline=None, max_examples=150)
def test_a_text_has_at_least_so_many_tokens(name: str, text: str) -> None:
    tokenizer = BOUNDED[name]
    bound = bytes_per_token(tokenizer)
    assert bound is not None
    assert len(tokenizer.encode(text, add_special_tokens=False).ids) * bound >= len(text.encode(errors="replace"))


def test_the_longest_tokens_count() -> None:
    special = "<|a_special_token_longer_than_all_others_of_this_tiny_vocabulary|>"
    assert bytes_per_token(byte_level()) == len(special)
    assert bytes_per_token(byte_level(normalizers.NFC())) == 3 * len(special)
    assert bytes_per_token(sentence_piece()) == len("<0x00>")


def test_where_a_text_may_lose_characters_there_is_no_bound() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    assert bytes_per_token(words) is None, "a word of any length is one unknown token"
    assert bytes_per_token(byte_level(normalizers.NFKC())) is None
    assert bytes_per_token(byte_level(normalizers.Replace("x", ""))) is None
    assert bytes_per_token(byte_level(normalizers.Strip())) is None
    swallowing = byte_level()
    swallowing.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    assert bytes_per_token(swallowing) is None


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOUNDED)
@given(st.text(alphabet="ab \n\u00a0\u3000<|_", max_size=60) | st.lists(st.text(max_size=5)).map(" ".join))
@settings(deadline=None, max_examples=150)
def test_a_text_has_at_least_as_many_tokens_as_words(name: str, text: str) -> None:
    tokenizer = BOUNDED[name]
    assert one_word_per_token(tokenizer)
    assert len(tokenizer.encode(text, add_special_tokens=False).ids) >= least_words(text, 10**9)


def test_a_token_of_two_words_takes_the_bound_away() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("New York", normalized=False)])
    assert not one_word_per_token(tokenizer)


@given(st.lists(st.sampled_from(["word", "x" * 70_000, "  ", " "])).map("".join))
@settings(deadline=None, max_examples=100)
def test_words_are_counted_slice_by_slice(text: str) -> None:
    assert least_words(text, 10**9) == len(text.replace(" ", " ").split())


def test_counting_stops_when_there_are_enough() -> None:
    assert 1_000 < least_words("a " * 10**6, 1_000) < 100_000
