"""Prompts with images and audio: who serves them, and what a scheduler does when an executor with one dies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from sage_common.prefix_hashes import prefix_hashes
from sage_media.kinds import MediaInput, MediaKind
from scheduler_svc.control.requests.submission import ChatPrompt, Submission
from scheduler_svc.control.requests.tokenizers import ChatTurn, Conversation, Mark
from scheduler_svc.domain.errors import InvalidRequest
from scheduler_svc.domain.media import Media
from scheduler_svc.tokenization.store import TokenizerStore
from scheduler_svc.transport.model_files import ModelFiles
from tests.unit.control.world import AUDIO_ID, IMAGE_ID, MODEL, World

SEES = MediaInput(kind=MediaKind.IMAGE, placeholder_token_id=IMAGE_ID, most_tokens=20, most=2)
HEARS = MediaInput(
    kind=MediaKind.AUDIO, placeholder_token_id=AUDIO_ID, most_tokens=50, most=2, most_seconds=30.0, rate_hz=16_000
)
MEDIA = (Media(kind=MediaKind.AUDIO, data=b"clip", field="here"), Media(data=b"picture", field="there"))


class Documents:
    def document(self, tokenizer_hash: str, piece_bytes: int) -> Iterator[bytes]:
        yield b"{}"


def asking(world: World, request_id: str, *media: Media, text: str = "?", **options: Any) -> Submission:
    """A conversation with ``text``, and then the media."""
    parts: tuple[str | Mark, ...] = (text, *(Mark(each.kind.value) for each in media))
    prompt = ChatPrompt(conversation=Conversation(turns=[ChatTurn(role="user", text=text, parts=parts)]))
    return replace(world.submission(request_id, **options), prompt=prompt, media=media)


async def test_a_prompt_goes_to_an_executor_that_takes_all_kinds_in_it() -> None:
    async with World() as world:
        world.add("text")
        world.add("sees", media=(SEES,))
        world.add("both", media=(SEES, HEARS))
        for number in range(4):  # the others, which have nothing to do, would be better otherwise
            subscription = await world.plane.intake.submit(asking(world, f"r{number}", *MEDIA, max_tokens=50))
            await world.advance(0.1)
        assert [len(each.held) for each in world.executors.values()] == [0, 0, 4]
        assert subscription.live.request.prompt_tokens == len("?") + 20 + 50


async def test_what_no_executor_takes_is_refused_with_what_the_model_takes() -> None:
    async with World() as world:
        world.add("text")
        world.add("sees", media=(SEES,))
        with pytest.raises(InvalidRequest) as refused:
            await world.plane.intake.submit(asking(world, "r", *MEDIA))
        [fault] = refused.value.violations
        assert (fault.field, fault.description) == ("here", f"is an audio clip; model {MODEL!r} takes text and images")


async def test_audio_goes_on_with_its_request_where_an_executor_is_left() -> None:
    async with World() as world:
        world.add("one", media=(HEARS,))
        await world.plane.intake.submit(asking(world, "r", MEDIA[0], max_tokens=500))
        await world.advance(0.2)
        world.add("two", media=(HEARS,))
        world.executors["one"].crash()
        await world.advance(1)
        [held] = world.executors["two"].held.values()
        assert held.order.continuation is not None
        assert [each.data for each in held.order.request.media] == [b"clip"]


async def test_a_model_is_shown_with_what_any_of_its_executors_takes() -> None:
    async with World() as world:
        world.add("text")
        world.add("both", media=(SEES, HEARS))
        [view] = ModelFiles(world.plane.scheduler, world.plane.models, TokenizerStore(), world.clock).listed().models
        assert (view.most_images, view.image_placeholder_token_id) == (2, IMAGE_ID)
        assert (view.audio_input.most_clips, view.audio_input.placeholder_token_id) == (2, AUDIO_ID)
        assert (view.audio_input.most_seconds, view.audio_input.rate_hz) == (30, 16_000)


async def test_the_files_to_process_media_with_are_of_an_executor_that_takes_them() -> None:
    async with World() as world:
        files = ModelFiles(world.plane.scheduler, world.plane.models, Documents(), world.clock)
        world.add("a, text only")
        [without] = files.listed().models
        world.add("b", media=(HEARS,), processor_files={"preprocessor_config.json": "{}"})
        [view] = files.listed().models
        first = next(await files.files(MODEL))
        assert first.configuration.processor_files == {"preprocessor_config.json": "{}"}
        assert view.files_hash == first.configuration.model.files_hash != without.files_hash


async def test_a_prompt_is_hashed_up_to_its_first_image_or_clip() -> None:
    async with World() as world:
        world.add("a", media=(SEES, HEARS), prefix_caching=True, kv_block_size=64)
        text = "t" * 80
        live = (await world.plane.intake.submit(asking(world, "r", *MEDIA, text=text))).live
        assert live.request.prefix_hashes == prefix_hashes([ord(each) for each in text], 64, model=MODEL)
