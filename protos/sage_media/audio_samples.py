"""Makes samples of audio clips at the rate that a model takes, within bounds.

Needs the extra ``audio``: soundfile, which brings libsndfile and decodes, and soxr, which changes the rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from io import BytesIO
from typing import Any

AUDIO_FORMATS = frozenset({"WAV", "WAVEX", "FLAC", "OGG", "MP3"})
"""Containers of audio, by the names of libsndfile, which reads them."""

AUDIO_LIMIT_SECONDS = 600.0
"""Longest audio of a request, all clips together, whatever a model takes: 38 MB of samples at 16 kHz."""

AUDIO_LEAST_SECONDS = 0.1
"""Shortest clip: models make no token of the few samples that are shorter."""

RATES_HZ = (4_000, 192_000)
"""Lowest and highest rate of a clip."""

CHANNELS_LIMIT = 8
"""Most channels of a clip; they are mixed to one."""

LIBRARIES = ("soundfile", "soxr")

_BLOCK_FRAMES = 1 << 18  # decoded at a time: 8 MiB of eight channels


class BadAudio(Exception):
    """A clip cannot be decoded, or is too long; ``str()`` says why.

    Attributes:
        index: of the clip in the request.
    """

    def __init__(self, index: int, what: str) -> None:
        self.index = index
        super().__init__(what)


def missing_libraries() -> tuple[str, ...]:
    """Return which of the libraries that read audio are not installed."""
    return tuple(name for name in LIBRARIES if find_spec(name) is None)


def samples_of(clips: Sequence[bytes], rate_hz: int, most_seconds: float) -> list[Any]:
    """Return the samples of clips, each a float32 array of one channel at ``rate_hz``.

    ``most_seconds``: that a clip may last.  A clip is decoded, mixed and brought to the rate block by block: it takes
    memory for its samples at ``rate_hz``, whatever its own rate is, and no more if it is too long.  What its header
    says is not relied on.

    Raises:
        BadAudio: a clip is of another format, is broken, empty or too long, or all together are.
    """
    found, left = [], AUDIO_LIMIT_SECONDS
    for index, clip in enumerate(clips):
        try:
            samples = _resampled(clip, rate_hz, most_seconds, left)
        except ValueError as error:
            raise BadAudio(index, str(error)) from None
        left -= len(samples) / rate_hz
        found.append(samples)
    return found


def as_wav(samples: Any, rate_hz: int, subtype: str = "PCM_16") -> bytes:
    """Encode samples of one channel as a WAV.  ``subtype``: libsndfile's name for how a sample is written."""
    import soundfile

    out = BytesIO()
    soundfile.write(out, samples, rate_hz, format="WAV", subtype=subtype)
    return out.getvalue()


def _resampled(clip: bytes, rate_hz: int, most_seconds: float, left: float) -> Any:
    """Return a clip's samples.  ``left``: seconds that all clips may still have.  Raises ValueError."""
    import numpy as np
    import soundfile

    try:
        with soundfile.SoundFile(BytesIO(clip)) as opened:
            _check_form(opened)
            blocks = _at_rate(_mixed(opened, most_seconds, left), opened.samplerate, rate_hz)
            samples = np.concatenate([np.zeros(0, dtype=np.float32), *blocks])
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise ValueError(f"cannot be decoded: {error}") from None
    if len(samples) < AUDIO_LEAST_SECONDS * rate_hz:
        raise ValueError(f"is shorter than {AUDIO_LEAST_SECONDS:g} s")
    if not np.isfinite(samples).all():
        raise ValueError("has samples that are no numbers")
    return np.ascontiguousarray(samples[: int(most_seconds * rate_hz)], dtype=np.float32)


def _check_form(opened: Any) -> None:
    """Raise ValueError for a format, a rate or channels that are not read."""
    if opened.format not in AUDIO_FORMATS:
        raise ValueError(f"is no audio of these formats: {', '.join(sorted(AUDIO_FORMATS - {'WAVEX'}))}")
    lowest, highest = RATES_HZ
    if not lowest <= opened.samplerate <= highest:
        raise ValueError(f"has {opened.samplerate} samples per second; it must have {lowest} to {highest}")
    if opened.channels > CHANNELS_LIMIT:
        raise ValueError(f"has {opened.channels} channels; the limit is {CHANNELS_LIMIT}")


def _at_rate(blocks: Iterator[Any], rate: int, rate_hz: int) -> Iterator[Any]:
    """Yield the samples of blocks at another rate.  ``rate``: theirs."""
    import numpy as np
    import soxr

    if rate == rate_hz:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, rate_hz, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _mixed(opened: Any, most_seconds: float, left: float) -> Iterator[Any]:
    """Yield the mean of all channels, block by block.  Raises ValueError for a clip that is too long."""
    import numpy as np

    frames, rate = 0, opened.samplerate
    while len(block := opened.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        frames += len(block)
        if frames > most_seconds * rate:
            raise ValueError(f"is longer than {most_seconds:g} s, which the model takes at most")
        if frames > left * rate:
            raise ValueError(f"makes all clips together longer than {AUDIO_LIMIT_SECONDS:g} s")
        yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
