"""What an executor does: asyncio, no gRPC."""
