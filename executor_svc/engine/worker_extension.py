"""What vLLM loads into each of its worker processes for us: ``worker_extension_cls``.

Importing this module is the point of it; only vLLM does, in a worker.
"""

from __future__ import annotations

from executor_svc.engine.lifeline import hang_on_executor


class WorkerExtension:
    """Mixed into vLLM's worker class.  Adds nothing to it."""


hang_on_executor()
