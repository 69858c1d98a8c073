"""Holds a conversation on the terminal: answers are streamed, Ctrl-C cancels the current one.

python clients/examples/chat.py [--address HOST:PORT] [--model NAME] [--max-tokens N]
"""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Iterator

import sage_client as sage


def main() -> int:
    """Read the options and hold the conversation; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default=sage.DEFAULT_ADDRESS)
    parser.add_argument("--model", default="")
    parser.add_argument("--max-tokens", type=int, default=128)
    options = parser.parse_args()
    with sage.Client(options.address) as client:
        return converse(client, options.model, options.max_tokens)


def converse(client: sage.Client, model: str, max_tokens: int) -> int:
    """Send every line of stdin with the whole conversation; return the exit status.

    The session prefers the instance that cached the conversation.
    """
    turns: list[sage.ChatMessage] = []
    session = uuid.uuid4().hex
    for line in prompts():
        turns.append(sage.ChatMessage(role="user", content=line))
        stream = client.generate(
            messages=turns, model=model, max_tokens=max_tokens, session=session, priority=sage.Priority.HIGH
        )
        answer = ""
        try:
            for piece in stream.text():
                answer += piece
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            stream.cancel("the user pressed Ctrl-C")
        except sage.SageError as error:
            print(f"\nerror: {error}", file=sys.stderr)
            return 1
        print()
        turns.append(sage.ChatMessage(role="assistant", content=answer))
    return 0


def prompts() -> Iterator[str]:
    """Yield the lines that the user types, without empty ones."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if line:
            yield line


if __name__ == "__main__":
    sys.exit(main())
