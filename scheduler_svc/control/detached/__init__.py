"""Detached work: requests that need no client, and whose results are kept."""
