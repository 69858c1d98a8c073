"""For every test: hypothesis counts examples, not milliseconds, because machines are shared and noisy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")
