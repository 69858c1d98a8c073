"""The pure scheduling scheduler: standard library only, no clock of its own, no asyncio."""
