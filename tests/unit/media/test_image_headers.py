"""Images are judged by their headers, before memory is taken for their pixels."""

from __future__ import annotations

import pytest

from sage_media.image_headers import bad_image
from tests.support.pictures import png

MEBI = 1024 * 1024


def test_images_within_the_limits_are_taken() -> None:
    assert bad_image([]) is None
    assert bad_image([png(8_192, 4_096), png(8_192, 4_096)]) is None


@pytest.mark.parametrize(
    ("images", "index", "words"),
    [
        ([png(8, 8), png(8_193, 4_096)], 1, "the limit of an image is 33554432"),
        ([png(8_192, 4_096)] * 2 + [png(1, 1)] * 3, 2, f"with those before it {64 * MEBI + 1}"),
        ([png(8, 8), b"noise"], 1, "is no image of these formats"),
        ([png(65_000, 65_000)], 0, "has far too many pixels; the limit of an image is 33554432"),
    ],
    ids=["one", "together", "noise", "bomb"],
)
def test_what_exceeds_them_is_refused_by_its_place(images: list[bytes], index: int, words: str) -> None:
    bad = bad_image(images)
    assert bad is not None
    assert bad[0] == index
    assert words in bad[1]
