"""Reads the images and audio of a request's conversation, and refuses what else is not text."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sage_client import AudioInput, Model
from sage_gateway.asgi import Receive, while_connected
from sage_gateway.content_parts import not_text
from sage_gateway.conversation_media import TYPES, BadPart, Fetch, Media, MediaPart, held_content, media_parts
from sage_gateway.error_answers import NOT_AVAILABLE, HttpError, Refused, invalid
from sage_gateway.media_memory import HeldMedia, MediaMemoryFull
from sage_media.audio_samples import BadAudio, as_wav, missing_libraries, samples_of
from sage_media.image_headers import bad_image
from sage_media.kinds import MEDIA_LIMIT, MEDIA_LIMIT_BYTES, MediaKind, taken

PROCESSING = ("mm_processor_kwargs", "media_io_kwargs")
"""vLLM's fields that change how its server processes images and audio; executors are not told of them."""

FULL_RETRY_S = 2.0
"""Seconds after which to ask again where running requests hold too many bytes of images and audio."""

DECODED_AT_ONCE = 4
"""Requests whose audio is decoded at the same time: what is being decoded is not counted yet."""

_IN_WORDS = {"an image": MediaKind.IMAGE, "audio": MediaKind.AUDIO}  # what ``not_text`` says


class MediaReader:
    """Reads images and audio out of bodies, or fetches them where it may."""

    def __init__(self, refusal: Callable[[str], Awaitable[HttpError | None]], fetch: Fetch | None = None) -> None:
        """``refusal``: says why nothing is read for the caller with a token; None if it may send requests here.

        ``fetch``: fetches content by its addresses; None: nothing is fetched.
        """
        self._refusal = refusal
        self._fetch = fetch
        self._decoding = ThreadPoolExecutor(DECODED_AT_ONCE, thread_name_prefix="decode-audio")

    async def read(
        self, path: str, fields: Mapping[str, Any], model: Model, token: str, receive: Receive, held: HeldMedia
    ) -> tuple[tuple[Media, ...], bool]:
        """Return the images and audio of a conversation in its order, and whether ``fields``, the body's, were changed.

        What was fetched is written into it, as vLLM's server fetches nothing; so is audio, at the model's rate, as that
        server cannot change it.  Content of a caller that the scheduler does not know is not read: vLLM's server
        would decode it before the scheduler sees the request.

        ``receive``: of the HTTP request, whose body has been read.  ``held``: counts what the request takes.

        Raises:
            Refused: a part is neither text nor content that can be sent, or there is no room for it now.
            ClientGone: the connection was closed while content was fetched, or audio was decoded.
        """
        try:
            parts = media_parts(path, fields, _limits(model))
            if (found := not_text(fields, {each.place for each in parts})) is not None:
                raise Refused(invalid(f"{found[0]} is {found[1]}; {_sends(path, model, found[1])}", found[0]))
            if not parts:
                return (), False
            if (refusal := await self._why_not(fields, parts, token)) is not None:
                raise Refused(refusal)
            away = [each for each in parts if each.is_address] if self._fetch is not None else []
            contents = await self._read(parts, away, receive, held)
            _check_bytes(parts, contents)
            await _check_images(parts, contents)
            heard = await self._put_audio(parts, contents, model.audio_input, receive, held)
        except BadPart as error:
            raise Refused(invalid(f"{error.place}: {error}", error.place)) from None
        except MediaMemoryFull as error:
            raise Refused(_full(error)) from None
        adapted = [each.adapt() for each in parts]
        return contents, bool(away) or heard or any(adapted)

    async def _why_not(self, fields: Mapping[str, Any], parts: Sequence[MediaPart], token: str) -> HttpError | None:
        """Return why no content is read for this request; None if it is."""
        if (name := next((each for each in PROCESSING if fields.get(each)), None)) is not None:
            return invalid(f"{name} is not supported by this server", name)
        audio = next((each.place for each in parts if each.kind is MediaKind.AUDIO), None)
        if audio is not None and (missing := missing_libraries()):
            what = f"this gateway lacks {', '.join(missing)}: pip install 'sage-control-plane[audio]'"
            return invalid(f"{audio} is audio, which cannot be read: {what}", audio)
        return await self._refusal(token)

    async def _read(
        self, parts: Sequence[MediaPart], away: Sequence[MediaPart], receive: Receive, held: HeldMedia
    ) -> tuple[Media, ...]:
        """Return the content of ``parts``, of which ``away`` have addresses.

        Raises BadPart, MediaMemoryFull and ClientGone.
        """
        fetched = {each.place for each in away}
        found = {each.place: held_content(each) for each in parts if each.place not in fetched}
        if self._fetch is not None and away:
            for part, content in zip(away, await while_connected(receive, self._fetch(away, held)), strict=True):
                part.put(content)
                found[part.place] = content
        return tuple(found[each.place] for each in parts)

    async def _put_audio(
        self,
        parts: Sequence[MediaPart],
        contents: Sequence[Media],
        takes: AudioInput | None,
        receive: Receive,
        held: HeldMedia,
    ) -> bool:
        """Write audio into the body as vLLM's server reads it; return whether there is any.

        Raises BadPart for what cannot be decoded, MediaMemoryFull, and ClientGone.
        """
        clips = [(part, each.data) for part, each in zip(parts, contents, strict=True) if part.kind is MediaKind.AUDIO]
        if not clips or takes is None:
            return False
        try:
            found = await while_connected(receive, self._decoded([data for _, data in clips], takes))
        except BadAudio as error:
            raise BadPart(clips[error.index][0].place, str(error)) from None
        held.take(sum(map(len, found)))
        for (part, _), wav in zip(clips, found, strict=True):
            part.put_samples(wav)
        return True

    async def _decoded(self, clips: Sequence[bytes], takes: AudioInput) -> list[bytes]:
        """Decode clips in a thread of their own, once there is one.  Raises BadAudio."""
        return await asyncio.get_running_loop().run_in_executor(self._decoding, _wavs, clips, takes)


