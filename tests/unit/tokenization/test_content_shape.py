"""What a template takes as the content of a message, and that nothing the user says is dropped."""

from __future__ import annotations

import pytest

from scheduler_svc.control.requests.tokenizers import ChatTurn, Conversation, PromptError
from scheduler_svc.tokenization.chat_template import ChatTemplate
from tests.unit.tokenization.chat_templates import CHATML, IDEFICS3, LLAVA, PARTS, QWEN2_VL, TEXT, THROUGH_A_MACRO

ALL = {**PARTS, **TEXT}


def turn(role: str, *texts: str) -> ChatTurn:
    return ChatTurn(role=role, text="\n".join(texts), parts=texts if len(texts) > 1 else ())


def render(source: str, *turns: ChatTurn, continue_final_message: bool = False) -> str:
    talk = Conversation(turns=turns, continue_final_message=continue_final_message)
    return ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"}).render(talk)


@pytest.mark.parametrize("name", ALL)
def test_every_template_shows_what_the_user_says(name: str) -> None:
    assert "What is in it?" in render(ALL[name], turn("user", "What is in it?"))


@pytest.mark.parametrize("name", PARTS)
def test_parts_reach_a_template_that_takes_parts(name: str) -> None:
    text = render(PARTS[name], turn("user", "one", "two"))
    assert "one" in text
    assert "two" in text
    assert "one\ntwo" not in text


@pytest.mark.parametrize("name", TEXT)
def test_parts_are_joined_by_line_breaks_for_a_template_that_takes_a_text(name: str) -> None:
    assert "one\ntwo" in render(TEXT[name], turn("user", "one", "two"))


def test_prompts_of_models_that_take_images() -> None:
    turns = (turn("system", "Be brief."), turn("user", "Hi"), turn("assistant", "Ho"), turn("user", "And?"))
    assert render(LLAVA, *turns) == "Be brief. USER: Hi ASSISTANT: Ho USER: And? ASSISTANT:"
    end = "<end_of_utterance>\n"
    assert render(IDEFICS3, *turns) == (
        f"<|im_start|>System: Be brief.{end}User: Hi{end}Assistant: Ho{end}User: And?{end}Assistant:"
    )


def test_what_a_tool_says_is_a_text() -> None:
    talk = Conversation(turns=[turn("user", "Hi"), turn("tool", "one", "two")])
    source = THROUGH_A_MACRO.replace("render(m['content'])", "m.content if m.role == 'tool' else render(m['content'])")
    assert ChatTemplate(source, {}).render(talk) == "user: Hi\ntool: one\ntwo\n"


def test_the_last_part_is_continued() -> None:
    turns = (turn("user", "Hi"), turn("assistant", "Once", "upon"))
    assert render(QWEN2_VL, *turns, continue_final_message=True).endswith("assistant\nOnceupon")
    assert render(CHATML, *turns, continue_final_message=True).endswith("assistant\nOnce\nupon")


def test_a_template_that_leaves_out_what_the_user_says_is_refused() -> None:
    with pytest.raises(PromptError, match="leaves out what the user says"):
        render("{% for m in messages %}{{ m.role }}{% endfor %}", turn("user", "hello"), turn("assistant", "yes"))


def test_a_template_that_takes_parts_without_a_loop_gets_them_when_a_text_is_left_out() -> None:
    source = (
        "{% for m in messages %}{{ m.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join }}"
    )
    assert render(source + "{% endfor %}", turn("user", "hello", "again")) == "helloagain"


@pytest.mark.parametrize("change", ["upper", "replace('l', 'L')", "truncate(9)"])
def test_a_template_may_change_what_the_user_says(change: str) -> None:
    assert render("{{ messages[0].content | " + change + " }}", turn("user", "hello hello hello"))


def test_what_is_no_template_is_found_when_it_arrives() -> None:
    with pytest.raises(ValueError, match="not a chat template"):
        ChatTemplate("{% for a, b in messages %}{{ a", {})


def test_loops_over_pairs_are_understood() -> None:
    source = "{% for m in messages %}{% for k, v in m.content.items() %}{{ v }}{% endfor %}{{ m.content }}{% endfor %}"
    with pytest.raises(PromptError):
        render(source, turn("user", "hello"))
