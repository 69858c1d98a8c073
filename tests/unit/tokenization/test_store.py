"""Tokenizers arrive by hash, are checked, and never hold the event loop up."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from scheduler_svc.control.requests.tokenizers import ChatTurn, Conversation, PromptError, TokenizingLimits
from scheduler_svc.tokenization import store as store_module
from scheduler_svc.tokenization.store import INLINE_CHARACTERS, LONG_CHARACTERS, TokenizerStore
from tests.unit.tokenization.test_text_bound import sentence_piece

WORDS = ("<unk>", "<s>", "hello", "world", "user", ":")
TEMPLATE = "{{ bos_token }} {% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}"


def tokenizer_json(configure: Callable[[Tokenizer], None] = lambda tokenizer: None) -> str:
    """A tokenizer of a few words that begins every text with <s>."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    configure(tokenizer)
    return tokenizer.to_str()


def document(**changes: Any) -> tuple[str, bytes]:
    """With its hash."""
    content = {
        "tokenizer_json": tokenizer_json(),
        "chat_template": TEMPLATE,
        "special_tokens": {"bos_token": "<s>"},
        **changes,
    }
    data = json.dumps(content).encode()
    return hashlib.sha256(data).hexdigest(), data


def ids(*words: str) -> list[int]:
    return [WORDS.index(word) for word in words]


def chat(*texts: str) -> Conversation:
    return Conversation(turns=[ChatTurn(role="user", text=text) for text in texts])


@pytest.fixture
def store() -> Iterator[TokenizerStore]:
    store = TokenizerStore()
    yield store
    store.close()


async def installed(store: TokenizerStore, **changes: Any) -> str:
    name, data = document(**changes)
    await store.install(name, data)
    return name


# --- encoding -------------------------------------------------------------------------------------


async def test_text_with_and_without_special_tokens(store: TokenizerStore) -> None:
    name = await installed(store)
    assert list(await store.encode(name, "Hello world", special_tokens=True)) == ids("<s>", "hello", "world")
    assert list(await store.encode(name, "Hello world", special_tokens=False)) == ids("hello", "world")


async def test_long_text_gives_what_short_text_gives(store: TokenizerStore) -> None:
    name = await installed(store)
    text = "hello world " * INLINE_CHARACTERS
    for special_tokens, head in ((True, ids("<s>")), (False, [])):
        found = await store.encode(name, text, special_tokens=special_tokens)
        assert list(found) == head + ids("hello", "world") * INLINE_CHARACTERS


async def test_a_conversation_begins_as_its_template_says(store: TokenizerStore) -> None:
    """The template writes the special tokens: the tokenizer adds none."""
    name = await installed(store)
    assert list(await store.encode_chat(name, chat("hello"))) == ids("<s>", "user", ":", "hello")


async def test_a_model_without_a_template_takes_no_conversation(store: TokenizerStore) -> None:
    name = await installed(store, chat_template=None)
    with pytest.raises(PromptError, match="no chat template"):
        await store.encode_chat(name, chat("hello"))


async def test_what_the_template_refuses(store: TokenizerStore) -> None:
    name = await installed(store, chat_template="{{ raise_exception('only two turns') }}")
    with pytest.raises(PromptError, match="only two turns"):
        await store.encode_chat(name, chat("hello"))


async def test_nothing_is_cut_off_or_filled_up(store: TokenizerStore) -> None:
    """Whatever the files say: a prompt is what it is, and its length is checked elsewhere."""

    def cut(tokenizer: Tokenizer) -> None:
        tokenizer.enable_truncation(max_length=2)
        tokenizer.enable_padding(length=64, pad_id=0, pad_token="<unk>")

    name = await installed(store, tokenizer_json=tokenizer_json(cut))
    assert len(await store.encode(name, "hello world hello", special_tokens=True)) == 4


# --- where it runs --------------------------------------------------------------------------------


def suspends(work: Coroutine[Any, Any, Sequence[int]]) -> bool:
    """Whether a coroutine needs more than the turn of the loop it begins in."""
    try:
        work.send(None)
    except StopIteration:
        return False
    work.close()
    return True


async def test_short_text_is_done_at_once_and_long_text_in_a_thread(store: TokenizerStore) -> None:
    name = await installed(store)
    assert not suspends(store.encode(name, "x" * INLINE_CHARACTERS, special_tokens=True))
    assert suspends(store.encode(name, "x" * (INLINE_CHARACTERS + 1), special_tokens=True))


