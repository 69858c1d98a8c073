"""Plain streams: streamed chat and text completions, written without vLLM's response objects in the same bytes."""
