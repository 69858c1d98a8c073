"""Everything a caller may say about one request, beside a text prompt.  One list for both clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sage_client._enums import NoInstance, Priority, ResumeMode
from sage_client._sampling import SamplingOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatMessage:
    """One turn of a conversation."""

    role: str  # "system", "user", "assistant", "tool"
    content: str
    name: str = ""


class GenerateOptions(SamplingOptions, total=False):
    """Keyword arguments of ``generate``; those of sampling are among them.  Durations are seconds."""

    # What to generate from: exactly one of a text prompt, `messages` and `token_ids`.
    messages: Sequence[ChatMessage | Mapping[str, str]]  # a conversation, for the model's own chat template
    token_ids: Sequence[int]
    model: str  # may be left out if the fleet serves exactly one
    adapter: str  # LoRA adapter by name
    add_special_tokens: bool  # the tokenizer's, to a text prompt; default true
    continue_final_message: bool  # generate inside the last message instead of a new one
    template_arguments: Mapping[str, Any]  # further variables of the chat template
    # What is expected of it.
    priority: Priority | int | str  # default NORMAL
    deadline: float  # acceptance to last token; the request expires then
    ttft_target: float  # acceptance to first token; an aim, not a limit
    tpot_target: float  # per output token after the first; an aim, not a limit
    cost_budget: float  # in the currency of the instances' price
    # How it is treated.
    request_id: str  # unique per tenant; made by the client when left out
    tenant: str  # default: the client's
    session: str  # requests of one conversation, for cache affinity
    tags: Mapping[str, str]  # at most 16, 256 bytes each
    preferred_instance: str  # used if it is eligible and has room
    no_instance: NoInstance | str  # default "fail"
    resume_mode: ResumeMode | str  # default "strict"
    detached: bool  # keep generating when the client goes away; default false
    after_token: int  # stream from this output position on; default 0
    timeout: float  # bound of the whole stream; default: see AsyncClient
