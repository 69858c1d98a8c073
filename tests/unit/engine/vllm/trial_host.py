"""A trial process with a compiler made for tests: ``python -m tests.unit.engine.vllm.trial_host``."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys

from executor_svc.engine.vllm.constraints.trial_server import Lines, TrialServer

ANSWERS = os.dup(1)


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
        case "leave":
            os._exit(0)
        case "interrupted":
            raise KeyboardInterrupt
        case "long error":
            raise ValueError("\U0001f600" * 10_000)
        case "babble":
            os.write(ANSWERS, b"{\n")
        case "stop the server":
            os.kill(os.getppid(), signal.SIGSTOP)
            signal.pause()
        case "end the server":
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()


def no_process() -> int:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def main() -> None:
    os.dup2(2, 1)
    requests = Lines(0)
    match json.loads(requests.first()):
        case "fail":
            sys.exit(3)
        case "limited":
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        case "no processes":
            os.fork = no_process
    TrialServer(attempt, requests, ANSWERS).serve()


if __name__ == "__main__":
    main()
