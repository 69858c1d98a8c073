"""Decides which instances can serve a request at all, and which have capacity for it now.

Every filter has a name and gives its reason in words; the explanation shows both for each instance it took out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sage_media.kinds import input_of, taken
from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import Column, lowest
from scheduler_svc.domain.capacity.kv_blocks import whole_blocks
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.media import kinds_of, of_kind, tokens_of
from scheduler_svc.domain.request import Request

_HASH_SHOWN = 12  # characters
_FEW = 4  # instances that take a prompt: to look at these is faster than to compare all
_FAILED_HERE = "the request failed there before"

#: Returns why the engine cannot serve the request, or None if it can.  ``total_tokens``: prompt plus max_tokens.
FactsFilter = Callable[[EngineFacts, Request, int], str | None]


def task(facts: EngineFacts, request: Request, total_tokens: int) -> str | None:
    """Say why an engine cannot do what the request asks, to generate or to embed; None if it can."""
    if request.embedding is None:
        return "does not generate" if facts.embedding_dimensions else None
    if not facts.embedding_dimensions:
        return "does not embed"
    wanted = request.embedding.dimensions
    if wanted is not None and wanted > facts.embedding_dimensions:
        return f"makes vectors of {facts.embedding_dimensions} numbers; the request asks for {wanted}"
    return None


def adapter(facts: EngineFacts, request: Request, total_tokens: int) -> str | None:
    """Say why an engine lacks the request's adapter; None if it has it."""
    if not request.adapter or request.adapter in facts.adapters:
        return None
    if request.adapter in facts.run_time.loadable:
        return f"does not hold the adapter {request.adapter!r} yet"
    return f"does not have the adapter {request.adapter!r} (has: {', '.join(sorted(facts.adapters)) or 'none'})"


def structured_output(facts: EngineFacts, request: Request, total_tokens: int) -> str | None:
    """Say why an engine cannot constrain output as the request asks; None if it can."""
    wanted = request.sampling.structured_output
    if wanted is None or wanted.kind in facts.structured_output_kinds:
        return None
    kinds = ", ".join(sorted(facts.structured_output_kinds)) or "none"
    return f"does not constrain output by {wanted.kind} (does: {kinds})"


def media(facts: EngineFacts, request: Request, total_tokens: int) -> str | None:
    """Say why an engine cannot take the request's images or audio; None if it can."""
    if not request.media:
        return None
    for kind in kinds_of(request.media):
        count, takes = len(of_kind(request.media, kind)), input_of(facts.media, kind)
        if takes is None:
            return f"takes {taken(each.kind for each in facts.media)}; the request has {count} {kind.noun}s"
        if count > takes.most:
            return f"takes {takes.most} {kind.noun}s; the request has {count}"
    if (most := tokens_of(request.media, facts.media)) > request.media_tokens:
        return f"puts up to {most} tokens beside the placeholders of images and audio; the request counts fewer"
    return None


def model_length(facts: EngineFacts, request: Request, total_tokens: int) -> str | None:
    """Say why prompt and ``max_tokens`` do not fit the engine's model; None if they do."""
    if total_tokens <= facts.max_model_len:
        return None
    return f"serves {facts.max_model_len} tokens of prompt and output; the request asks for {total_tokens}"


def tokenizer(facts: EngineFacts, request: Request, total_tokens: int) -> str | None:
    """Say why an engine reads the prompt's token ids otherwise than the caller wrote it; None if it does not."""
    if request.tokenizer_hash in ("", facts.tokenizer_hash):
        return None
    theirs, ours = facts.tokenizer_hash[:_HASH_SHOWN], request.tokenizer_hash[:_HASH_SHOWN]
    return f"has the tokenizer {theirs}; the prompt was tokenized by {ours}"


def vocabulary(facts: EngineFacts, request: Request, total_tokens: int) -> str | None:
    """Say why a token id of the request is none of the engine's; None if all are."""
    if request.largest_token_id < facts.vocab_size:
        return None
    return f"has token ids below {facts.vocab_size}; the request names {request.largest_token_id}"


def kv_capacity(facts: EngineFacts, request: Request, total_tokens: int) -> str | None:
    """Say why prompt and ``max_tokens`` do not fit the engine's whole KV cache; None if they do."""
    need = whole_blocks(total_tokens, facts.kv_block_size)
    if need <= facts.kv_capacity_tokens:
        return None
    return f"has KV capacity for {facts.kv_capacity_tokens} tokens; the request may take {need}"


FACTS_FILTERS: tuple[tuple[str, FactsFilter], ...] = (
    ("task", task),
    ("adapter", adapter),
    ("structured_output", structured_output),
    ("media", media),
    ("tokenizer", tokenizer),
    ("vocabulary", vocabulary),
    ("model_length", model_length),
    ("kv_capacity", kv_capacity),
)


