"""Pictures that a model tells apart, encoded."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

from PIL import Image


def _encoded(image: Image.Image, encoding: str) -> bytes:
    out = BytesIO()
    image.save(out, encoding)
    return out.getvalue()


PICTURES: dict[str, Callable[[], bytes]] = {
    "red": lambda: _encoded(Image.new("RGB", (40, 30), (255, 0, 0)), "PNG"),
    "blue": lambda: _encoded(Image.new("RGB", (64, 64), (0, 0, 255)), "JPEG"),
    "radial": lambda: _encoded(Image.radial_gradient("L").resize((90, 60)).convert("RGB"), "WEBP"),
    "linear": lambda: _encoded(Image.linear_gradient("L").convert("RGBA"), "PNG"),
}
