"""Our text of the same tokens is vLLM's own, whatever the tokenizer; only what vLLM repeats of a prompt is left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer

from executor_svc.runtime.messages.commands import TextOptions
from executor_svc.runtime.text.detokenizer import Detokenizer, special_token_ids
from tests.support.sentencepiece_tokenizer import TEXTS, llama_like, mistral_like

pytestmark = [pytest.mark.vllm]

ROOT = Path(__file__).parents[3]
REPLACEMENT = "\ufffd"


def sources() -> list[str]:
    """This repository's own documents and a few sources: prose, tables, code."""
    files = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", *sorted((ROOT / "clients").glob("*/*.py"))[:20]]
    return [piece for file in files for piece in file.read_text(encoding="utf-8").split("\n\n")[:40] if piece.strip()]


def vllms(tokenizer: Tokenizer, prompt: list[int], output: Sequence[int], *, skip_special_tokens: bool) -> str:
    from vllm.v1.engine.detokenizer import FastIncrementalDetokenizer

    params = SimpleNamespace(
        stop=[],
        min_tokens=0,
        include_stop_str_in_output=False,
        skip_special_tokens=skip_special_tokens,
        spaces_between_special_tokens=True,
    )
    request = SimpleNamespace(sampling_params=params, request_id="r", prompt_token_ids=prompt)
    made = FastIncrementalDetokenizer(SimpleNamespace(_tokenizer=tokenizer), request)
    for token_id in output:
        made.update([token_id], False)
    return str(made.output_text)


def ours(tokenizer: Tokenizer, prompt: list[int], output: Sequence[int], *, skip_special_tokens: bool) -> str:
    options = TextOptions(skip_special_tokens=skip_special_tokens)
    text = Detokenizer(tokenizer, special_token_ids(tokenizer), options, prompt)
    text.feed(output)
    return text.take() + text.finish()


@pytest.fixture(params=["llama", "mistral", "byte level"])
def tokenizer(request: pytest.FixtureRequest, model_path: Path) -> Tokenizer:
    makers = {"llama": llama_like, "mistral": mistral_like}
    if request.param in makers:
        return makers[request.param]()
    return Tokenizer.from_file(str(model_path / "tokenizer.json"))


@pytest.mark.parametrize("skip_special_tokens", [True, False])
def test_prompts_and_outputs_of_many_texts(tokenizer: Tokenizer, skip_special_tokens: bool) -> None:
    compared = 0
    for text in (*TEXTS, *sources()):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        for cut in {1, 2, 3, len(ids) // 3, len(ids) // 2, len(ids) - 1}:
            if not 0 < cut < len(ids) or tokenizer.decode(ids[:cut]).endswith(REPLACEMENT):
                continue  # inside a character, where vLLM repeats the prompt
            how = {"skip_special_tokens": skip_special_tokens}
            assert ours(tokenizer, ids[:cut], ids[cut:], **how) == vllms(tokenizer, ids[:cut], ids[cut:], **how)
            compared += 1
    assert compared > 1000


def test_what_vllm_repeats_of_a_prompt_is_not_in_our_output() -> None:
    made = llama_like()
    ids = made.encode("my secret: €", add_special_tokens=False).ids
    assert "secret" in vllms(made, ids[:-1], ids[-1:], skip_special_tokens=True)
    assert ours(made, ids[:-1], ids[-1:], skip_special_tokens=True) == "€"
