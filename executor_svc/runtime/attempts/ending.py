"""How an attempt ends, noted until its Ended message is made."""

from __future__ import annotations

from dataclasses import dataclass

from executor_svc.runtime.engine_port import FinishReason
from executor_svc.runtime.messages.outputs import EndCause


@dataclass(slots=True, kw_only=True)
class Ending:
    """Why an attempt ends, with the details for its Ended message."""

    cause: EndCause
    message: str = ""
    field_name: str = ""  # with INVALID: contract path of the field at fault
    finish_reason: FinishReason | None = None  # with FINISHED
    stop_string: str = ""
    stop_token_id: int | None = None
    engine_died: bool = False  # with FAILED
