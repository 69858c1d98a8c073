"""The flags of an executor on a simulated engine that answers to the last token asked for."""

from __future__ import annotations

from tests.support.simulated_answer import ENDLESS


def simulated_executor(*, step_s: float, max_running: int) -> list[str]:
    """Return flags; ``step_s``: seconds that each token of a stream takes."""
    engine = {
        "step-base-s": step_s,
        "max-running": max_running,
        "mean-output-tokens": ENDLESS.mean_output_tokens,
    }
    flags = ["--engine.kind", "simulated", "--model", "sim", "--drain-timeout-s", "5"]
    return flags + [f"--engine.simulated.{name}={value}" for name, value in engine.items()]
