"""gRPC, and nothing but: one servicer per service, conversion, one place where errors become statuses."""
