"""Which instances can take a request at all, and which have room for it now.

Every filter has a name, which stands in the explanation of what it took out, and gives its reason in words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.ledger import Account
from scheduler_svc.domain.placement.ask import Ask
from scheduler_svc.domain.request import Request

_FAILED_HERE = "the request failed there before"

#: None if the engine can serve the request; else why not.  ``total_tokens``: prompt and all that max_tokens allows.
FactsFilter = Callable[[EngineFacts, Request, int], str | None]


def adapter(facts: EngineFacts, request: Request, total_tokens: int) -> str | None:
    if not request.adapter or request.adapter in facts.adapters:
        return None
    return f"does not have the adapter {request.adapter!r} (has: {', '.join(sorted(facts.adapters)) or 'none'})"


def structured_output(facts: EngineFacts, request: Request, total_tokens: int) -> str | None:
    wanted = request.sampling.structured_output
    if wanted is None or wanted.kind in facts.structured_output_kinds:
        return None
    kinds = ", ".join(sorted(facts.structured_output_kinds)) or "none"
    return f"does not constrain output by {wanted.kind} (does: {kinds})"


def model_length(facts: EngineFacts, request: Request, total_tokens: int) -> str | None:
    if total_tokens <= facts.max_model_len:
        return None
    return f"serves {facts.max_model_len} tokens of prompt and output; the request asks for {total_tokens}"


def kv_capacity(facts: EngineFacts, request: Request, total_tokens: int) -> str | None:
    need = whole_blocks(total_tokens, facts.kv_block_size)
    if need <= facts.kv_capacity_tokens:
        return None
    return f"has KV room for {facts.kv_capacity_tokens} tokens; the request may take {need}"


FACTS_FILTERS: tuple[tuple[str, FactsFilter], ...] = (
    ("adapter", adapter),
    ("structured_output", structured_output),
    ("model_length", model_length),
    ("kv_capacity", kv_capacity),
)


def cannot_serve(facts: EngineFacts, request: Request, total_tokens: int) -> tuple[str, str] | None:
    """The first filter that takes the engine out, and why; None if it can serve the request some time."""
    for name, facts_filter in FACTS_FILTERS:
        reason = facts_filter(facts, request, total_tokens)
        if reason is not None:
            return name, reason
    return None


def whole_blocks(tokens: int, block: int) -> int:
    """``tokens`` rounded up to KV blocks."""
    return -(-tokens // block) * block


def has_room(account: Account, ask: Ask) -> bool:
    """Whether the request could be sent there now: a slot to run in or the lookahead, and KV room."""
    room = account.common_room if ask.headroom else account.prompt_room
    return ask.tokens <= account.free_tokens and ask.prompt_tokens <= room


def with_room(accounts: Sequence[Account], ask: Ask) -> Sequence[Account]:
    """Those with room; the very same sequence if all have."""
    need, prompt = ask.tokens, ask.prompt_tokens
    if ask.headroom:
        found = [a for a in accounts if need <= a.free_tokens and prompt <= a.common_room]
    else:
        found = [a for a in accounts if need <= a.free_tokens and prompt <= a.prompt_room]
    return accounts if len(found) == len(accounts) else found


def able(accounts: Sequence[Account], ask: Ask) -> tuple[Sequence[Account], list[tuple[str, str, str]]]:
    """Those that can serve the request some time; the others as instance id, filter, reason.

    Instances to avoid are taken out unless they are the only ones.
    """
    found: list[Account] = []
    out: list[tuple[str, str, str]] = []
    for account in accounts:
        assert account.facts is not None, "a pool offers instances whose engine is known"
        refusal = cannot_serve(account.facts, ask.request, ask.total_tokens)
        if refusal is None:
            found.append(account)
        else:
            out.append((account.instance_id, *refusal))
    kept = [a for a in found if a.instance_id not in ask.excluded]
    if kept and len(kept) < len(found):
        out += [(a.instance_id, "excluded", _FAILED_HERE) for a in found if a.instance_id in ask.excluded]
        return kept, out
    return found, out


def no_room_reason(free_slots: int, free_tokens: int, ask_tokens: int, headroom: bool) -> tuple[str, str]:
    """Name of the filter and reason, from the figures at the time."""
    if ask_tokens > free_tokens:
        return "kv_room", f"{max(0, free_tokens)} KV tokens free, {ask_tokens} needed"
    if free_slots > 0 and headroom:
        return "headroom", "its last free slot is kept for CRITICAL"
    queued = f", {-free_slots} more queued at its engine" if free_slots < 0 else ""
    return "slots", f"no slot free{queued}"