def _limits(model: Model) -> dict[MediaKind, int]:
    """Return how many of each kind a model takes."""
    clips = model.audio_input.most_clips if model.audio_input is not None else 0
    return {MediaKind.IMAGE: min(MEDIA_LIMIT, model.most_images), MediaKind.AUDIO: min(MEDIA_LIMIT, clips)}


def _check_bytes(parts: Sequence[MediaPart], contents: Sequence[Media]) -> None:
    """Raise BadPart for the part with which all have more bytes than executors are sent."""
    size = 0
    for number, (part, content) in enumerate(zip(parts, contents, strict=True), 1):
        size += len(content.data)
        if size > MEDIA_LIMIT_BYTES:
            nouns = sorted({f"{each.kind.noun}s" for each in parts}, reverse=True)
            what = f"with this one, {number} {' and '.join(nouns)} have {size} bytes together"
            raise BadPart(part.place, f"{what}; the limit is {MEDIA_LIMIT_BYTES}")


async def _check_images(parts: Sequence[MediaPart], contents: Sequence[Media]) -> None:
    """Raise BadPart for the first image that may not be decoded: vLLM's server reads more formats than executors."""
    images = [(part, each.data) for part, each in zip(parts, contents, strict=True) if part.kind is MediaKind.IMAGE]
    if images and (bad := await asyncio.to_thread(bad_image, [data for _, data in images])) is not None:
        raise BadPart(images[bad[0]][0].place, bad[1])


def _wavs(clips: Sequence[bytes], takes: AudioInput) -> list[bytes]:
    return [as_wav(each, takes.rate_hz) for each in samples_of(clips, takes.rate_hz, takes.most_seconds)]


def _full(error: MediaMemoryFull) -> HttpError:
    return HttpError(
        status=503, kind=NOT_AVAILABLE, message=str(error), code="RESOURCE_EXHAUSTED", retry_after_s=FULL_RETRY_S
    )


def _sends(path: str, model: Model, what: str) -> str:
    """Say what a model is sent through a route.  ``what``: the part that is refused, in words."""
    kinds = [kind for kind, most in _limits(model).items() if most]
    kind = _IN_WORDS.get(what)
    if not kinds or (kind is not None and kind not in kinds):
        return f"model {model.name!r} takes {taken(kinds)}"
    if kind is not None and kind not in TYPES.get(path, {}).values():
        routes = (route for route, types in TYPES.items() if kind in types.values())
        return f"{kind.field} may be sent to {', '.join(routes)}"
    types = [name for name, of in TYPES.get(path, {}).items() if of in kinds]
    where = "messages of users and results of tools"
    fields = " and ".join(each.field for each in kinds if each in TYPES.get(path, {}).values())
    return f"this server sends models text, and {fields} as parts of type {', '.join(map(repr, types))} in {where}"
