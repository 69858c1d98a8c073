"""Makes the tiny model that vLLM serves when no model is named."""

from __future__ import annotations

import subprocess
import sys

from sage_local.fleet.spec import TINY_MODEL, FleetSpec

MAKE_TIMEOUT_S = 600.0


class ModelNotMade(Exception):
    """The tiny model could not be made; the message says why."""


def make_model_if_needed(spec: FleetSpec) -> None:
    """Make the tiny model if the spec needs it and it does not exist yet.

    Raises:
        ModelNotMade: the model could not be made.
    """
    if spec.engine != "vllm" or spec.model:
        return
    command = [sys.executable, "-m", "executor_svc.engine.tiny_model", "--out", TINY_MODEL]
    try:
        made = subprocess.run(command, capture_output=True, text=True, timeout=MAKE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ModelNotMade(f"the tiny model was not made within {MAKE_TIMEOUT_S:g} s") from None
    if made.returncode:
        last = (made.stderr.strip() or made.stdout.strip() or "no message").splitlines()[-1]
        raise ModelNotMade(f"the tiny model could not be made: {last}")
