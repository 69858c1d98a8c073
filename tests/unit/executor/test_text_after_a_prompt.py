"""The text of an output is what it adds to its prompt's: no space lost, nothing of the prompt repeated."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from executor_svc.engine.simulated.tokenizer import tokenizer_for
from executor_svc.runtime.messages.commands import TextOptions
from executor_svc.runtime.text.detokenizer import PENDING_LIMIT, Detokenizer, special_token_ids
from tests.support.sentencepiece_tokenizer import TEXTS, llama_like, mistral_like

TOKENIZERS = {"llama": llama_like(), "mistral": mistral_like(), "byte level": tokenizer_for(2048)}
REPLACEMENT = "\ufffd"


def after(tokenizer: Tokenizer, prompt: Sequence[int], output: Sequence[int]) -> str:
    text = Detokenizer(tokenizer, special_token_ids(tokenizer), TextOptions(), prompt)
    text.feed(output)
    return text.take() + text.finish()


def token(tokenizer: Tokenizer, piece: str) -> int:
    found = tokenizer.token_to_id(piece)
    assert found is not None
    return found


def byte(tokenizer: Tokenizer, value: int) -> int:
    found = tokenizer.token_to_id(f"<0x{value:02X}>")
    return value if found is None else found


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_prompt_and_output_join_to_the_whole_text_at_every_token(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    whole = tokenizer.decode(ids)
    for cut in range(len(ids)):
        before = tokenizer.decode(ids[:cut])
        if not whole.startswith(before):
            if REPLACEMENT in text:
                continue  # half of one that was really written cannot be told from a stray byte
            # An unfinished character at the prompt's end belongs to the output that finishes it.
            ends = (tokenizer.decode(ids[:end]) for end in range(cut, -1, -1))
            before = next(end for end in ends if not end.endswith(REPLACEMENT))
        assert before + after(tokenizer, ids[:cut], ids[cut:]) == whole


def test_the_first_space_is_kept() -> None:
    tokenizer = llama_like()
    prompt = tokenizer.encode("Once upon", add_special_tokens=False).ids
    assert after(tokenizer, prompt, [token(tokenizer, "▁a"), token(tokenizer, "▁time")]) == " a time"


def test_after_special_tokens_alone_the_text_begins_without_a_space() -> None:
    tokenizer = llama_like()
    output = [token(tokenizer, "▁Once"), token(tokenizer, "▁upon")]
    assert after(tokenizer, [token(tokenizer, "<s>")], output) == "Once upon"
    assert after(tokenizer, [], output) == "Once upon"


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_a_space_after_a_run_of_stray_bytes_is_kept(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode("Once upon", add_special_tokens=False).ids
    stray = [byte(tokenizer, 0x80)] * (2 * PENDING_LIMIT)
    words = [token(tokenizer, "▁a"), token(tokenizer, "▁time")]
    assert after(tokenizer, ids, [*stray, *words]) == REPLACEMENT * 2 * PENDING_LIMIT + " a time"
    assert after(tokenizer, [], [*ids, *stray, *words]) == "Once upon" + REPLACEMENT * 2 * PENDING_LIMIT + " a time"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_character_that_the_prompt_begins_comes_without_the_prompt(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    euro = [byte(tokenizer, value) for value in "€".encode()]
    secret = tokenizer.encode("my secret", add_special_tokens=False).ids
    word = tokenizer.encode("x", add_special_tokens=False).ids[-1]
    for cut in (1, 2):
        assert after(tokenizer, [*secret, *euro[:cut]], [*euro[cut:], word]) == "€x"
        assert after(tokenizer, [*secret, *euro[:cut]], [word]) == "x", "the prompt's own stray bytes are no output"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_prompt_that_ends_with_stray_bytes_alone_is_not_repeated(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    prompt = [*tokenizer.encode("secret", add_special_tokens=False).ids, *[byte(tokenizer, 0x80)] * 40]
    word = tokenizer.encode("x", add_special_tokens=False).ids[-1]
    assert after(tokenizer, prompt, [word, word]) == "xx"


def test_a_space_after_a_prompt_that_ends_with_stray_bytes_is_kept() -> None:
    tokenizer = llama_like()
    prompt = [*tokenizer.encode("secret", add_special_tokens=False).ids, *[byte(tokenizer, 0x80)] * 40]
    assert after(tokenizer, prompt, [token(tokenizer, "▁a")]) == " a"


@given(st.data())
def test_no_prompt_text_is_in_an_output_of_any_tokens(data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[data.draw(st.sampled_from(sorted(TOKENIZERS)))]
    known = st.integers(0, tokenizer.get_vocab_size() - 1)
    prompt = [
        *tokenizer.encode("SECRET", add_special_tokens=False).ids,
        *data.draw(st.lists(st.integers(0, 255).map(lambda value: byte(tokenizer, value)), max_size=20)),
    ]
    output = data.draw(st.lists(known, max_size=20))
    alone = tokenizer.decode(output)
    assert "SECRET" not in after(tokenizer, prompt, output) or "SECRET" in alone


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
def test_a_primed_detokenizer_goes_on_after_the_same_prompt(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    known = st.integers(0, tokenizer.get_vocab_size() - 1)
    prompt = data.draw(st.lists(known, max_size=12))
    output = data.draw(st.lists(known, max_size=40))
    cut = data.draw(st.integers(0, len(output)))
    special = special_token_ids(tokenizer)
    first = Detokenizer(tokenizer, special, TextOptions(), prompt)
    first.feed(output[:cut])
    delivered = first.take()
    second = Detokenizer(tokenizer, special, TextOptions(), prompt)
    second.prime(output[:cut], len(delivered))
    second.feed(output[cut:])
    assert delivered + second.take() == after(tokenizer, prompt, output)


def test_a_long_prompt_is_not_decoded_as_a_whole() -> None:
    """Making a detokenizer costs the same for any prompt."""
    tokenizer = llama_like()
    text = Detokenizer(tokenizer, special_token_ids(tokenizer), TextOptions(), [300] * 100_000)
    assert len(text._context) < 1_000
