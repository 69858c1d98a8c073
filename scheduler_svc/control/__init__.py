"""What happens to requests and instances over time: asyncio, an injected clock, no gRPC."""
