"""gRPC, and nothing else knows of it."""
