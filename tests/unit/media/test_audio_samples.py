"""Audio clips become samples of one channel at the model's rate, within bounds that their headers cannot lie about."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sage_media import audio_samples
from sage_media.audio_samples import BadAudio, as_wav, missing_libraries, samples_of
from tests.support.sounds import encoded, tone, wav

RATE = 16_000


def heard(samples: Any) -> float:
    """The frequency of a tone in Hz, at RATE."""
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * RATE / len(samples))


def read(*clips: bytes, most_seconds: float = 30.0) -> list[Any]:
    return samples_of(clips, RATE, most_seconds)


def test_a_wav_at_the_models_rate_is_taken_as_it_is() -> None:
    [found] = read(wav(tone(440)))
    assert found.dtype == np.float32
    expected = (tone(440) * 32767).astype("<i2") / np.float32(32768)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", ["FLAC", "OGG", "MP3", "WAV"])
@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_each_format_is_brought_to_the_models_rate(name: str, rate: int) -> None:
    [found] = read(encoded(tone(440, 1.0, rate), rate, name))
    assert len(found) == pytest.approx(RATE, rel=0.1)  # MP3 has whole frames
    assert heard(found) == pytest.approx(440, abs=3)


def test_channels_are_mixed() -> None:
    left, right = tone(440), tone(880)
    [found] = read(wav(np.stack([left, right], axis=1)))
    assert np.allclose(found, (left + right) / 2, atol=1e-4)


def test_a_clip_is_read_block_by_block_to_the_same_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = encoded(tone(440, 1.0, 22_050), 22_050, "FLAC")
    [whole] = read(clip)
    monkeypatch.setattr(audio_samples, "_BLOCK_FRAMES", 1_000)
    [pieces] = read(clip)
    assert np.array_equal(whole, pieces)


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (b"noise", "cannot be decoded"),
        (b"", "cannot be decoded"),
        (wav(tone(440))[:20], "cannot be decoded"),
        (encoded(tone(440), RATE, "AIFF"), "is no audio of these formats: FLAC, MP3, OGG, WAV"),
        (wav(tone(440, 0.0)), "is shorter than 0.1 s"),
        (wav(tone(440, 0.09)), "is shorter than 0.1 s"),
        (wav(tone(440, 2.1)), "is longer than 2 s"),
        (wav(tone(440, 2.1, 48_000), 48_000), "is longer than 2 s"),
        (wav(np.zeros((RATE, 9), dtype=np.float32)), "has 9 channels; the limit is 8"),
        (wav(tone(440, 0.1, 2_000), 2_000), "has 2000 samples per second"),
        (as_wav(np.full(RATE, np.nan, dtype=np.float32), RATE, "FLOAT"), "no numbers"),
    ],
    ids=[
        "noise",
        "empty",
        "cut",
        "format",
        "nothing",
        "short",
        "long",
        "long at another rate",
        "channels",
        "rate",
        "NaN",
    ],
)
def test_what_cannot_be_taken_is_refused_by_its_place(clip: bytes, words: str) -> None:
    with pytest.raises(BadAudio, match=words) as bad:
        read(wav(tone(440)), clip, most_seconds=2.0)
    assert bad.value.index == 1


def test_a_clip_as_long_as_the_model_takes_is_not_cut() -> None:
    [found] = read(wav(tone(440, 2.0, 48_000), 48_000), most_seconds=2.0)
    assert len(found) == 2 * RATE


def test_a_small_file_that_unpacks_to_hours_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence packs well: its header is honest, and is not what is relied on."""
    clip = encoded(np.zeros(RATE * 300, dtype=np.float32), RATE, "FLAC")
    assert len(clip) < 100_000
    monkeypatch.setattr(audio_samples, "_BLOCK_FRAMES", RATE)
    blocks: list[int] = []
    mixed = audio_samples._mixed

    def counted(*given: Any) -> Iterator[Any]:
        for each in mixed(*given):
            blocks.append(len(each))
            yield each

    monkeypatch.setattr(audio_samples, "_mixed", counted)
    with pytest.raises(BadAudio, match="is longer than 3 s"):
        read(clip, most_seconds=3.0)
    assert blocks == [RATE] * 3


def test_a_clip_at_a_high_rate_takes_no_more_memory_than_its_samples_at_the_models_rate() -> None:
    clip = encoded(np.zeros(192_000 * 60, dtype=np.float32), 192_000, "FLAC")
    tracemalloc.start()
    try:
        [found] = read(clip, most_seconds=60.0)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 60 * RATE
    assert most < 192_000 * 60 * 4 / 2  # bytes of all samples before they are brought to the rate


def test_all_clips_of_a_request_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_samples, "AUDIO_LIMIT_SECONDS", 2.5)
    assert len(read(wav(tone(440)), wav(tone(440)))) == 2
    with pytest.raises(BadAudio, match="all clips together longer than") as bad:
        read(*[wav(tone(440))] * 3)
    assert bad.value.index == 2


def test_samples_survive_a_wav() -> None:
    [found] = read(as_wav(tone(440), RATE))
    assert np.allclose(found, tone(440), atol=1e-4)


def test_the_libraries_are_here_and_their_lack_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_libraries() == ()
    monkeypatch.setattr(audio_samples, "find_spec", lambda name: None if name == "soxr" else object())
    assert missing_libraries() == ("soxr",)
