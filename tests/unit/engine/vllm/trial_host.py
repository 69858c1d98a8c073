"""A trial process with a compiler made for tests: ``python -m tests.unit.engine.vllm.trial_host``."""

from __future__ import annotations

import json
import os
import signal
import sys

from executor_svc.engine.vllm.constraints.trial_server import Lines, TrialServer


def attempt(task: str) -> None:
    match task:
        case "spin":
            while True:
                pass
        case "broken":
            raise ValueError("no such rule")
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "memory":
            bytes(1 << 40)
        case "end the server":
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()


def main() -> None:
    answers = os.dup(1)
    os.dup2(2, 1)
    requests = Lines(0)
    if json.loads(requests.first()) == "fail":
        sys.exit(3)
    TrialServer(attempt, requests, answers).serve()


if __name__ == "__main__":
    main()
