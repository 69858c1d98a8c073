"""Bounds and times of a client's session; docs/sessions.md has the same values."""

from __future__ import annotations

MESSAGE_BYTES = 1024 * 1024
"""Largest message of a client."""

ENTRIES_LIMIT = 4_096
"""Entries of one repeated field of a client's message."""

HANDLES_LIMIT = 4_096
"""Handles of a session at the same time; further ones are refused."""

REFUSALS_LIMIT = 4_096
"""Refusals above ``HANDLES_LIMIT`` that wait for a frame; with more of them the stream ends."""

ARRIVING_LIMIT = 1_024
"""Handles of a session between Submit and HandleAccepted."""

BEGUN_PER_TURN = 32
"""Requests of one message that begin at once, at a third of a millisecond each: they are placed and sent to their
executors before others begin, so that a burst fills the first step of an engine and is not sent as a whole."""

CALLER_SESSIONS_LIMIT = 256
SESSIONS_LIMIT = 4_096
"""Sessions that are open at the same time: of one caller, and of all."""

TRACEPARENT_BYTES = 128
TRACESTATE_BYTES = 4_096

FRAME_BYTES = 256 * 1024
"""Size from which a frame takes no further entry."""

ENTRY_TOKENS = 16 * 1024
"""Most tokens of one entry of a frame."""

PIECE_TOKENS = 64
"""Most tokens of one piece with log probabilities, which take about 2 KB each."""

WINDOW_FRAMES = 32
"""Frames that may be unacknowledged."""

PACE_S = 0.010
"""Seconds between two frames, except for what makes a caller wait."""

OPEN_LIMIT_S = 10.0
"""Seconds that a stream may take for Open."""

SILENCE_S = 15.0
"""Seconds without a message of the client after which its stream counts as broken."""

ACKNOWLEDGE_LIMIT_S = 30.0
"""Seconds without an acknowledgement, while frames wait for one, after which the stream ends."""

PAUSE_LIMIT_S = 30.0
"""Seconds that a handle may stay paused after its request ended."""

IDENTITY_AGE_S = 5.0
"""Seconds after which a client's next message has it found out again who the client is."""
