"""The scheduler's decisions, pure: standard library only, no clock of its own, no asyncio."""
