"""Images are judged by their headers, before memory is taken for their pixels."""

from __future__ import annotations

import struct
import zlib

import pytest

from executor_svc.engine.vllm.image_input import check_images
from executor_svc.runtime.engine_port import EngineImage, InvalidRequestError

MEBI = 1024 * 1024


def png(width: int, height: int) -> EngineImage:
    """A PNG that says how large it is, and has no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    end = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return EngineImage(data=b"\x89PNG\r\n\x1a\n" + chunk + end, digest="")


def test_images_within_the_limits_are_taken() -> None:
    check_images([])
    check_images([png(8_192, 4_096), png(8_192, 4_096)])


@pytest.mark.parametrize(
    ("images", "place", "words"),
    [
        ([png(8, 8), png(8_193, 4_096)], "images[1]", "the limit of an image is 33554432"),
        ([png(8_192, 4_096)] * 2 + [png(1, 1)] * 3, "images[2]", f"with those before it {64 * MEBI + 1}"),
        ([png(8, 8), EngineImage(data=b"noise", digest="")], "images[1]", "is no image of these formats"),
    ],
)
def test_what_exceeds_them_is_refused_by_its_place(images: list[EngineImage], place: str, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words) as refused:
        check_images(images)
    assert refused.value.field_name == place
