"""Finds the lines of a file that are closest to a question.

    python clients/examples/embed.py lines.txt "Who goes next?" [--model NAME] [--address HOST:PORT]

Needs an executor of role EMBEDDING: ``sagectl up --engine simulated --roles general,embedding``, and then
``--model simulated-embedding``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import sage_client as sage


def main() -> int:
    """Print the closest lines, the best first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("lines", type=Path)
    parser.add_argument("question")
    parser.add_argument("--model", default="")
    parser.add_argument("--address", default=sage.DEFAULT_ADDRESS)
    parser.add_argument("--best", type=int, default=3)
    options = parser.parse_args()
    lines = [line for line in options.lines.read_text().splitlines() if line.strip()]

    with sage.Client(options.address) as client:
        found = client.embed([options.question, *lines], model=options.model, normalize=True)

    question, *vectors = found
    scores = [sum(a * b for a, b in zip(question, vector, strict=True)) for vector in vectors]
    for score, line in sorted(zip(scores, lines, strict=True), reverse=True)[: options.best]:
        print(f"{score:.3f}  {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
