"""Tokenizers and chat templates that executors hand in, run off the event loop."""
