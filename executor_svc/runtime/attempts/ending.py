"""How an attempt ends, before the scheduler is informed."""

from __future__ import annotations

from dataclasses import dataclass

from executor_svc.runtime.engine_port import FinishReason
from executor_svc.runtime.messages.outputs import EndCause


@dataclass(slots=True, kw_only=True)
class Ending:
    """Why an attempt ends, and what there is to say about it."""

    cause: EndCause
    message: str = ""
    field_name: str = ""  # with INVALID: contract path of the field at fault
    finish_reason: FinishReason | None = None  # with FINISHED
    stop_string: str = ""
    stop_token_id: int | None = None
