"""Lines of batches may have images and audio, which are in them; what is none is refused by its place."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from sage_media.kinds import IMAGE_LIMIT_BYTES, MediaKind
from scheduler_svc.control.batches.line_codec import BatchLine
from scheduler_svc.control.journal.batches import OwnedId, StoredBatch
from scheduler_svc.control.requests.submission import ChatPrompt, Submission
from scheduler_svc.control.requests.tokenizers import Mark
from scheduler_svc.domain.errors import InvalidRequest
from scheduler_svc.domain.request import Priority
from scheduler_svc.transport.openai_lines import failures, generation
from scheduler_svc.transport.openai_lines.codec import OpenAiLines
from scheduler_svc.transport.violations import Violations
from tests.support.raw_batches import CHAT, jsonl, line

BATCH = StoredBatch(
    key=OwnedId(tenant="t", id="b"),
    digest=b"",
    input_file_id="in",
    endpoint="",
    priority=Priority.BACKGROUND,
    metadata={},
    created_at=0.0,
    expires_at=60.0,
    keep_s=60.0,
)
PLACE = "messages[0].content[1]"


def image(data: bytes, kind: str = "image/png") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}}


def audio(data: bytes, kind: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": kind}}


def body(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "See"}, *parts]}], **more}


async def submissions(given: dict[str, Any]) -> list[Submission]:
    codec = OpenAiLines()
    parsed: BatchLine = codec.parse(jsonl([line("a", CHAT, **given)]), 0, "")
    return list(await codec.requests(parsed, BATCH, 60.0))


async def test_an_image_stands_in_the_prompt_where_it_stands_in_the_line() -> None:
    [made] = await submissions(body(image(b"one"), image(b"two", "image/gif")))
    assert not made.violations
    assert isinstance(made.prompt, ChatPrompt)
    assert made.prompt.conversation.turns[0].parts == ("See", Mark.IMAGE, Mark.IMAGE)
    assert [each.data for each in made.media] == [b"one", b"two"]


async def test_audio_stands_beside_images() -> None:
    url = {"type": "audio_url", "audio_url": {"url": "data:audio/ogg;base64,eA=="}}
    [made] = await submissions(body(audio(b"one", "mp3"), image(b"two"), url))
    assert not made.violations
    assert isinstance(made.prompt, ChatPrompt)
    assert made.prompt.conversation.turns[0].parts == ("See", Mark.AUDIO, Mark.IMAGE, Mark.AUDIO)
    kinds = [MediaKind.AUDIO, MediaKind.IMAGE, MediaKind.AUDIO]
    assert [(each.kind, each.data) for each in made.media] == list(zip(kinds, (b"one", b"two", b"x"), strict=True))


async def test_choices_of_a_line_share_its_images() -> None:
    one, two, three = await submissions(body(image(b"one"), n=3))
    assert one.media is two.media is three.media


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, "is not fetched"),
        ({"type": "image_url"}, "has no URL"),
        (image(bytes(IMAGE_LIMIT_BYTES + 3)), f"more than {IMAGE_LIMIT_BYTES} bytes"),
        ({"type": "input_audio", "input_audio": {"format": "wav"}}, "has no data and format"),
        ({"type": "audio_url", "audio_url": "https://example.com/a.wav"}, "is not fetched"),
        ({"type": "image_pil", "image_pil": "x"}, "neither a text nor one of audio_url, image_url, input_audio"),
        (7, "neither a text nor one of"),
    ],
    ids=["address", "nothing", "large", "audio", "address of audio", "another kind", "number"],
)
def test_what_is_neither_is_refused_by_its_place(part: Any, words: str) -> None:
    violations = Violations()
    generation.chat(body(part), violations)
    assert [each.field for each in violations] == [PLACE]
    assert words in violations[0].description


@pytest.mark.parametrize("part", [image(b"x", "image/svg+xml"), image(b""), audio(b"x", "aac"), audio(b"")])
async def test_what_the_contract_refuses_has_its_place_in_the_line(part: Any) -> None:
    [made] = await submissions(body(part))
    _, answer = failures.failure(InvalidRequest(list(made.violations)))
    assert answer["error"]["param"] == PLACE
