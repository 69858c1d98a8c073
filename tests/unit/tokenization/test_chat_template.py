"""Chat templates as models carry them: what they may use, what they may not, and what is said when they refuse."""

from __future__ import annotations

import re
from typing import Any

import pytest

from scheduler_svc.control.requests.tokenizers import ChatTurn, Conversation, Mark, PromptError
from scheduler_svc.tokenization.chat_template import ChatTemplate

CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def conversation(*turns: tuple[str, str], **options: Any) -> Conversation:
    return Conversation(turns=[ChatTurn(role=role, text=text) for role, text in turns], **options)


HELLO = conversation(("user", "hello"))


def render(source: str, talk: Conversation = HELLO, **special_tokens: str) -> str:
    return ChatTemplate(source, special_tokens).render(talk)


# --- what templates use ---------------------------------------------------------------------------


def test_the_models_turn_is_opened() -> None:
    assert render(CHATML) == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_special_tokens_are_variables() -> None:
    assert render("{{ bos_token }}{{ messages[0].content }}", bos_token="<s>") == "<s>hello"


def test_the_callers_arguments_are_variables() -> None:
    source = "{% if enable_thinking %}think{% else %}answer{% endif %}"
    assert render(source, conversation(("system", "x"), template_arguments={"enable_thinking": True})) == "think"
    assert render(source, conversation(("system", "x"))) == "answer"


def test_the_callers_arguments_cannot_replace_the_conversation() -> None:
    talk = conversation(("user", "hello"), template_arguments={"messages": [], "add_generation_prompt": False})
    assert render(CHATML, talk) == render(CHATML)


def test_names_are_there_only_where_given() -> None:
    source = "{% for m in messages %}{{ m.name if m.name is defined else '-' }}{% endfor %}"
    talk = Conversation(turns=[ChatTurn(role="tool", text="a", name="Ann"), ChatTurn(role="tool", text="b")])
    assert render(source, talk) == "Ann-"


def test_further_fields_of_a_message_are_there_and_cannot_replace_its_own() -> None:
    source = "{% for m in messages %}{{ m.role }} {{ m.tool_calls[0].function.name }} {{ m.content }}{% endfor %}"
    fields = {"tool_calls": [{"function": {"name": "weather"}}], "role": "system", "content": "other"}
    talk = Conversation(turns=[ChatTurn(role="assistant", text="a", fields=fields)])
    assert render(source, talk) == "assistant weather a"


def test_blocks_leave_no_lines_behind() -> None:
    source = "{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}"
    assert render(source) == "hello\n"


def test_loops_can_be_left() -> None:
    source = "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}{{ messages[0].content }}"
    assert render(source) == "01hello"


def test_json_is_written_as_models_were_trained_on_it() -> None:
    talk = conversation(("system", "x"), template_arguments={"tools": [{"b": "<é>", "a": 1}]})
    assert render("{{ tools | tojson }}", talk) == '[{"b": "<é>", "a": 1}]'
    assert render("{{ tools | tojson(ensure_ascii=True) }}", talk) == '[{"b": "<\\u00e9>", "a": 1}]'
    assert render("{{ tools[0] | tojson(indent=2) }}", talk) == '{\n  "b": "<é>",\n  "a": 1\n}'
    assert render("{{ tools | tojson(separators=(',', ':'), sort_keys=true) }}", talk) == '[{"a":1,"b":"<é>"}]'


def test_a_template_may_ask_for_the_date() -> None:
    source = "{{ strftime_now('%d %b %Y') }}: {{ messages[0].content }}"
    assert re.fullmatch(r"\d\d [A-Z][a-z]{2} \d{4}: hello", render(source))


def test_marks_of_what_the_model_says_are_no_text() -> None:
    source = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    assert render(source) == "hello"


# --- continuing the last message ------------------------------------------------------------------


@pytest.mark.parametrize("text", ["The answer", "e", "ends in a space ", "<|im_end|>", "im_end"])
def test_the_last_message_is_left_open(text: str) -> None:
    talk = conversation(("user", "hello"), ("assistant", text), continue_final_message=True)
    assert render(CHATML, talk) == f"<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n{text}"


def test_spaces_that_the_template_trims_stay_trimmed() -> None:
    source = "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}"
    talk = conversation(("assistant", "  so far "), continue_final_message=True)
    assert render(source, talk) == "[so far"


@pytest.mark.parametrize("text", ["", " \n"])
def test_there_must_be_something_to_continue(text: str) -> None:
    with pytest.raises(PromptError, match="cannot be continued"):
        render(CHATML, conversation(("user", "hello"), ("assistant", text), continue_final_message=True))


