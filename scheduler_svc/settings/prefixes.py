"""Following prefix caches."""

from __future__ import annotations

from pydantic import Field

from sage_common.configuration import Section


class PrefixSection(Section):
    """Following prefix caches: prompts go where their beginning was computed before."""

    aware: bool = Field(
        default=True,
        description="Count the prompt tokens that an instance's prefix cache holds, and follow sessions, in placement.",
    )
    max_index_bytes: int = Field(
        default=256 * 2**20,
        ge=2**20,
        description="Most bytes of memory for the index of prefix caches, estimated; the oldest blocks go first.",
    )
    max_load_ratio: float = Field(
        default=1.25,
        ge=1,
        description="With more than this many times the mean load, an instance gets no request for its cache's sake.",
    )
