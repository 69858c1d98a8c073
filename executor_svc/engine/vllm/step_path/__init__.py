"""Takes a step's new tokens of many requests in one pass, from inside vLLM's output processor."""
