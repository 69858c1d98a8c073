"""The scheduler's decisions, pure: no I/O, no clock of its own, no asyncio."""
