"""Tokenizers and chat templates that executors send, run off the event loop."""
