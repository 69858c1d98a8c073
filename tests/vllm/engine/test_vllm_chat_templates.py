"""Our prompts of conversations are those that vLLM and transformers make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import pytest

from scheduler_svc.control.requests.tokenizers import ChatTurn, Conversation
from scheduler_svc.tokenization.chat_template import ChatTemplate, _GenerationBlocks
from scheduler_svc.tokenization.content_shape import ContentShape, content_shape
from tests.unit.tokenization.chat_templates import PARTS, TEXT

pytestmark = [pytest.mark.vllm]

ALL = {**PARTS, **TEXT}


def carried() -> dict[str, str]:
    """The templates that vLLM brings along for models without one."""
    import vllm

    files = Path(str(vllm.__file__)).parent.rglob("*.jinja")
    return {file.stem: file.read_text(encoding="utf-8") for file in sorted(files)}


def ours(source: str) -> ContentShape:
    environment = jinja2.Environment(extensions=[jinja2.ext.loopcontrols, _GenerationBlocks])
    return content_shape(environment.parse(source))


def test_the_shape_is_what_vllm_detects() -> None:
    from vllm.renderers.hf import _detect_content_format

    found = {**ALL, **carried()}
    assert len(found) > len(ALL)
    wanted = {name: _detect_content_format(source, default="string") for name, source in found.items()}
    shapes = {ContentShape.TEXT: "string", ContentShape.PARTS: "openai"}
    assert {name: shapes[ours(source)] for name, source in found.items()} == wanted


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("continues", [False, True])
def test_prompts_are_those_of_transformers(name: str, continues: bool) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho"), ("user", "And?"), ("assistant", "Well, ")]
    turns = turns if continues else turns[:-1]

    def content(text: str) -> Any:
        return [{"type": "text", "text": text}] if name in PARTS else text

    special = {"bos_token": "<s>", "eos_token": "</s>"}
    [wanted], _ = render_jinja_template(
        conversations=[[{"role": role, "content": content(text)} for role, text in turns]],
        chat_template=ALL[name],
        continue_final_message=continues,
        add_generation_prompt=not continues,
        **special,
    )
    talk = Conversation(
        turns=[ChatTurn(role=role, text=text) for role, text in turns], continue_final_message=continues
    )
    assert ChatTemplate(ALL[name], special).render(talk) == wanted
