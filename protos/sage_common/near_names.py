"""Says which names there are, and which of them somebody meant who gave another one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice

LONGEST_NAME = 100
"""Characters of a name that is still compared: a caller may send megabytes."""

SHORTEST_BEGINNING = 3
"""Characters of a name that is taken for the beginning of others."""

MOST_COMPARED = 500
"""Names that are compared, at most: each takes some microseconds."""

MOST_MEANT = 3
"""Names that are suggested, at most."""


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that begin with ``name``, then those that are like it, the nearest first.

    Case, "-" and "_" make no difference.
    """
    if len(name) > LONGEST_NAME:
        return []
    wanted = _plain(name)
    plain = {_plain(each): each for each in islice(known, MOST_COMPARED)}
    longer = [each for each in plain if len(wanted) >= SHORTEST_BEGINNING and each.startswith(wanted)]
    near = dict.fromkeys((*longer, *difflib.get_close_matches(wanted, plain, n=MOST_MEANT)))
    return [plain[each] for each in islice(near, MOST_MEANT)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence, ``"; did you mean fifo?"``; empty if no known name is like ``name``."""
    near = near_names(name, known)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def names_instead(name: str, known: Iterable[str], *, title: str = "there are") -> str:
    """Return the end of a sentence that suggests the nearest known names and lists all, in the order given.

    For example ``"; did you mean fifo? There are: adaptive, fifo"``, or ``"; there are: none"``.
    """
    names = tuple(known)
    meant = did_you_mean(name, names)
    title = f"{meant} {title[0].upper()}{title[1:]}" if meant else f"; {title}"
    return f"{title}: {', '.join(names) or 'none'}"


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_")
