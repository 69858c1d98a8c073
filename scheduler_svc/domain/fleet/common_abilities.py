"""What every one of several engines can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.most_asked import MostAsked
from scheduler_svc.domain.request import Request


@dataclass(frozen=True, kw_only=True, slots=True)
class CommonAbilities:
    """The requests without adapter and constraint that every one of several engines can serve."""

    longest: int = 0  # prompt and output in tokens, by model length and KV cache
    vocab_size: int = 0
    tokenizers: frozenset[str] = frozenset()  # hashes
    generate: bool = True  # none embeds

    @classmethod
    def of(cls, accounts: Sequence[Account], *, generate: bool = True) -> CommonAbilities:
        """Return those of the engines of some accounts.  ``generate``: False where some are meant to embed."""
        known = [a.facts for a in accounts if a.facts is not None]
        return cls(
            longest=min((min(a.max_model_len, a.capacity // a.block * a.block) for a in accounts), default=0),
            vocab_size=min((facts.vocab_size for facts in known), default=0),
            tokenizers=frozenset(facts.tokenizer_hash for facts in known),
            generate=generate and not any(facts.embedding_dimensions for facts in known),
        )

    def serve(self, request: Request, total_tokens: int) -> bool:
        """Return whether all can serve a request.  ``total_tokens``: prompt plus max_tokens."""
        if not self.generate or request.embedding is not None:
            return False  # each is asked: whether it embeds, and how long its vectors are
        if request.media:
            return False  # each is asked: an executor may lack what it reads a kind with
        return (
            total_tokens <= self.longest
            and request.largest_token_id < self.vocab_size
            and (not request.tokenizer_hash or self.tokenizers == {request.tokenizer_hash})
        )

    def serve_all(self, most: MostAsked) -> bool:
        """Return whether all can serve every request that asks for no more than this, and is plain."""
        return (
            self.generate
            and most.total_tokens <= self.longest
            and most.largest_token_id < self.vocab_size
            and len(most.tokenizers) < 2  # nobody serves requests of two
            and (not most.tokenizers or self.tokenizers == most.tokenizers)
        )
