"""Batches: files of requests that run without a client, and the files with their results."""
