"""gRPC: the only room of the executor that knows it."""
