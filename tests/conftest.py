"""For every test: hypothesis counts examples, not milliseconds, because machines are shared and noisy."""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

# Whoever starts the tests in the background may have it ignored, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
