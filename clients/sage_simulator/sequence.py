"""One request inside a modelled engine."""

from __future__ import annotations

from collections.abc import Sequence as Items


class Sequence:
    """A request that a modelled engine holds: what it has computed and emitted, and which KV prefixes it holds."""

    __slots__ = (
        "cached_tokens",
        "computed",
        "decoding",
        "emitted",
        "ends_at_step",
        "fetched",
        "fetches_kv",
        "held",
        "held_blocks",
        "keeps_kv",
        "number",
        "order",
        "output_tokens",
        "prefix_ends",
        "prefixes",
        "prompt_tokens",
        "published",
    )

    def __init__(
        self,
        number: int,
        *,
        prompt_tokens: int,
        output_tokens: int,
        order: tuple[int, int],
        prefixes: Items[int] = (),
        prefix_ends: Items[int] = (0,),
        keeps_kv: bool = False,
        fetches_kv: bool = False,
    ) -> None:
        self.number = number  # of the attempt
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens  # that it will emit
        self.order = order  # engine priority, number of arrival: the smallest goes first
        self.prefixes = prefixes  # hashes of the prompt's KV blocks
        self.prefix_ends = prefix_ends  # whole KV blocks that the first n hashes stand for, by n
        self.computed = 0  # tokens in the KV cache; while it decodes, as of the last join (see EngineModel)
        self.emitted = 0  # likewise
        self.cached_tokens = 0  # prompt tokens found in the cache, at the latest start
        self.decoding = False
        self.ends_at_step = 0  # number of the step that emits the last token, while it decodes
        self.held: list[int] = []  # prefixes it holds
        self.held_blocks = 0  # their blocks
        self.published = 0  # prefixes that were looked up or published so far
        self.keeps_kv = keeps_kv  # after its end, for another engine
        self.fetches_kv = fetches_kv  # of its prompt, from another engine, before it begins
        self.fetched = False  # it holds the KV that it fetched, and has not begun

    @property
    def to_compute(self) -> int:
        """Tokens to compute before the next token can be emitted."""
        return self.prompt_tokens + self.emitted - self.computed
