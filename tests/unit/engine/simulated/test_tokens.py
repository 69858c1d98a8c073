"""Which token the simulated model says next."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor_svc.engine.simulated.tokenizer import EOS_ID, tokenizer_for
from executor_svc.engine.simulated.tokens import CONTEXT_TOKENS, TokenSource, model_salt
from executor_svc.runtime.engine_port import Sampling

VOCAB_SIZE = 2048
PROMPT = list(range(300, 320))


def source(
    sampling: Sampling | None = None, model: str = "sim", adapter: str | None = None, own_seed: int = 17
) -> TokenSource:
    return TokenSource(
        vocab_size=VOCAB_SIZE,
        mean_output_tokens=256,
        salt=model_salt(model, adapter),
        sampling=sampling or Sampling(temperature=0.0),
        own_seed=own_seed,
    )


def draw(tokens: TokenSource, prompt: list[int], count: int) -> list[int]:
    sequence = list(prompt)
    for emitted in range(count):
        sequence.append(tokens.next(sequence, emitted))
    return sequence[len(prompt) :]


token_ids = st.integers(0, VOCAB_SIZE - 1)


@given(prompt=st.lists(token_ids, min_size=1, max_size=30), cut=st.integers(0, 60))
def test_prompt_and_emitted_tokens_go_on_as_the_whole_would(prompt: list[int], cut: int) -> None:
    whole = draw(source(), prompt, 60)
    assert draw(source(), prompt + whole[:cut], 60 - cut) == whole[cut:]


@given(before=st.lists(token_ids, max_size=20), context=st.lists(token_ids, min_size=8, max_size=8))
def test_only_the_last_tokens_count(before: list[int], context: list[int]) -> None:
    assert CONTEXT_TOKENS == 8
    assert source().next(before + context, 0) == source().next(context, 0)


@settings(max_examples=30)
@given(prompt=st.lists(token_ids, min_size=1, max_size=30), position=st.integers(0, 39))
def test_a_wrong_token_changes_what_follows(prompt: list[int], position: int) -> None:
    whole = draw(source(), prompt, 40)
    wrong = [*whole[:position], (whole[position] + 1) % VOCAB_SIZE]
    assert draw(source(), prompt + wrong, 40) != draw(source(), prompt + whole[: position + 1], 40)


def test_every_process_says_the_same() -> None:
    program = (
        "from tests.unit.engine.simulated.test_tokens import draw, source, PROMPT; print(draw(source(), PROMPT, 30))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{draw(source(), PROMPT, 30)}\n"}


def test_models_and_adapters_say_different_things() -> None:
    answers = [draw(source(model=model, adapter=adapter), PROMPT, 20) for model, adapter in
               (("sim", None), ("other", None), ("sim", "french"))]  # fmt: skip
    assert len({tuple(answer) for answer in answers}) == 3


def test_tokens_are_varied() -> None:
    assert len(set(draw(source(), PROMPT, 400))) > 250


def test_seeded_tokens_can_be_replayed_but_not_resumed() -> None:
    seeded = Sampling(temperature=1.0, seed=5, ignore_eos=True)
    whole = draw(source(seeded), PROMPT, 40)
    assert draw(source(seeded), PROMPT, 40) == whole
    assert draw(source(seeded), PROMPT + whole[:20], 20) != whole[20:]


def test_unseeded_tokens_are_random() -> None:
    hot = Sampling(temperature=1.0, ignore_eos=True)
    assert draw(source(hot, own_seed=1), PROMPT, 40) != draw(source(hot, own_seed=2), PROMPT, 40)
    greedy = Sampling(temperature=1.0, top_k=1, ignore_eos=True)
    assert draw(source(greedy, own_seed=1), PROMPT, 40) == draw(source(greedy, own_seed=2), PROMPT, 40)


def test_answers_end_by_themselves_about_as_late_as_configured() -> None:
    lengths = []
    for prompt in range(300, 700):
        tokens = draw(source(), [prompt], 2000)
        lengths.append(tokens.index(EOS_ID) if EOS_ID in tokens else 2000)
    assert 200 < sum(lengths) / len(lengths) < 320  # 256


def test_text_is_whole_characters_and_some_of_them_span_two_tokens() -> None:
    tokens = draw(source(), PROMPT, 2000)
    text = tokenizer_for(VOCAB_SIZE).decode(tokens[:-1] if tokens[-1] == 0xC3 else tokens)
    assert "\ufffd" not in text
    assert any(ord(character) > 127 for character in text)


def test_min_tokens_keeps_the_end_away() -> None:
    prompts = [[prompt] for prompt in range(300, 600)]
    plain = [draw(source(), prompt, 30) for prompt in prompts]
    patient = [draw(source(Sampling(temperature=0.0, min_tokens=30, max_tokens=30)), prompt, 30) for prompt in prompts]
    assert any(EOS_ID in answer for answer in plain)
    assert not any(EOS_ID in answer for answer in patient)


@pytest.mark.parametrize("penalty", [{"presence_penalty": 1.0}, {"frequency_penalty": 1.0}])
def test_penalties_avoid_repetition(penalty: dict[str, float]) -> None:
    few = tuple(range(300, 340))
    free = draw(source(Sampling(temperature=0.0, allowed_token_ids=few)), PROMPT, 30)
    steered = draw(source(Sampling(temperature=0.0, allowed_token_ids=few, **penalty)), PROMPT, 30)  # type: ignore[arg-type]
    assert len(set(free)) < 30
    assert len(set(steered)) > len(set(free))


def test_when_everything_is_forbidden_there_is_still_a_token() -> None:
    sampling = Sampling(temperature=0.0, allowed_token_ids=(300,), logit_bias={300: -100.0})
    assert draw(source(sampling), PROMPT, 3) == [300, 300, 300]


def test_a_strong_bias_leaves_only_its_tokens() -> None:
    sampling = Sampling(temperature=0.0, logit_bias={400: 100.0, 401: 100.0, 402: 1.0})
    assert set(draw(source(sampling), PROMPT, 20)) == {400, 401}
