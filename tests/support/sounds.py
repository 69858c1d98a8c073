"""Audio clips, encoded."""

from __future__ import annotations

import wave
from io import BytesIO
from typing import Any

import numpy as np


def tone(hz: float, seconds: float = 1.0, rate: int = 16_000) -> Any:
    """Samples of a sine from -0.5 to 0.5."""
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def wav(samples: Any, rate: int = 16_000) -> bytes:
    """A WAV of 16 bits; ``samples``: of one channel, or a column for each."""
    frames = samples if samples.ndim == 2 else samples[:, None]
    out = BytesIO()
    with wave.open(out, "wb") as writer:
        writer.setnchannels(frames.shape[1])
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes((frames * 32767).astype("<i2").tobytes())
    return out.getvalue()


def encoded(samples: Any, rate: int, name: str) -> bytes:
    """The same in another format, by libsndfile's name for it."""
    import soundfile

    out = BytesIO()
    soundfile.write(out, samples, rate, format=name)
    return out.getvalue()
