"""Puts tables into a page that people write the rest of."""

from __future__ import annotations

from pathlib import Path

BEGIN, END = "<!-- printed tables: begin -->", "<!-- printed tables: end -->"


def put_tables(page: Path, tables: str) -> None:
    """Replace what stands between the two marks of a Markdown page.  Raises ValueError where a mark is missing."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}, between which the tables go")
    page.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}", encoding="utf-8")
