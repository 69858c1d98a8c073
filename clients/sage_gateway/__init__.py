"""The OpenAI-compatible HTTP gateway: vLLM's own API server in front of the fleet."""
