"""The simulated engine: an engine without a model, for tests and demonstrations."""
