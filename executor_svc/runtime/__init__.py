"""The executor's behaviour, independent of its transport: asyncio, no gRPC."""
