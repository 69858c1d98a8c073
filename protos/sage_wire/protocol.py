"""Version of the protocol between executor and scheduler."""

from __future__ import annotations

PROTOCOL_VERSION = 1
OLDEST_PROTOCOL_VERSION = 0
"""The scheduler accepts its own version and the one before, so that a fleet can be upgraded piece by piece."""

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Bound of one gRPC message, both directions.  A prompt larger than PROMPT_LIMIT_BYTES is refused long before."""

PROMPT_LIMIT_BYTES = 8 * 1024 * 1024
"""Bound of a prompt's text; well above what any model's context holds."""

TOKENIZER_LIMIT_BYTES = 64 * 1024 * 1024
"""Bound of a model's tokenizer files: the largest public ones are about 35 MB."""
