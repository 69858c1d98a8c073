"""The executor service: one process that runs one engine and offers it to a scheduler."""
