"""The pure scheduling core: standard library only, no clock of its own, no asyncio."""
