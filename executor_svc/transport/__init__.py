"""The executor's gRPC connections.  No other package of the executor imports grpc, except ``wiring``."""
