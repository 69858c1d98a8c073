"""Capacity taken by one attempt."""

from __future__ import annotations

from math import inf

from scheduler_svc.domain.request import RequestKey


class Reservation:
    """Capacity taken by one attempt on one instance, from the decision until its slot and KV tokens are free.

    Times are seconds on the scheduler's clock.
    """

    __slots__ = (
        "assign_number",
        "attempt_number",
        "cached_tokens",
        "critical",
        "emitted_tokens",
        "finish_at",
        "first_token_at",
        "first_token_by",
        "first_token_in_s",
        "goes_behind",
        "goes_first",
        "instance_id",
        "key",
        "made_at",
        "max_tokens",
        "output_tokens",
        "parked",
        "prefill_s",
        "prefills",
        "prompt_tokens",
        "reachable_token_s",
        "seen",
        "start_delay_s",
        "token_s",
        "tokens",
        "tpot_target_s",
        "unhashed_tokens",
    )

    def __init__(
        self,
        *,
        key: RequestKey,
        instance_id: str,
        tokens: int,
        prompt_tokens: int,
        output_tokens: int,
        emitted_tokens: int,
        max_tokens: int,
        critical: bool,
        made_at: float,
        first_token_in_s: float,
        token_s: float,
        finish_in_s: float,
        prefills: bool = True,
        cached_tokens: int | None = None,
        first_token_by: float = inf,
        tpot_target_s: float = inf,
    ) -> None:
        self.attempt_number = 0  # set by the ledger
        self.key = key
        self.instance_id = instance_id
        self.tokens = tokens  # KV tokens held, whole blocks
        self.prompt_tokens = prompt_tokens  # of this attempt: emitted tokens of earlier ones included
        self.output_tokens = output_tokens  # predicted, of this attempt
        self.emitted_tokens = emitted_tokens  # by earlier attempts
        self.max_tokens = max_tokens  # of the request
        self.critical = critical  # whether its request is CRITICAL and so may take the reserved slot
        self.made_at = made_at
        self.first_token_in_s = first_token_in_s  # predicted, from made_at
        self.token_s = token_s  # predicted, per token after the first
        self.finish_at = made_at + finish_in_s  # predicted
        self.prefills = prefills  # False for a decode leg: its prompt is computed elsewhere
        self.cached_tokens = cached_tokens  # prompt tokens that the prefix cache is believed to hold; None: unknown
        self.unhashed_tokens = 0  # prompt tokens that no prefix hash covers
        self.prefill_s = 0.0  # seconds of engine time until the first token
        self.goes_first = self.goes_behind = False  # it took a slot; the latter: prompts were ahead
        self.start_delay_s = 0.0  # of ``first_token_in_s``: one of those in ``Margins``, set by the account
        self.parked = False  # its sequence is over, its KV blocks are still held: a prefill leg waiting to be fetched
        self.assign_number = 0  # 0: not sent yet; negative: an earlier scheduler sent it
        self.seen = False  # whether the engine's own figures include it
        self.first_token_at: float | None = None
        self.first_token_by = first_token_by  # to meet the request's target; inf: none, or it is met already
        self.tpot_target_s = tpot_target_s  # per token after the first; inf: none
        self.reachable_token_s = tpot_target_s  # the same, set by the account: inf where its engine cannot meet it