def test_the_last_message_must_be_shown_to_be_continued() -> None:
    talk = conversation(("assistant", "so far"), continue_final_message=True)
    with pytest.raises(PromptError, match="cannot be continued"):
        render("{{ messages | length }}", talk)


def test_a_message_of_which_a_part_is_left_out_cannot_be_continued() -> None:
    """As transformers refuses it."""
    source = "{% for m in messages %}[{{ m.content[4:] }}]{% endfor %}"
    talk = conversation(("assistant", "the answer"), continue_final_message=True)
    with pytest.raises(PromptError, match="cannot be continued: the chat template changes it"):
        render(source, talk)


# --- what they refuse -----------------------------------------------------------------------------


def test_a_template_may_refuse_a_conversation() -> None:
    with pytest.raises(PromptError, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[7].content }}",
        "{{ undefined_thing.attribute }}",
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
        "{{ [1][5] + 1 }}",
        "{{ {}['x'].y }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ messages | tojson(indent='x', separators=3) }}",
        "{{ 'x'.encode('no-such-codec') }}",
        "{{ (1.5).hex(1) }}",
    ],
)
def test_whatever_goes_wrong_in_a_template_is_said_in_a_sentence(source: str) -> None:
    with pytest.raises(PromptError, match="the model's chat template refuses the conversation"):
        render(source)


@pytest.mark.parametrize("source", ["{% for %}", "{{ x", "{% nonsense %}"])
def test_what_is_no_template_is_found_when_it_arrives(source: str) -> None:
    with pytest.raises(ValueError, match="not a chat template"):
        ChatTemplate(source, {})


# --- what they may not do -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self.__init__.__globals__['os'] }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__globals__ }}",
        "{{ tojson.__globals__ }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ '{0.__class__}'.format_map({'0': 1}) }}",
        "{{ messages | attr('__class__') }}",
        "{{ (messages | map(attribute='__class__') | list)[0].x }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{{ messages[0].clear() }}",
    ],
)
def test_a_template_stays_in_its_sandbox(source: str) -> None:
    """It is refused, or sees nothing there."""
    try:
        text = render(source)
    except PromptError:
        return
    assert text == ""


def test_one_rendering_leaves_nothing_for_the_next() -> None:
    template = ChatTemplate("{% set seen = messages[0].content %}{{ seen }}{{ later | default('') }}", {})
    first = conversation(("user", "one"), template_arguments={"later": "x"})
    assert template.render(first) == "onex"
    assert template.render(conversation(("user", "two"))) == "two"


def test_nothing_is_loaded_from_anywhere() -> None:
    for source in ("{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}"):
        with pytest.raises(PromptError):
            render(source)


# --- images ---------------------------------------------------------------------------------------

WITH_IMAGES = (
    "{% for message in messages %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def shown(*parts: str | Mark, **options: Any) -> Conversation:
    text = "\n".join(each for each in parts if isinstance(each, str))
    return Conversation(turns=[ChatTurn(role="user", text=text, parts=parts)], **options)


def test_a_tools_result_with_an_image_is_parts_and_one_of_text_is_a_text() -> None:
    parts = ("of the tool ", Mark.IMAGE)
    talk = Conversation(turns=[ChatTurn(role="tool", text="of the tool ", parts=parts)])
    assert render(WITH_IMAGES, talk) == "of the tool <image>"
    told = Conversation(turns=[ChatTurn(role="tool", text="a\nb", parts=("a", "b"))])
    assert render(WITH_IMAGES + "{{ messages[0].content }}", told).endswith("a\nb")


def test_images_are_parts_in_their_place() -> None:
    assert render(WITH_IMAGES, shown("a ", Mark.IMAGE, " b", Mark.IMAGE)) == "a <image> b<image>"
    assert render(WITH_IMAGES, shown(Mark.IMAGE)) == "<image>"


def test_a_message_goes_on_after_its_last_text_and_not_after_an_image() -> None:
    assert render(WITH_IMAGES, shown(Mark.IMAGE, "so it", continue_final_message=True)) == "<image>so it"
    with pytest.raises(PromptError, match="ends with an image"):
        render(WITH_IMAGES, shown("a", Mark.IMAGE, continue_final_message=True))


def test_a_template_that_drops_what_is_said_beside_an_image_is_refused() -> None:
    silent = "{% for part in messages[0].content %}{% if part.type == 'image' %}<image>{% endif %}{% endfor %}"
    with pytest.raises(PromptError, match="leaves out what the user says"):
        render(silent, shown(Mark.IMAGE, "What?"))
