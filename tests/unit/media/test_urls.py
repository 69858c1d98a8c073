"""What parts of OpenAI's clients hold is read out of them, or it is said what is wrong with it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from sage_media.kinds import IMAGE_LIMIT_BYTES, MEDIA_LIMIT_BYTES, MediaKind, taken
from sage_media.urls import content_of_part, media_type

DATA = base64.b64encode(b"content").decode()


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def audio(**found: Any) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": found}


@pytest.mark.parametrize(
    ("part", "kind", "mime_type"),
    [
        (image(f"data:image/png;base64,{DATA}"), MediaKind.IMAGE, "image/png"),
        ({"type": "image_url", "image_url": f"DATA:Image/JPG;base64,{DATA}"}, MediaKind.IMAGE, "image/jpeg"),
        (audio(data=DATA, format="wav"), MediaKind.AUDIO, "audio/wav"),
        (audio(data=DATA, format="mp3"), MediaKind.AUDIO, "audio/mpeg"),
        (
            {"type": "audio_url", "audio_url": {"url": f"data:audio/x-flac;base64,{DATA}"}},
            MediaKind.AUDIO,
            "audio/flac",
        ),
        ({"type": "audio_url", "audio_url": f"data:;base64,{DATA}"}, MediaKind.AUDIO, ""),
    ],
)
def test_a_part_holds_its_content(part: dict[str, Any], kind: MediaKind, mime_type: str) -> None:
    assert content_of_part(part) == (kind, b"content", mime_type)


def too_large(limit: int) -> str:
    return base64.b64encode(bytes(limit + 3)).decode()


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (image("https://example.com/a.png"), "is not fetched; send the image itself, as data:image/png"),
        (image(None), "has no URL of an image"),
        ({"type": "audio_url", "audio_url": {}}, "has no URL of an audio clip"),
        ({"type": "audio_url", "audio_url": "https://example.com/a.wav"}, "send the audio clip itself, as data:audio"),
        (audio(data=DATA), "has no data and format"),
        (audio(format="wav"), "has no data and format"),
        ({"type": "input_audio"}, "has no data and format"),
        (audio(data="???", format="wav"), "the audio clip is not base64"),
        (image(f"data:image/png;base64,{too_large(IMAGE_LIMIT_BYTES)}"), f"more than {IMAGE_LIMIT_BYTES} bytes"),
        (audio(data=too_large(MEDIA_LIMIT_BYTES), format="wav"), f"more than {MEDIA_LIMIT_BYTES} bytes"),
    ],
)
def test_what_is_wrong_with_a_part_is_said(part: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        content_of_part(part)


def test_names_of_types() -> None:
    assert media_type("Audio/X-WAV") == "audio/wav"
    assert media_type("audio/aac") == "audio/aac"


def test_what_is_taken_is_said_in_words() -> None:
    assert taken([]) == "text only"
    assert taken([MediaKind.AUDIO, MediaKind.IMAGE, MediaKind.AUDIO]) == "text and images and audio"