async def test_a_template_never_runs_on_the_loop(store: TokenizerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not end costs somebody's processor, but the loop goes on."""
    name = await installed(store)
    model = store._models[name]
    assert model.template is not None
    go, threads = threading.Event(), []

    def spin(conversation: Conversation) -> str:
        threads.append(threading.current_thread())
        go.wait(10)
        return "hello"

    monkeypatch.setattr(model.template, "render", spin)
    rendering = asyncio.ensure_future(store.encode_chat(name, chat("hello")))
    try:
        for _ in range(10):
            assert list(await store.encode(name, "hello", special_tokens=False)) == ids("hello")
            await asyncio.sleep(0.001)
        assert not rendering.done()
    finally:
        go.set()
    assert list(await rendering) == ids("hello")
    assert threads != [threading.main_thread()]


# --- installing -----------------------------------------------------------------------------------


async def test_what_was_never_installed_is_not_there(store: TokenizerStore) -> None:
    assert not store.has("x")
    with pytest.raises(KeyError):
        await store.encode("x", "hello", special_tokens=True)
    with pytest.raises(KeyError):
        await store.encode_chat("x", chat("hello"))


async def test_files_that_are_not_what_was_announced(store: TokenizerStore) -> None:
    name, data = document()
    with pytest.raises(ValueError, match="was announced"):
        await store.install(name, data + b" ")
    with pytest.raises(ValueError, match="was announced"):
        await store.install("0" * 64, data)
    assert not store.has(name)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"1",
        b"{}",
        b"[" * 100_000,
        json.dumps({"tokenizer_json": 7}).encode(),
        json.dumps({"tokenizer_json": "{"}).encode(),
        json.dumps({"tokenizer_json": "{}"}).encode(),
        json.dumps({"tokenizer_json": tokenizer_json(), "chat_template": "{% for %}"}).encode(),
        json.dumps({"tokenizer_json": tokenizer_json(), "chat_template": ["a", "b"]}).encode(),
        json.dumps({"tokenizer_json": tokenizer_json(), "chat_template": {"default": "x"}}).encode(),
        json.dumps({"tokenizer_json": tokenizer_json(), "chat_template": "(" * 5_000 + "{{" + "(" * 5_000}).encode(),
        json.dumps({"tokenizer_json": tokenizer_json(), "chat_template": "x", "special_tokens": 7}).encode(),
        json.dumps({"tokenizer_json": tokenizer_json(), "chat_template": "x", "special_tokens": ["a"]}).encode(),
    ],
    ids=lambda data: data[-40:].decode(errors="replace"),
)
async def test_files_that_are_no_tokenizer(store: TokenizerStore, data: bytes) -> None:
    name = hashlib.sha256(data).hexdigest()
    with pytest.raises(ValueError, match="not a tokenizer"):
        await store.install(name, data)
    assert not store.has(name)


async def test_the_one_used_longest_ago_leaves_first() -> None:
    store = TokenizerStore(limit=2)
    names = [await installed(store, special_tokens={"bos_token": str(i)}) for i in range(2)]
    await store.encode(names[0], "once", special_tokens=False)
    names.append(await installed(store, special_tokens={"bos_token": "2"}))
    assert [store.has(name) for name in names] == [True, False, True]
    store.close()


async def test_installing_again_changes_nothing(store: TokenizerStore) -> None:
    name = await installed(store)
    await installed(store)
    assert store.has(name)
    assert len(store._models) == 1


async def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenized(
    store: TokenizerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bytes_only(tokenizer: Tokenizer) -> None:
        tokenizer.normalizer = None
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)

    name = await installed(store, tokenizer_json=tokenizer_json(bytes_only), chat_template="{{ messages[0].content }}")
    longest = store._models[name].bytes_per_token
    assert longest == len("<unk>")
    limits = TokenizingLimits(most_tokens=10)
    fits, too_long = "x" * 10 * longest, "x" * (10 * longest + 1)
    assert await store.encode(name, fits, limits, special_tokens=False)
    monkeypatch.setattr(store_module, "_encode", None)  # nothing more is tokenized
    with pytest.raises(PromptError, match=f"has {len(too_long)} bytes; the model's 10 tokens hold at most {len(fits)}"):
        await store.encode(name, too_long, limits, special_tokens=False)
    with pytest.raises(PromptError, match="at most"):
        await store.encode_chat(name, chat(too_long), limits)


async def test_a_short_prompt_does_not_wait_behind_long_ones(
    store: TokenizerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await installed(store)
    go, encode = threading.Event(), store_module._encode

    def held(model: Any, text: str, *more: Any) -> Sequence[int]:
        if len(text) > LONG_CHARACTERS:
            assert go.wait(30)
        return encode(model, text, *more)

    monkeypatch.setattr(store_module, "_encode", held)
    words = "hello " * LONG_CHARACTERS
    long = [asyncio.create_task(store.encode(name, words, special_tokens=False)) for _ in range(8)]
    long.append(asyncio.create_task(store.encode_chat(name, chat(words))))
    await asyncio.sleep(0)
    assert len(await store.encode(name, "hello " * INLINE_CHARACTERS, special_tokens=False)) == INLINE_CHARACTERS
    assert list(await store.encode_chat(name, chat("hello")))
    assert not any(task.done() for task in long)
    go.set()
    await asyncio.gather(*long)


async def test_a_text_with_more_words_than_tokens_is_refused_before_it_is_tokenized(
    store: TokenizerStore,
) -> None:
    name = await installed(store, tokenizer_json=sentence_piece().to_str())
    limits = TokenizingLimits(most_tokens=5_000)
    await store.encode(name, "a " * 2_000, limits, special_tokens=False)
    with pytest.raises(PromptError, match="has more than 5000 words"):
        await store.encode(name, "a " * 6_000, limits, special_tokens=False)


async def test_the_ids_of_a_text_that_is_far_too_long_are_not_made(store: TokenizerStore) -> None:
    name = await installed(store)
    with pytest.raises(PromptError, match="has 4000 tokens; the model serves 1000"):
        await store.encode(name, "hello " * 4_000, TokenizingLimits(most_tokens=1_000), special_tokens=False)


@pytest.mark.parametrize("piece_bytes", [1, 100, 1_000_000])
async def test_a_document_comes_back_as_it_was_installed(store: TokenizerStore, piece_bytes: int) -> None:
    name, data = document()
    await store.install(name, data)

    pieces = list(store.document(name, piece_bytes))

    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= piece_bytes


def test_a_document_that_is_not_here_is_a_key_error(store: TokenizerStore) -> None:
    with pytest.raises(KeyError):
        store.document("other", 1)