def cannot_serve(facts: EngineFacts, request: Request, total_tokens: int) -> tuple[str, str] | None:
    """Return the first filter that takes the engine out, and why; None if it can serve the request once it is free."""
    for name, facts_filter in FACTS_FILTERS:
        reason = facts_filter(facts, request, total_tokens)
        if reason is not None:
            return name, reason
    return None


def with_slots(accounts: Accounts, demand: Demand) -> Accounts:
    """Return the instances with KV tokens and a slot for a leg of a split request, whatever prompts are ahead there.

    Otherwise requests that should be split would run whole in every burst.
    """
    each = accounts.figures
    limit = each.slot_limit_leaving_reserve if demand.must_leave_reserve else each.slot_limit
    return accounts.where((each.free_tokens >= float(demand.tokens)) & (limit >= float(demand.prompt_tokens)))


def with_kv(accounts: Accounts, demand: Demand) -> Accounts:
    """Return the instances with KV tokens for a request now, whether or not they have a slot for it."""
    return accounts.where(accounts.figures.free_tokens >= float(demand.tokens))


def prompt_limit(*, leaves_reserve: bool, overtakes: bool) -> str:
    """Return the name of the figure that says how long a prompt an instance takes, as in ``Demand``."""
    return "urgent_limit" if overtakes else "prompt_limit_leaving_reserve" if leaves_reserve else "prompt_limit"


def with_capacity(accounts: Accounts, demand: Demand) -> Accounts:
    """Return the instances with capacity for a request now: KV tokens, and a slot or a place in the engine's queue."""
    tokens, prompt, reserve = float(demand.tokens), float(demand.prompt_tokens), demand.must_leave_reserve
    name = prompt_limit(leaves_reserve=reserve, overtakes=demand.overtakes)
    if prompt and (few := accounts.few_open(_FEW, leaving_reserve=reserve)) is not None:
        return accounts.at([row for row, a in few if a.free_tokens >= tokens and getattr(a, name) >= prompt])
    each = accounts.figures
    limit: Column = getattr(each, name)
    if len(limit) and lowest(limit) >= prompt and lowest(each.free_tokens) >= tokens:
        return accounts  # mostly so, and told sooner than which they are
    return accounts.offered((each.free_tokens >= tokens) & (limit >= prompt))


def able(accounts: Accounts, demand: Demand) -> tuple[Accounts, list[tuple[str, str, str]]]:
    """Return the instances that can serve the request once they are free, and the others as id, filter, reason.

    ``demand.excluded`` instances are among the others, unless only excluded instances can serve the request.
    """
    refusals = [_refusal(a, demand) for a in accounts]
    out = [(a.instance_id, *why) for a, why in zip(accounts, refusals, strict=True) if why is not None]
    found = accounts.where(np.array([why is None for why in refusals], dtype=np.bool_))
    if not demand.excluded:
        return found, out
    kept = found.where(np.array([a.instance_id not in demand.excluded for a in found], dtype=np.bool_))
    if not 0 < len(kept) < len(found):
        return found, out
    return kept, out + [(a.instance_id, "excluded", _FAILED_HERE) for a in found if a.instance_id in demand.excluded]


def _refusal(account: Account, demand: Demand) -> tuple[str, str] | None:
    """Return the first filter that takes the instance out whatever its free capacity, and why; None if it serves."""
    assert account.facts is not None, "a pool offers instances whose engine is known"
    refusal = cannot_serve(account.facts, demand.request, demand.total_tokens)
    if refusal is None and demand.identity is not None:
        own = account.facts.identity_for(demand.request.adapter)
        if own != demand.identity:
            return "identity", f"runs another model under this name ({own})"
    return refusal


def no_capacity_reason(
    free_slots: int, free_tokens: int, prefill_ahead_s: float, needed_tokens: int, must_leave_reserve: bool
) -> tuple[str, str]:
    """Return the filter's name and the reason why an instance had no capacity, from its figures at that time.

    ``prefill_ahead_s``: ``Account.full_prefill_s``.
    """
    if needed_tokens > free_tokens:
        return "kv_tokens", f"{max(0, free_tokens)} KV tokens free, {needed_tokens} needed"
    if prefill_ahead_s > 0 and free_slots > 0:
        return "prefill", f"prompts of {prefill_ahead_s:.2f} s are ahead at its engine"
    if free_slots > 0 and must_leave_reserve:
        return "reserved_slot", "what it has free is reserved for CRITICAL"
    queued = f", {-free_slots} more queued at its engine" if free_slots < 0 else ""
    return "slots", f"no slot free{queued}"
