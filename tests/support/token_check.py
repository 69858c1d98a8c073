"""Compares the tokens of a stream with those they have to be."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 3  # tokens of either side


def first_difference(got: Sequence[int], wanted: Sequence[int]) -> str | None:
    """Where ``got`` departs from ``wanted``, and how; None if they are equal."""
    for position, (mine, theirs) in enumerate(zip(got, wanted, strict=False)):
        if mine != theirs:
            return (
                f"token {position} is {mine}, wanted {theirs}: got ...{list(got[position : position + SHOWN])}, "
                f"wanted ...{list(wanted[position : position + SHOWN])}"
            )
    if len(got) != len(wanted):
        return f"{len(got)} tokens, wanted {len(wanted)}"
    return None


def assert_tokens(got: Sequence[int], wanted: Sequence[int], who: str = "") -> None:
    """Raises AssertionError naming the first lost, doubled or changed token."""
    found = first_difference(got, wanted)
    assert found is None, f"{who}: {found}" if who else found
